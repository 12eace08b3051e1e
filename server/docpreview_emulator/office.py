"""Conversion of presentations, text documents and spreadsheets to PDF by LibreOffice, when it is installed.

Runs in the process of one document (`document_process`), whose walls are those of LibreOffice too. It gets a copy of a
profile. Inside of LibreOffice runs `convert.bas`: that way a workbook is written sheet by sheet, a password stays off
the command line, and macros of a document are disabled.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from docpreview_emulator.errors import JobFailure
from docpreview_emulator.formats import Family, family_of
from docpreview_emulator.office_passwords import is_encrypted
from docpreview_emulator.office_profile import prepare
from docpreview_emulator.office_report import warnings
from docpreview_emulator.office_sources import OfficeSource, not_opened, source_for_office

MACRO = "macro:///Standard.Convert.Main"
PROFILE = "profile"
"""The name of the profile's directory in that of the document."""

CRASH = "The document made the converter crash."
_ENDED_EARLY = "ended early"
_LONGEST_PASSWORD = 1000
"""Characters of a password; a variable may not become too long, and no document has a longer one."""

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


def find_office(program: str | None) -> str | None:
    """LibreOffice's program; None: it is not installed. Unset searches the PATH, "" disables it."""
    found = shutil.which("soffice") or shutil.which("libreoffice") if program is None else program
    return found or None


def create_profile(program: str, directory: Path) -> None:
    """Have LibreOffice make a profile, for copies; it fills a new one on its first run."""
    profile = directory / PROFILE
    prepare(profile, complete=False)
    _soffice(program, directory, "--terminate_after_init")
    prepare(profile, complete=True)


def convert(
    program: str, source: Path, suffix: str, process: Mapping[str, str], directory: Path
) -> tuple[list[Part], int | None]:
    """The PDFs that a document becomes, and for a workbook the number of its sheets.

    Args:
        program: LibreOffice.
        source: the document.
        suffix: its suffix, one that `formats` knows.
        process: the job's `DocProcess` values.
        directory: the working directory, with a profile.

    Raises:
        JobFailure: LibreOffice cannot convert the document, crashed, or was ended by a limit.
    """
    password = process["DocPassword"]
    copy = source_for_office(source, suffix, password, directory)
    report = _run(program, _task(copy, process, directory), password, directory)
    if "opened" not in report:
        if _ENDED_EARLY in report and not is_encrypted(source):
            raise JobFailure("FileOpenFailed", CRASH)
        raise not_opened(source, password)
    parts, sheets = _parts(report, suffix, process, directory)
    said = tuple(filter(None, [copy.warning, *warnings(report)]))
    return [*(replace(first, warnings=said) for first in parts[:1]), *parts[1:]], sheets


def _run(program: str, task: list[str], password: str, directory: Path) -> list[str]:
    """Run the macro on a task; the lines that it reported."""
    task_file = directory / "task"
    task_file.touch(mode=0o600)
    task_file.write_text("\n".join(task) + "\n", encoding="utf-8")
    try:
        passed_on = {"DOCPREVIEW_TASK": task_file.as_uri(), "DOCPREVIEW_PASSWORD": _code_units(password)}
        ended = _soffice(program, directory, MACRO, **passed_on)
    finally:
        task_file.unlink(missing_ok=True)
    report = directory / "report"
    lines = report.read_text(encoding="utf-8").split("\n") if report.exists() else []
    return lines if ended == 0 else [*lines, _ENDED_EARLY]


def _soffice(program: str, directory: Path, *arguments: str, **environment: str) -> int:
    """Run LibreOffice to its end; how it ended."""
    profile = (directory / PROFILE).as_uri()
    return subprocess.run(  # noqa: S603 - the program that was found, and options of our own
        [program, *_OPTIONS, f"-env:UserInstallation={profile}", *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=directory,
        check=False,
    ).returncode


def _task(copy: OfficeSource, process: Mapping[str, str], directory: Path) -> list[str]:
    """The lines that `convert.bas` reads."""
    width, height = _PAPERS.get(process["PaperSize"], _PAPERS["0"])
    if process["PaperDirection"] != "0":
        width, height = height, width
    places = [copy.path.as_uri(), directory.as_uri(), (directory / "report").as_uri()]
    return [
        *places,
        copy.filter_name,
        copy.filter_options,
        process["Comments"],
        process["SheetId"],
        str(width),
        str(height),
    ]


def _code_units(password: str) -> str:
    """A password as numbers: what a variable with other characters means depends on the machine's locale."""
    encoded = password[:_LONGEST_PASSWORD].encode("utf-16-be", "surrogatepass")
    return " ".join(str(int.from_bytes(encoded[i : i + 2], "big")) for i in range(0, len(encoded), 2))


def _parts(
    report: list[str], suffix: str, process: Mapping[str, str], directory: Path
) -> tuple[list[Part], int | None]:
    if _ENDED_EARLY in report:  # what it left is not all, such as some of the sheets
        raise JobFailure("FileOpenFailed", CRASH)
    if "whole" in report:
        return [Part(directory / "whole.pdf")], None
    if "nothing" in report:
        raise JobFailure("-3008", "The document is empty: all of its slides are hidden.")
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
