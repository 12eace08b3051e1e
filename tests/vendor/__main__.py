"""`python -m tests.vendor`: runs all drivers, and writes the table into the emulator's README."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.programs import find
from tests.vendor.sdks import SDKS, NotBuiltError
from tests.vendor.table import column, columns, write
from tests.vendor.world import Runs, world


def main() -> None:
    made = columns()
    with tempfile.TemporaryDirectory() as folder, world(Path(folder)) as running:
        runs = Runs(running)
        for sdk in SDKS:
            missing = [tool for tool in sdk.tools if find(tool) is None]
            try:
                if not missing:
                    made[sdk.name] = column(sdk, runs)
            except NotBuiltError as error:
                missing = [str(error)]
            if missing:
                sys.stderr.write(f"{sdk.name} keeps its column: missing {', '.join(missing)}\n")
    write(made)


if __name__ == "__main__":
    main()
