"""A fault campaign against the gateway, then one against the vendor's SDK: `python -m tests.faults IDS KILLS SEED`."""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from pathlib import Path

from tests.faults.campaign import Plan, run_campaign
from tests.faults.vendor import run_vendor_campaign


async def main(ids: int = 300, kills: int = 5, seed: int = 1) -> None:
    logging.disable()  # the SDK logs every failed attempt
    plan = Plan(seed, ids, kills)
    with tempfile.TemporaryDirectory() as folder:
        print(await run_campaign(plan, Path(folder)))  # noqa: T201
    print(await run_vendor_campaign(plan))  # noqa: T201


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
