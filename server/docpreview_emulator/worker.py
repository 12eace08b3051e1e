"""Client of the render process, which starts on first use, renders one document at a time and restarts on failure."""

import asyncio
import contextlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from docpreview_emulator.errors import JobFailure
from docpreview_emulator.pages import RenderOptions

_LONGEST_LINE = 16 * 1024 * 1024


class RenderWorker:
    """Renders PDFs in a separate process; `timeout` in seconds bounds one document."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def render(self, source: Path, directory: Path, options: RenderOptions) -> dict[str, Any]:
        """The result of `render.render`, as plain data.

        Raises:
            JobFailure: the document cannot be rendered, in time, or without killing the process.
        """
        task = {"source": str(source), "directory": str(directory), "options": asdict(options)}
        async with self._lock:
            reply = await self._ask(json.dumps(task).encode() + b"\n")
        if "code" in reply:
            raise JobFailure(str(reply["code"]), str(reply["message"]))
        return reply

    async def _ask(self, line: bytes) -> dict[str, Any]:
        """Send one request to the process; on any failure kill it, so that the next request starts a new one."""
        child = await self._running()
        try:
            async with asyncio.timeout(self._timeout):
                reply: dict[str, Any] = json.loads(await _exchange(child, line))
        except TimeoutError:
            await self.close()
            raise JobFailure("ConversionTimeout", f"The conversion took more than {self._timeout:g} s.") from None
        except (ValueError, ConnectionError):
            await self.close()
            raise JobFailure("FileOpenFailed", "The document made the converter crash.") from None
        except BaseException:
            await self.close()
            raise
        return reply

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "docpreview_emulator.render_process"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=_LONGEST_LINE,
            )
        return self._process

    async def close(self) -> None:
        """End the process now."""
        child, self._process = self._process, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.communicate()


async def _exchange(child: asyncio.subprocess.Process, line: bytes) -> bytes:
    if child.stdin is None or child.stdout is None:  # unreachable: both are pipes
        return b""
    child.stdin.write(line)
    await child.stdin.drain()
    return await child.stdout.readline()
