"""The process that opens documents may die or hang; the emulator goes on."""

import os
import signal
from pathlib import Path

import pytest

from docpreview_emulator.errors import JobFailure
from docpreview_emulator.pages import RenderOptions
from docpreview_emulator.requests import DEFAULTS
from docpreview_emulator.worker import RenderWorker

from .pdf_files import pdf


def document(directory: Path) -> tuple[Path, Path]:
    source, out = directory / "a.pdf", directory / "out"
    source.write_bytes(pdf(1))
    out.mkdir(exist_ok=True)
    return source, out


async def test_a_killed_process_fails_its_document_and_the_next_gets_a_new_one(tmp_path: Path) -> None:
    worker = RenderWorker(30)
    try:
        await worker.render(*document(tmp_path), RenderOptions(DEFAULTS))
        assert worker._process is not None
        os.kill(worker._process.pid, signal.SIGKILL)
        with pytest.raises(JobFailure, match="FileOpenFailed"):
            await worker.render(*document(tmp_path), RenderOptions(DEFAULTS))
        assert (await worker.render(*document(tmp_path), RenderOptions(DEFAULTS)))["total"] == 1
    finally:
        await worker.close()


async def test_a_hanging_process_fails_its_document_by_timeout_and_is_replaced(tmp_path: Path) -> None:
    worker = RenderWorker(30)
    try:
        await worker.render(*document(tmp_path), RenderOptions(DEFAULTS))
        assert worker._process is not None
        os.kill(worker._process.pid, signal.SIGSTOP)
        worker._timeout = 0.05
        with pytest.raises(JobFailure, match="ConversionTimeout"):
            await worker.render(*document(tmp_path), RenderOptions(DEFAULTS))
        worker._timeout = 30
        assert (await worker.render(*document(tmp_path), RenderOptions(DEFAULTS)))["total"] == 1
    finally:
        await worker.close()
