"""The process that opens one document: a JSON line in, a JSON line out, and then it ends.

Everything that reads a document happens here: the test of a package, the conversion by LibreOffice, the drawing of
pages, the image of a watermark. It is a process within walls (`sandbox`), one for each document, below a supervisor
that opens nothing: the supervisor tells how its child ended, and ends it when its files have become too many.
"""

import contextlib
import errno
import json
import os
import resource
import select
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from docpreview_emulator import glyphs, sandbox
from docpreview_emulator.errors import JobFailure
from docpreview_emulator.formats import Family, family_of
from docpreview_emulator.office import CRASH, Part, convert, create_profile
from docpreview_emulator.packages import check_unpacked
from docpreview_emulator.pages import BEYOND_THE_END, MAX_PAGES, RenderOptions
from docpreview_emulator.render import render

MEBIBYTE = 1024 * 1024
_CHECK_SECONDS = 0.5
_NICENESS = 10
_TOO_LARGE, _NOT_OPENED = "-3075", "FileOpenFailed"
_MOST_TIME = 0.9  # of the limit: the kernel accounts by ticks
_MOST_MEMORY = 0.6  # of the limit in use: a process that crashes then has found no more
_MUCH_MEMORY = 0.3  # of the limit in use: a process that fails then may have found no more

Reply = dict[str, Any]


def main() -> None:
    """Serve one task; the argument has the directory, limits, directories of programs, and the strongest isolation."""
    setup = json.loads(sys.argv[1])
    directory, limits = Path(setup["directory"]), sandbox.Limits(**setup["limits"])
    sandbox.die_with_parent()
    os.nice(_NICENESS)
    separated = setup["strongest"] == sandbox.NAMESPACES and sandbox.separate()
    ended, alive = os.pipe()
    child = os.fork()
    if child:
        os.close(alive)
        failure = _supervise(child, ended, directory, limits)
        if failure is not None:
            _say(failure)
        return
    sandbox.die_with_parent()
    programs = [Path(path) for path in setup["programs"]]
    isolation = sandbox.enter(directory, programs, strongest=setup["strongest"], separated=separated)
    _say({"isolation": isolation})
    sandbox.limit(limits)
    line = sys.stdin.readline()  # it ends without one when the emulator ends
    if line:
        _say(_answer(json.loads(line), directory, limits))
    os._exit(0)


def _say(reply: Reply) -> None:
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


def _supervise(child: int, ended: int, directory: Path, limits: sandbox.Limits) -> Reply | None:
    """Wait for the child; None: it has answered."""
    while not select.select([ended], [], [], _CHECK_SECONDS)[0]:
        if _bytes_below(directory) > limits.file_bytes:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return _too_many_bytes(limits)
    _, status, usage = os.wait4(child, 0)
    if status == 0:
        return None
    return _why(usage, limits)


def _why(usage: resource.struct_rusage, limits: sandbox.Limits, otherwise: str = CRASH) -> Reply:
    """Why processes did not do their work, by what they have used; `otherwise` is said where that was little."""
    if usage.ru_utime + usage.ru_stime >= limits.cpu_seconds * _MOST_TIME:
        return _too_much_time(limits)
    used, limit = usage.ru_maxrss // 1024, limits.memory // MEBIBYTE
    if used > limit * _MOST_MEMORY:
        return _too_much_memory(limits)
    if used > limit * _MUCH_MEMORY:
        otherwise += f" Perhaps it needs more memory: it used {used} of {limit} MiB (--max-memory)."
    return _failed(_NOT_OPENED, otherwise)


def _bytes_below(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):  # it has been removed meanwhile
                total += Path(folder, name).lstat().st_blocks * 512
    return total


def _answer(task: Reply, directory: Path, limits: sandbox.Limits) -> Reply:
    """The reply to a task: what was rendered, or why not."""
    try:
        return _done(task, directory)
    except JobFailure as failure:
        if failure.code != _NOT_OPENED:
            return _failed(failure.code, failure.message)
        # LibreOffice calls a document damaged, too, for which it has no memory.
        return _why(resource.getrusage(resource.RUSAGE_CHILDREN), limits, failure.message)
    except MemoryError:
        return _too_much_memory(limits)
    except OSError as error:
        return _not_written(error, limits)
    except Exception as error:  # noqa: BLE001 - whatever a document does to the libraries is the document's failure
        return _failed(_NOT_OPENED, f"The document could not be drawn ({type(error).__name__}).")


