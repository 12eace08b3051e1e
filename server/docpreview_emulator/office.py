"""From slides, text and workbooks to PDF, through LibreOffice when it is installed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from docpreview_emulator.errors import JobFailure


@dataclass(frozen=True, slots=True)
class Part:
    """A PDF to render: the whole document, or one sheet (counted from 1). An empty sheet has no PDF."""

    source: Path | None
    sheet: int | None = None


class OfficeConverter:
    """Runs LibreOffice, one document at a time."""

    def __init__(self, program: str | None, timeout: float, directory: Path) -> None:
        self.program = program

    async def convert(
        self, source: Path, suffix: str, process: Mapping[str, str], directory: Path
    ) -> tuple[list[Part], int | None]:
        raise JobFailure("-3011", f"Unsupported file type: {suffix} (LibreOffice is not installed).")
