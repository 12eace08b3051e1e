"""Conversion of presentations, text documents and spreadsheets to PDF by LibreOffice, when it is installed.

LibreOffice runs as a process of its own, for one document at a time, with a profile of its own, and is killed with its
children when it takes too long. Inside it runs `convert.bas`: that way a workbook is written sheet by sheet, a password
stays off the command line, and macros and links of a document are disabled.
"""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from docpreview_emulator.errors import JobFailure
from docpreview_emulator.formats import Family, family_of
from docpreview_emulator.office_profile import prepare
from docpreview_emulator.office_sources import OfficeSource, not_opened, source_for_office

MACRO = "macro:///Standard.Convert.Main"
_OPTIONS = ("--headless", "--norestore", "--nologo", "--nodefault", "--nolockcheck")

# The vendor's PaperSize: 0 A4, 1 A2, 2 A0; width and height in hundredths of a millimetre, upright.
_PAPERS = {"0": (21000, 29700), "1": (42000, 59400), "2": (84100, 118900)}


@dataclass(frozen=True, slots=True)
class Part:
    """A PDF to render: the whole document, or one sheet (counted from 1). An empty sheet has no PDF."""

    source: Path | None
    sheet: int | None = None
    warnings: tuple[str, ...] = ()
    """Sentences on what its pages do not show; they reach the job's message and the log."""


class OfficeConverter:
    """Converts documents; `program` is LibreOffice, None when it is not installed, `timeout` is in seconds."""

    def __init__(self, program: str | None, timeout: float, directory: Path) -> None:
        found = shutil.which("soffice") or shutil.which("libreoffice") if program is None else program
        self.program = found or None
        self._timeout = timeout
        self._profile = directory
        self._lock = asyncio.Lock()

    async def convert(
        self, source: Path, suffix: str, process: Mapping[str, str], directory: Path
    ) -> tuple[list[Part], int | None]:
        """The PDFs that a document becomes, and for a workbook the number of its sheets.

        Args:
            source: the document.
            suffix: its suffix, one that `formats` knows.
            process: the job's `DocProcess` values.
            directory: the working directory; the caller removes it.

        Raises:
            JobFailure: there is no LibreOffice, or it cannot convert the document, or not in time.
        """
        if self.program is None:
            raise JobFailure(
                "-3011", f"Unsupported file type: {suffix} (LibreOffice is not installed beside the emulator)."
            )
        password = process["DocPassword"]
        copy = source_for_office(source, suffix, password, directory)
        async with self._lock:
            report = await self._run(self.program, _task(copy, process, directory), directory)
        if "opened" not in report:
            raise not_opened(source, password)
        return _parts(report, suffix, process, directory)

    async def _run(self, program: str, task: list[str], directory: Path) -> list[str]:
        """Run the macro on a task; the lines that it reported."""
        task_file = directory / "task"
        task_file.touch(mode=0o600)
        task_file.write_text("\n".join(task) + "\n", encoding="utf-8")
        try:
            async with asyncio.timeout(self._timeout):
                if await asyncio.to_thread(prepare, self._profile, complete=False):
                    await self._soffice(program, "--terminate_after_init")
                    await asyncio.to_thread(prepare, self._profile, complete=True)
                await self._soffice(program, MACRO, DOCPREVIEW_TASK=task_file.as_uri())
        except TimeoutError:
            raise JobFailure("ConversionTimeout", f"The conversion took more than {self._timeout:g} s.") from None
        finally:
            task_file.unlink(missing_ok=True)
        report = directory / "report"
        return report.read_text(encoding="utf-8").split("\n") if report.exists() else []

    async def _soffice(self, program: str, *arguments: str, **environment: str) -> None:
        """Run LibreOffice to its end; when this call is cancelled, all of its processes are killed."""
        child = await asyncio.create_subprocess_exec(
            program,
            *(*_OPTIONS, f"-env:UserInstallation={self._profile.as_uri()}", *arguments),
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            await child.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()


def _task(copy: OfficeSource, process: Mapping[str, str], directory: Path) -> list[str]:
    """The lines that `convert.bas` reads."""
    width, height = _PAPERS.get(process["PaperSize"], _PAPERS["0"])
    if process["PaperDirection"] != "0":
        width, height = height, width
    places = [copy.path.as_uri(), directory.as_uri(), (directory / "report").as_uri()]
    password = process["DocPassword"].replace("\n", "").replace("\r", "")
    return [*places, *copy[1:], password, process["Comments"], process["SheetId"], str(width), str(height)]


def _parts(
    report: list[str], suffix: str, process: Mapping[str, str], directory: Path
) -> tuple[list[Part], int | None]:
    if "whole" in report:
        return [Part(directory / "whole.pdf")], None
    counts = [int(line.split()[1]) for line in report if line.startswith("sheets ")]
    if not counts or family_of(suffix) is not Family.SHEETS:
        raise JobFailure("FileOpenFailed", "LibreOffice could not convert the document.")
    sheets = [int(line.split()[1]) for line in report if line.startswith("sheet ")]
    if "hidden" in report:
        raise JobFailure("-3015", f"Sheet {process['SheetId']} is hidden: hidden sheets are not converted.")
    if not sheets and int(process["SheetId"]):
        raise JobFailure("-3015", f"Sheet {process['SheetId']} does not exist: the workbook has {counts[0]}.")
    return [_sheet(directory, sheet) for sheet in sheets], counts[0]


def _sheet(directory: Path, sheet: int) -> Part:
    path = directory / f"sheet-{sheet}.pdf"
    return Part(path if path.exists() and path.stat().st_size else None, sheet)
