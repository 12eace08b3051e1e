"""Runner process of one language: a line of JSON in, a line of JSON out."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conformance.languages import Language

_LONGEST_LINE = 4 * 1024 * 1024


class Runner:
    """A runner process."""

    def __init__(self, process: asyncio.subprocess.Process, errors: Path) -> None:
        self._process = process
        self._errors = errors

    async def answer(self, step: dict[str, Any]) -> dict[str, Any]:
        """The runner's result of a step."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(step).encode() + b"\n")
        line = await self._process.stdout.readline()
        assert line, f"the runner ended\n{self._errors.read_text()[-4000:]}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def end(self) -> None:
        """Close its input, after which it must exit with 0."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        status = await asyncio.wait_for(self._process.wait(), 10)
        assert status == 0, f"the runner ended with {status}\n{self._errors.read_text()[-4000:]}"


@asynccontextmanager
async def running(language: Language, scratch: Path) -> AsyncIterator[Runner]:
    """The language's runner; a process that is left at the end is killed."""
    errors = scratch / f"{language.name}.stderr"
    with errors.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *language.runner,
            cwd=language.folder,
            env=os.environ | language.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            limit=_LONGEST_LINE,
        )
    try:
        yield Runner(process, errors)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
