"""The format of the log: JSON for programs, text for people at a terminal, and what `serve --log-format` says."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from typing import TYPE_CHECKING

import pytest

from docpreview_emulator import Emulator
from tests.integration.gateway_processes import configuration

if TYPE_CHECKING:
    from pathlib import Path


async def first_line(path: Path, *arguments: str, stderr: int, reader: int, word: bytes) -> bytes:
    """The first line of the log with this word. The process is ended."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "docpreview_gateway", "serve", "--config", str(path), *arguments),
        env={name: value for name, value in os.environ.items() if not name.startswith("DOCPREVIEW_")},
        stderr=stderr,
    )
    os.close(stderr)
    try:
        return await asyncio.wait_for(asyncio.to_thread(_read, reader, word), 60)
    finally:
        process.terminate()
        await process.wait()
        os.close(reader)


def _read(reader: int, word: bytes) -> bytes:
    text = b""
    while not any(word in line for line in text.split(b"\n")[:-1]):
        text += os.read(reader, 4096)
    return next(line for line in text.split(b"\n") if word in line)


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
@pytest.mark.parametrize(
    ("is_terminal", "setting", "options", "is_json"),
    [
        (False, "auto", (), True),
        (True, "auto", (), False),
        (False, "auto", ("--log-format", "console"), False),
        (True, "console", ("--log-format", "json"), True),
        (True, "json", ("--log-format", "auto"), False),
    ],
)
async def test_the_log_is_json_unless_a_terminal_or_the_option_wants_text(  # noqa: PLR0917 - columns of the table
    is_terminal: bool,  # noqa: FBT001 - as above
    setting: str,
    options: tuple[str, ...],
    is_json: bool,  # noqa: FBT001 - as above
    workers: tuple[str, ...],
    tmp_path: Path,
) -> None:
    """Of workers too: theirs is the first line."""
    async with Emulator() as emulator:
        path = configuration(emulator, tmp_path, logging={"format": setting})
        reader, stderr = pty.openpty() if is_terminal else os.pipe()
        word = b"worker serves" if workers else b"serving"
        line = await first_line(path, *workers, *options, stderr=stderr, reader=reader, word=word)
    if is_json:
        assert json.loads(line)["event"] == word.decode()
    else:
        assert not line.startswith(b"{")
