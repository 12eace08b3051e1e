"""The fixture that other projects' tests use, and the library without a loop."""

import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from docpreview_client import DocPreviewClient
from docpreview_emulator import Emulator
from docpreview_emulator.errors import ControlError, StorageError
from docpreview_emulator.gateway_process import RunningGateway, gateway_before
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
        "print([name for name in ('aiohttp', 'pypdfium2', 'PIL', 'sqlite3', 'grpc') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


async def test_the_gateway_of_the_fixture_serves_a_test_with_a_loop_of_its_own(
    docpreview_gateway: RunningGateway, docpreview_emulator: Emulator
) -> None:
    """A document that is in the bucket, to the addresses of its pages."""
    bucket = docpreview_gateway.bucket
    docpreview_emulator.put_object(bucket, docpreview_gateway.region, "a.pdf", pdf(2))
    async with DocPreviewClient(docpreview_gateway.address) as client:
        job = await client.create(bucket, "a.pdf", output_object="out/${Number}.jpg")
        job = await client.wait(bucket, job.job_id, page_url_ttl=60)
    assert [page.url.startswith(docpreview_emulator.url) for page in job.result.pages] == [True, True]


def test_a_gateway_that_does_not_start_says_why(docpreview_emulator: Emulator, tmp_path: Path) -> None:
    """The error has its log: nobody has to look for it."""
    (tmp_path / "creates.db").mkdir()
    with (
        pytest.raises(RuntimeError, match=r"did not start[\s\S]*creates\.db"),
        gateway_before(docpreview_emulator, tmp_path),
    ):
        pass


def test_variables_of_the_tests_do_not_change_the_gateway_of_the_fixture(
    docpreview_emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A developer's machine may have those of another gateway."""
    monkeypatch.setenv("DOCPREVIEW_LISTEN", "no address")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "redis.py").write_text("raise SystemExit('not the library')")
    with gateway_before(docpreview_emulator, tmp_path / "gateway") as gateway:
        assert '"serving"' in gateway.log.read_text()


def test_the_gateway_of_the_fixture_is_gone_with_its_test(docpreview_emulator: Emulator, tmp_path: Path) -> None:
    """At once, watches or not: there is nobody to drain for."""
    with gateway_before(docpreview_emulator, tmp_path) as gateway:
        host, _, port = gateway.address.partition(":")
        socket.create_connection((host, int(port))).close()
        begun = time.monotonic()
    assert time.monotonic() - begun < 2
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


def test_a_start_that_fails_in_a_thread_raises_in_the_caller() -> None:
    with running(Emulator()) as first:
        second = Emulator(port=first.port)
        with pytest.raises(OSError, match="Address already in use"), running(second):
            pass
    with pytest.raises(StorageError), running(Emulator("/dev/null/x")):
        pass


def test_an_emulator_that_is_not_running_refuses_control_and_says_so() -> None:
    with pytest.raises(ControlError, match="async with"):
        Emulator().clear_faults()
    with pytest.raises(ControlError, match="not running"):
        Emulator().hold_jobs()
