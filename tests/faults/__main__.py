"""A storm over the gateway, and one over the vendor's SDK, side by side: `python -m tests.faults IDS KILLS SEED`."""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from pathlib import Path

from tests.faults.storm import Plan, storm
from tests.faults.vendor import vendor_storm


async def main(ids: int = 300, kills: int = 5, seed: int = 1) -> None:
    logging.disable()  # the SDK's
    plan = Plan(seed, ids, kills)
    with tempfile.TemporaryDirectory() as folder:
        print(await storm(plan, Path(folder)))  # noqa: T201
    print(await vendor_storm(plan))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
