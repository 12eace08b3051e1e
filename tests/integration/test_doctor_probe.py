"""`docpreview-gateway doctor --probe`: one job of one page, and what the cloud's replies are like, without secrets."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from docpreview_emulator import Emulator
from docpreview_emulator.errors import ControlError
from docpreview_emulator.settings import Settings
from docpreview_emulator.threaded import running
from docpreview_gateway.__main__ import app
from docpreview_gateway.doctor.checks import cloud_credentials
from docpreview_gateway.doctor.cloud_probe import CloudProbe
from docpreview_gateway.doctor.one_page import one_page_pdf
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.upstream.builtin_transport import BuiltinTransport
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.integration.conftest import BUCKET, REGION, settings
from tests.integration.gateway_processes import configuration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NONCE = "0123456789abcdef"


@asynccontextmanager
async def cloud(**variant: Any) -> AsyncIterator[Emulator]:
    """An emulator in one of its variants, with a bucket that has jobs already."""
    async with Emulator(settings=Settings(**variant)) as emulator:
        emulator.put_object(BUCKET, REGION, "a.pdf", b"%PDF-1.4")
        yield emulator


async def probed(emulator: Emulator, document: str = "") -> tuple[dict[str, Any], list[str]]:
    values, clock = settings(emulator), SystemClock()
    async with BuiltinTransport(base_url=emulator.url, connect_seconds=5, read_seconds=30) as transport:
        bucket = Bucket(BUCKET, REGION, "main")
        probe = CloudProbe(transport, cloud_credentials(values, clock), clock, bucket, nonce=NONCE, document=document)
        return await probe.run(), probe.failed


async def test_a_probe_makes_one_job_of_one_page_and_leaves_nothing_behind() -> None:
    async with cloud() as emulator:
        facts, failed = await probed(emulator)
        assert (failed, emulator.accepted_jobs) == ([], 1)
        for key in (f"docpreview-probe/{NONCE}/one-page.pdf", f"docpreview-probe/{NONCE}/page_1.jpg"):
            with pytest.raises(ControlError):
                emulator.get_object(BUCKET, REGION, key)
    assert (facts["job"]["pages"], facts["job"]["states"][-1]) == (1, "Success")
    assert facts["clean_up"]["deleted"] == {"document": True, "page": True}


async def test_what_the_documents_leave_open_is_recorded() -> None:
    """The missing id, UserData, paging, the empty list, `Date` and queues."""
    async with cloud() as emulator:
        facts, _ = await probed(emulator)
    assert facts["missing_job"]["status"] == 200
    assert "/Response/NonExistJobIds" in facts["missing_job"]["elements"]
    assert [facts[step]["echoes_user_data"] for step in ("create", "list_delay", "job")] == [True] * 3
    assert facts["create"]["creation_time_offset"] == "+0800"
    assert abs(facts["create"]["date_minus_local_seconds"]) <= 2
    assert facts["paging"]["pages"] == [{"jobs": 1, "leads_on": False, "repeats_jobs": False}]
    assert facts["empty_list"]["xml"]
    assert "Active" in facts["queues"]["all"]["words"]["State"]
    assert facts["queues"]["paused"]["status"] == 200


async def test_a_cloud_that_echoes_no_user_data_is_told_as_that() -> None:
    async with cloud(echo_user_data=False) as emulator:
        facts, failed = await probed(emulator)
    assert failed == []
    assert [facts[step]["echoes_user_data"] for step in ("create", "list_delay", "job")] == [False] * 3


async def test_pages_without_jobs_are_counted_and_followed() -> None:
    async with cloud(empty_pages=2) as emulator:
        facts, failed = await probed(emulator)
    assert failed == []
    assert facts["paging"]["empty_pages_that_lead_on"] >= 2
    assert facts["list_delay"]["echoes_user_data"]


async def test_the_delay_until_a_job_is_in_lists_is_measured() -> None:
    async with cloud(list_delay=3.0) as emulator:
        facts, failed = await probed(emulator)
    assert failed == []
    assert 3.0 <= facts["list_delay"]["seconds"] < 30


async def test_a_document_of_the_bucket_is_used_and_left_where_it_is() -> None:
    """For keys that may put nothing."""
    async with cloud() as emulator:
        emulator.put_object(BUCKET, REGION, "in/mine.pdf", one_page_pdf())
        facts, failed = await probed(emulator, "in/mine.pdf")
        assert emulator.get_object(BUCKET, REGION, "in/mine.pdf")
    assert (failed, "put_document" in facts) == ([], False)


async def test_in_a_paused_queue_the_job_is_left_to_wait_with_its_document() -> None:
    """What the cloud says then is one of the things to learn."""
    async with cloud() as emulator:
        emulator.pause_queue(emulator.queue_id(BUCKET, REGION))
        facts, failed = await probed(emulator)
        assert emulator.get_object(BUCKET, REGION, f"docpreview-probe/{NONCE}/one-page.pdf")
    assert failed == []
    assert (facts["job"]["states"], facts["job"]["waits_in_a_paused_queue"]) == (["Pause"], True)
    assert "Paused" in facts["queues"]["paused"]["words"]["State"]
    assert "paused queue" in facts["clean_up"]["left"]


async def test_a_refused_create_ends_the_probe_with_the_clouds_code_and_cleans_up() -> None:
    async with cloud() as emulator:
        emulator.add_fault("throttle", "create")
        facts, failed = await probed(emulator)
        assert emulator.accepted_jobs == 0
    assert failed == ["create"]
    assert facts["create"]["words"]["Code"] == ["SlowDown"]
    assert set(facts) == {"put_document", "create", "clean_up"}


def probe(path: Path, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["doctor", "--config", str(path), "--probe", *arguments])
    return done.exit_code, done.output


def test_the_command_asks_or_needs_yes_and_writes_a_report_without_secrets(tmp_path: Path) -> None:
    """Without an answer no job is made; what it costs is said before."""
    with running(Emulator()) as emulator:
        emulator.put_object(BUCKET, REGION, "a.pdf", b"%PDF-1.4")
        upstream = {"endpoint": emulator.url, "object_url_base": f"{emulator.url}/_emulator/objects/{{host}}"}
        path, report = configuration(emulator, tmp_path, upstream=upstream), tmp_path / "report.json"
        code, output = probe(path, "--report", str(report))
        assert (code, emulator.accepted_jobs) == (2, 0)
        assert "The cloud bills one page" in output
        assert "--yes" in output
        code, output = probe(path, "--report", str(report), "--yes")
        assert (code, emulator.accepted_jobs) == (0, 1), output
        (job,) = emulator.jobs
    text = report.read_text()
    assert json.loads(text)["format"] == 1
    for secret in (BUCKET, "1250000000", "example-secret-id", "EXAMPLEsecretKEY", "one-page.pdf", job.job_id):
        assert secret not in text, secret


def test_a_probe_is_not_made_while_a_check_fails(tmp_path: Path) -> None:
    """It would be billed for nothing, or not made at all."""
    with running(Emulator()) as emulator:
        emulator.put_object(BUCKET, REGION, "a.pdf", b"%PDF-1.4")
        emulator.unbind_bucket(BUCKET, REGION)
        path = configuration(emulator, tmp_path)
        code, output = probe(path, "--yes", "--report", str(tmp_path / "report.json"))
        assert (code, emulator.accepted_jobs) == (1, 0)
    assert "correct the problems above first (binding)" in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--bucket", "none-1250000000"), "the configuration names"),
        (("--report", "/proc/none.json"), "no job was made"),
    ],
)
def test_a_wrong_option_ends_the_probe_before_a_job(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    with running(Emulator()) as emulator:
        emulator.put_object(BUCKET, REGION, "a.pdf", b"%PDF-1.4")
        path = configuration(emulator, tmp_path)
        code, output = probe(path, "--yes", *arguments)
        assert (code, emulator.accepted_jobs) == (2, 0)
    assert said in output


@pytest.mark.parametrize(
    "options",
    [
        ("--bucket", BUCKET),
        ("--document", "a.pdf"),
        ("--report", "report.json"),
        ("--yes",),
        ("--yes", "--bucket", "b"),
    ],
)
def test_options_of_the_probe_are_refused_without_it(options: tuple[str, ...]) -> None:
    """Who gives them expects a job, and a record of it."""
    done = CliRunner().invoke(app, ["doctor", *options])
    assert (done.exit_code, done.stdout) == (2, "")
    assert all(option in done.stderr for option in (*options, "--probe") if option.startswith("--"))
