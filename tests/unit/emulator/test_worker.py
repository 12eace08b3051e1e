"""The processes that open documents may die, hang or lie; the emulator goes on."""

import os
import signal
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from docpreview_emulator.errors import JobFailure
from docpreview_emulator.pages import RenderOptions
from docpreview_emulator.requests import DEFAULTS
from docpreview_emulator.sandbox import KINDS, Limits
from docpreview_emulator.worker import DocumentProcess, Workers

from .pdf_files import pdf

LIMITS = Limits(memory=2**31, cpu_seconds=60, file_bytes=2**28)


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    made = Workers(tmp_path / "work", LIMITS, office=None)
    yield made
    await made.close()


def task(process: DocumentProcess) -> dict[str, Any]:
    source = process.directory / "document"
    source.write_bytes(pdf(1))
    options = asdict(RenderOptions(DEFAULTS))
    return {"step": "convert", "source": str(source), "suffix": "pdf", "max_unpacked": 9, "options": options}


async def test_a_killed_process_fails_its_document_and_the_next_document_has_another(workers: Workers) -> None:
    async with workers.process() as first:
        os.killpg(first.child.pid, signal.SIGKILL)
        with pytest.raises(JobFailure, match="FileOpenFailed"):
            await first.ask(task(first), 30)
    async with workers.process() as second:
        assert (await second.ask(task(second), 30))["parts"][0]["total"] == 1


async def test_a_hanging_process_fails_its_document_by_timeout_and_is_killed(workers: Workers) -> None:
    async with workers.process() as process:
        os.killpg(process.child.pid, signal.SIGSTOP)
        with pytest.raises(JobFailure, match=r"ConversionTimeout: .* 0.05 s \(--conversion-timeout\)"):
            await process.ask(task(process), 0.05)
    assert process.child.returncode == -signal.SIGKILL


async def test_a_process_is_of_one_document_and_leaves_nothing(workers: Workers) -> None:
    """A document that has taken over its process does not see the next one."""
    async with workers.process() as first:
        await first.ask(task(first), 30)
        assert list(first.directory.iterdir())
    async with workers.process() as second:
        assert (second.child.pid, second.directory) != (first.child.pid, first.directory)
    assert not first.directory.exists()
    assert not second.directory.exists()


async def test_the_process_that_was_started_ahead_converts_the_next_document(workers: Workers) -> None:
    workers.start_ahead()
    assert await workers.isolation()
    (ahead,) = (path.name for path in (workers._directory).iterdir())
    async with workers.process() as process:
        assert process.directory.name == ahead


@pytest.mark.parametrize("isolation", KINDS)
async def test_fonts_of_the_user_are_seen_and_other_files_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    """A program within the walls lists them; it stands in for LibreOffice."""
    home, out = tmp_path / "home", "profile/user/seen"
    (home / ".fonts").mkdir(parents=True)
    (home / ".fonts" / "mine.ttf").touch()
    (home / "private").touch()
    program = tmp_path / "office" / "soffice"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\nmkdir -p profile/user; ls -A ~/.fonts {home} > {out} 2>&1; id -u >> {out}; exit 0\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("HOME", str(home))
    workers = Workers(tmp_path / "work", LIMITS, str(program), isolation)
    async with workers.process() as process:
        await process.ask({"step": "profile", "program": str(program)}, 30)
        seen = (process.directory / out).read_text()
    assert "mine.ttf" in seen
    assert ("private" in seen) == (isolation == "limits")
