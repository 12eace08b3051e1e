"""The table of SDKs and operations in the emulator's README."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.vendor.operations import OPERATIONS
from tests.vendor.sdks import ROOT, SDKS, Sdk
from tests.vendor.world import SCHEMES, Runs

if TYPE_CHECKING:
    from collections.abc import Mapping

README = ROOT / "server" / "docpreview_emulator" / "README.md"
BEGIN = "<!-- Written by `python -m tests.vendor`: from here -->\n"
END = "<!-- to here -->\n"

Column = list[str]
"""The cells of an SDK, from the top; the first has its name and version."""


def column(sdk: Sdk, runs: Runs) -> Column:
    """The column that the runs of the SDK give.

    Raises:
        NotBuiltError: the driver could not be built.
    """
    return [heading(sdk), *(_cell(sdk, runs, operation) for operation in OPERATIONS)]


def heading(sdk: Sdk) -> str:
    return f"{sdk.name} {sdk.version}"


def _cell(sdk: Sdk, runs: Runs, operation: str) -> str:
    schemes = [scheme for scheme in SCHEMES if sdk.does(operation, scheme)]
    for scheme in schemes:
        try:
            runs.get(sdk, scheme).check(operation)
        except AssertionError:
            return f"fails over {scheme}"
    words = ["yes" if len(schemes) > 1 else "https"]
    return ", ".join([*words, sdk.differs[operation][1]] if operation in sdk.differs else words)


def columns() -> dict[str, Column]:
    """The columns of the README, by the name of the SDK; that of the operations as `operation`."""
    _, _, rest = README.read_text().partition(BEGIN)
    rows = [row.strip("|\n ").split(" | ") for row in rest.partition(END)[0].splitlines() if row and "---" not in row]
    cells = [[cell.strip() for cell in each] for each in zip(*rows, strict=True)]
    return {each[0].partition(" ")[0]: each for each in cells}


def write(made: Mapping[str, Column]) -> None:
    """Writes the table, with columns in the order of the SDKs."""
    rows = zip(["operation", *OPERATIONS], *(made[sdk.name] for sdk in SDKS), strict=True)
    lines = ["| " + " | ".join(row) + " |\n" for row in rows]
    lines.insert(1, "|---" * (len(SDKS) + 1) + "|\n")
    before, begin, rest = README.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    README.write_text("".join([before, begin, *lines, "\n", end, after]))