def _not_written(error: OSError, limits: sandbox.Limits) -> Reply:
    if error.errno == errno.EFBIG and resource.getrlimit(resource.RLIMIT_FSIZE)[0] == limits.file_bytes:
        return _too_many_bytes(limits)
    return _failed("InternalError", f"The outputs could not be written: {error.strerror or error}")


def _done(task: Reply, directory: Path) -> Reply:
    if task["step"] == "profile":
        create_profile(task["program"], directory)
        return {}
    return _convert(task, directory)


def _convert(task: Reply, directory: Path) -> Reply:
    source, options = Path(task["source"]), RenderOptions(**task["options"])
    parts, sheets = _parts(source, task, options, directory)
    rendered: list[Reply] = []
    for part in parts:
        limit = max(MAX_PAGES - sum(each["total"] for each in rendered), 0)
        rendered.append(_render(part, directory, replace(options, limit=limit, is_sheet=part.sheet is not None)))
    if sheets is not None:
        _check_selection(rendered, int(options.process["SheetId"]))
    warnings = list(dict.fromkeys(warning for each in rendered for warning in each.pop("warnings")))
    return {"parts": rendered, "sheets": sheets, "warnings": warnings}


def _parts(source: Path, task: Reply, options: RenderOptions, directory: Path) -> tuple[list[Part], int | None]:
    """The PDFs to render, and for a workbook the number of its sheets."""
    if family_of(task["suffix"]) is Family.PDF:
        return [Part(source)], None
    check_unpacked(source, task["max_unpacked"])
    parts, sheets = convert(task["program"], source, task["suffix"], options.process, directory)
    return [_with_warnings(part, options.process) for part in parts], sheets


def _with_warnings(part: Part, process: Mapping[str, str]) -> Part:
    """A part with what its pages do not show for want of fonts."""
    if part.source is None:
        return part
    found = glyphs.warnings(part.source, process, is_sheet=part.sheet is not None)
    return replace(part, warnings=(*part.warnings, *found))


def _check_selection(rendered: list[Reply], sheet: int) -> None:
    """Refuse a workbook none of whose sheets has the selected pages, or any; a sheet of 0 selects all."""
    longest = max((each["total"] for each in rendered), default=0)
    if not longest and sheet:
        raise JobFailure("-3008", f"Sheet {sheet} is empty: it has no pages.")
    if not longest:
        raise JobFailure("-3008", "The document is empty: no sheet that is shown has anything in it.")
    if not any(each["outputs"] or each["failed"] for each in rendered):
        raise JobFailure(BEYOND_THE_END, f"No sheet has the selected pages: the longest one has {longest}.")


def _render(part: Part, directory: Path, options: RenderOptions) -> Reply:
    """One part (the document, or one sheet), with its outputs in a directory of their own."""
    target = directory / f"pages-{part.sheet or 0}"
    target.mkdir()
    place = {"sheet": part.sheet, "directory": target.name}
    if part.source is None:
        return {**place, "total": 0, "outputs": [], "failed": [], "warnings": part.warnings}
    rendering = render(part.source, target, options)
    return {**place, **asdict(rendering), "warnings": [*part.warnings, *rendering.warnings]}


def _too_many_bytes(limits: sandbox.Limits) -> Reply:
    return _failed(
        _TOO_LARGE, f"The conversion writes more than {limits.file_bytes // MEBIBYTE} MiB of files (--max-files)."
    )


def _too_much_time(limits: sandbox.Limits) -> Reply:
    return _failed(
        "ConversionTimeout", f"The conversion took more than {limits.cpu_seconds} s of CPU time (--max-cpu-time)."
    )


def _too_much_memory(limits: sandbox.Limits) -> Reply:
    return _failed(
        _TOO_LARGE, f"The conversion needs more than {limits.memory // MEBIBYTE} MiB of memory (--max-memory)."
    )


def _failed(code: str, message: str) -> Reply:
    return {"code": code, "message": message}


if __name__ == "__main__":
    main()
