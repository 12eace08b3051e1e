"""The fixture that other projects' tests use, and the library without a loop."""

import asyncio
import subprocess
import sys
from urllib.request import urlopen

import pytest

from docpreview_emulator import Emulator
from docpreview_emulator.errors import ControlError, StorageError
from docpreview_emulator.threaded import running

from .cloud_client import BUCKET, REGION, Cloud
from .pdf_files import pdf


def test_the_fixture_serves_a_test_without_a_loop(docpreview_emulator: Emulator) -> None:
    docpreview_emulator.put_object(BUCKET, REGION, "a.pdf", pdf(2))

    async def convert() -> list[str]:
        async with Cloud(docpreview_emulator.url) as cloud:
            job = await docpreview_emulator.wait_for_job(await cloud.job_id("a.pdf"))
            assert job.result is not None
            return [page.target for page in job.result.pages]

    assert asyncio.run(convert()) == ["out/1", "out/2"]
    docpreview_emulator.hold_jobs()
    docpreview_emulator.release_jobs()
    with urlopen(f"{docpreview_emulator.url}/_emulator/health") as response:  # noqa: S310 - loopback
        assert response.status == 200


async def test_the_fixture_serves_a_test_with_a_loop_of_its_own(docpreview_emulator: Emulator) -> None:
    docpreview_emulator.put_object(BUCKET, REGION, "a.pdf", pdf(1))
    async with Cloud(docpreview_emulator.url) as cloud:
        assert (await docpreview_emulator.wait_for_job(await cloud.job_id("a.pdf"))).state == "Success"


def test_the_plugin_alone_imports_neither_web_server_nor_renderer() -> None:
    """A pytest run that does not ask for the fixture does not pay for it."""
    code = (
        "import sys, docpreview_emulator.pytest_plugin;"
        "print([name for name in ('aiohttp', 'pypdfium2', 'PIL', 'sqlite3') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_start_that_fails_in_a_thread_raises_in_the_caller() -> None:
    with running(Emulator()) as first:
        second = Emulator(port=first.port)
        with pytest.raises(OSError, match="address already in use"), running(second):
            pass
    with pytest.raises(StorageError), running(Emulator("/dev/null/x")):
        pass


def test_an_emulator_that_is_not_running_refuses_control_and_says_so() -> None:
    with pytest.raises(ControlError, match="async with"):
        Emulator().clear_faults()
    with pytest.raises(ControlError, match="not running"):
        Emulator().hold_jobs()
