"""Processes that open documents: one for each, which is killed when it is done or takes too long."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from docpreview_emulator.errors import JobFailure
from docpreview_emulator.sandbox import NAMESPACES, Limits

_LONGEST_LINE = 16 * 1024 * 1024
_PASSED_ON = (
    *("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH"),
    *("LANG", "LC_ALL", "LC_CTYPE", "TZ", "FONTCONFIG_FILE"),
)
"""Variables of the emulator that the processes have too; others may be secrets."""


class DocumentProcess:
    """A process with a directory of its own that converts one document."""

    def __init__(self, child: asyncio.subprocess.Process, directory: Path) -> None:
        self.child = child
        self.directory = directory
        self.isolation = ""

    async def ask(self, task: Mapping[str, Any], timeout: float) -> dict[str, Any]:  # noqa: ASYNC109 - as a setting
        """The reply to a task.

        Raises:
            JobFailure: the document cannot be converted, or not in so many seconds.
        """
        if self.child.stdin is None:  # unreachable: it is a pipe
            raise ConnectionError
        try:
            async with asyncio.timeout(timeout):
                self.child.stdin.write(json.dumps(task).encode() + b"\n")
                await self.child.stdin.drain()
                reply = await self._line()
        except TimeoutError:
            message = f"The conversion took more than {timeout:g} s (--conversion-timeout)."
            raise JobFailure("ConversionTimeout", message) from None
        except (ValueError, TypeError, ConnectionError):
            raise JobFailure("FileOpenFailed", "The document made the converter crash.") from None
        if "code" in reply:
            raise JobFailure(str(reply["code"]), str(reply["message"]))
        return reply

    async def greeted(self) -> None:
        """Wait for the line that says which isolation is in force."""
        self.isolation = str((await self._line())["isolation"])

    async def end(self) -> None:
        """End the process, with all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        await self.child.communicate()

    async def close(self) -> None:
        """End the process and remove its directory."""
        await self.end()
        await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)

    async def _line(self) -> dict[str, Any]:
        if self.child.stdout is None:  # unreachable: it is a pipe
            raise ConnectionError
        return dict(json.loads(await self.child.stdout.readline()))


class Workers:
    """Starts processes below a directory; `office` is LibreOffice. One may be started ahead of its document."""

    def __init__(self, directory: Path, limits: Limits, office: str | None, strongest: str = NAMESPACES) -> None:
        self.office = office
        self._directory = directory
        self._strongest = strongest
        self._limits = limits
        self._readable = [*_users_fonts().values(), *([] if office is None else [_installation(Path(office))])]
        self._spare: asyncio.Task[DocumentProcess] | None = None
        self._isolation = ""

    async def isolation(self) -> str:
        """The kind of isolation that is in force, one of `sandbox.KINDS`.

        Raises:
            OSError: no process can be started.
        """
        if not self._isolation:
            self._spare = ready = self._spare or asyncio.create_task(self._start())
            try:
                await asyncio.shield(ready)
            except OSError:
                self._spare = None
                raise
        return self._isolation

    def start_ahead(self) -> None:
        """Have a process ready when the next document comes."""
        if self._spare is None:
            self._spare = asyncio.create_task(self._start())

    @asynccontextmanager
    async def process(self) -> AsyncIterator[DocumentProcess]:
        """A process for one document; it is gone when the block ends.

        Raises:
            OSError: no process can be started.
        """
        ready, self._spare = self._spare or asyncio.create_task(self._start()), None
        try:
            process = await ready
        except asyncio.CancelledError:
            await _end(ready)
            raise
        try:
            yield process
        finally:
            await process.close()

    async def close(self) -> None:
        """End the process that was started ahead."""
        ready, self._spare = self._spare, None
        if ready is not None:
            await _end(ready)

    async def _start(self) -> DocumentProcess:
        directory = self._directory / uuid.uuid4().hex
        own = {"HOME": directory / "home", "TMPDIR": directory / "tmp"}
        for folder in (directory, *own.values()):
            folder.mkdir(mode=0o700, parents=True)
        for name, fonts in _users_fonts().items():
            (own["HOME"] / name).parent.mkdir(parents=True, exist_ok=True)
            (own["HOME"] / name).symlink_to(fonts)
        variables = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        setup = {
            "directory": str(directory),
            "limits": asdict(self._limits),
            "programs": [str(path) for path in self._readable],
            "strongest": self._strongest,
        }
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "docpreview_emulator.document_process", json.dumps(setup)),
            env={**variables, **{name: str(folder) for name, folder in own.items()}},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=_LONGEST_LINE,
            start_new_session=True,
            umask=0o077,
        )
        process = DocumentProcess(child, directory)
        try:
            await process.greeted()
        except BaseException as error:
            await process.close()
            if isinstance(error, (ValueError, TypeError, KeyError)):
                raise OSError("the process that converts documents does not start") from None
            raise
        self._isolation = process.isolation
        return process


async def _end(ready: "asyncio.Task[DocumentProcess]") -> None:
    """End a process that may not have started yet."""
    ready.cancel()
    with contextlib.suppress(asyncio.CancelledError, OSError):
        await (await ready).close()


def _users_fonts() -> dict[str, Path]:
    """Directories of fonts of this user, by their names below the home directory."""
    found = {name: Path.home() / name for name in (".fonts", ".local/share/fonts")}
    return {name: path.resolve() for name, path in found.items() if path.is_dir()}


def _installation(program: Path) -> Path:
    """The directory to read for a program: of LibreOffice's own tree all of it."""
    found = program.resolve()
    return found.parent.parent if found.parent.name == "program" else found.parent
