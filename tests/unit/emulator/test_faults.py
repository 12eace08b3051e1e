"""What goes wrong on demand, and whether the job was accepted all the same."""

import asyncio
from typing import Any

import aiohttp
import pytest

from docpreview_emulator import Emulator
from docpreview_emulator.errors import ControlError

from .cloud_client import BUCKET, CI_HOST, COS_HOST, REGION, Cloud


@pytest.mark.parametrize(
    ("fault", "answer", "accepted"),
    [
        ({"kind": "throttle"}, (503, "SlowDown"), 0),
        ({"kind": "throttle", "status": 429, "code": "RequestLimitExceeded"}, (429, "RequestLimitExceeded"), 0),
        ({"kind": "error"}, (500, "InternalError"), 0),
        ({"kind": "error", "status": 502, "code": "BadGateway"}, (502, "BadGateway"), 0),
        ({"kind": "error", "accepted": True}, (500, "InternalError"), 1),
    ],
)
async def test_an_error_fault_strikes_once_and_accepts_nothing_by_default(
    emulator: Emulator, cloud: Cloud, fault: dict[str, Any], answer: tuple[int, str], accepted: int
) -> None:
    emulator.add_fault(operation="create", **fault)
    reply = await cloud.create("seven.pdf")
    assert (reply.status, reply.text("Code")) == answer
    assert emulator.accepted_jobs == accepted
    assert emulator.faults == []
    assert (await cloud.create("seven.pdf")).status == 200


@pytest.mark.parametrize(("kind", "accepted"), [("drop_before", 0), ("drop_after", 1)])
async def test_a_dropped_connection_hides_whether_the_job_was_accepted(
    emulator: Emulator, cloud: Cloud, kind: str, accepted: int
) -> None:
    """Only the count of jobs tells the two apart."""
    emulator.add_fault(kind, "create")
    with pytest.raises(aiohttp.ClientConnectionError):
        await cloud.create("seven.pdf")
    assert emulator.accepted_jobs == accepted
    record = emulator.requests[-1]
    assert (record.status, record.fault, record.job_id is not None) == (None, kind, bool(accepted))


async def test_a_truncated_answer_comes_after_the_job_was_accepted(emulator: Emulator, cloud: Cloud) -> None:
    """The job is accepted, the answer breaks off in its middle."""
    emulator.add_fault("truncate")
    with pytest.raises(aiohttp.ClientPayloadError):
        await cloud.create("seven.pdf")
    assert emulator.accepted_jobs == 1


async def test_a_garbage_answer_comes_after_the_job_was_accepted(emulator: Emulator, cloud: Cloud) -> None:
    """The job is accepted, the answer is no XML."""
    emulator.add_fault("garbage")
    reply = await cloud.create("seven.pdf")
    assert (reply.status, reply.body[:6]) == (200, b"<html>")
    assert emulator.accepted_jobs == 1


@pytest.mark.parametrize("kind", ["latency", "drip"])
async def test_a_slow_answer_is_a_good_one(emulator: Emulator, cloud: Cloud, kind: str) -> None:
    emulator.add_fault(kind, seconds=0.2)
    start = asyncio.get_running_loop().time()
    reply = await cloud.create("seven.pdf")
    assert asyncio.get_running_loop().time() - start >= 0.2
    assert reply.text("JobsDetail/State") == "Submitted"


async def test_a_create_is_carried_out_though_its_client_left_before_a_late_answer(
    emulator: Emulator, cloud: Cloud
) -> None:
    emulator.add_fault("latency", seconds=0.3)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(cloud.create("seven.pdf"), 0.1)
    assert emulator.accepted_jobs == 0
    async with asyncio.timeout(5):
        while not emulator.accepted_jobs:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.05)


async def test_a_client_that_leaves_is_one_line_of_the_log_and_no_error(
    emulator: Emulator, cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle of a request, or of an answer that drips."""
    caplog.set_level("INFO")
    _, writer = await asyncio.open_connection("127.0.0.1", emulator.port)
    writer.write(f"POST /doc_jobs HTTP/1.1\r\nHost: {CI_HOST}\r\nContent-Length: 100\r\n\r\n<Req".encode())
    await writer.drain()
    async with asyncio.timeout(5):
        while not emulator.requests:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    writer.close()
    emulator.add_fault("drip", "create", seconds=1.0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(cloud.create("seven.pdf"), 0.2)
    async with asyncio.timeout(5):
        while sum("client disconnected" in record.getMessage() for record in caplog.records) < 2:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    assert [record for record in caplog.records if record.levelname not in {"DEBUG", "INFO"}] == []
    assert emulator.accepted_jobs == 1


async def test_latency_joins_another_fault_and_other_faults_strike_in_turn(emulator: Emulator, cloud: Cloud) -> None:
    emulator.add_fault("latency", times=None, seconds=0.01)
    emulator.add_fault("throttle")
    emulator.add_fault("error")
    assert [(await cloud.list()).status for _ in range(3)] == [503, 500, 200]
    assert [fault.kind for fault in emulator.faults] == ["latency"]
    emulator.clear_faults()
    assert emulator.faults == []


async def test_a_fault_skips_and_strikes_as_often_as_told_in_its_operation_only(
    emulator: Emulator, cloud: Cloud
) -> None:
    emulator.add_fault("throttle", "list", skip=1, times=2, retry_after=7)
    assert (await cloud.create("seven.pdf")).status == 200
    replies = [await cloud.list() for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 503, 503, 200]
    assert replies[1].headers["Retry-After"] == "7"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"kind": "meteor"}, "accepted: latency, throttle"),
        ({"kind": "error", "operation": "delete"}, "accepted: \\*, create"),
        ({"kind": "error", "colour": "red"}, "unknown keys \\['colour'\\]; accepted: kind"),
        ({"kind": "error", "times": 0}, "times must be at least 1"),
        ({"kind": "error", "status": 200}, "between 300 and 599"),
        ({"kind": "error", "status": "500"}, "status is of the wrong type"),
        ({"kind": "latency", "seconds": True}, "seconds is of the wrong type"),
        ({"kind": "empty_page", "operation": "get"}, "empty_page is one of operation list only, not of get"),
        ({"kind": "twice"}, "twice is one of operation callback only, not of \\*"),
        ({"kind": "other_job", "operation": "get"}, "other_job is one of operation callback only, not of get"),
        (
            {"kind": "throttle", "operation": "callback"},
            "none of operation callback; accepted: latency, drop_before, twice, early, reverse, other_state, other_job",
        ),
        ({"kind": "early", "operation": "callback"}, "early needs seconds"),
        ({"kind": "latency"}, "latency needs seconds: how much later"),
        ({"kind": "latency", "operation": "callback", "seconds": 0}, "latency needs seconds: how much later"),
        ({"kind": "drip", "operation": "get"}, "drip needs seconds: how long"),
        ({"kind": "reverse", "operation": "callback"}, "reverse needs times of at least 2"),
        ({"kind": "reverse", "operation": "callback", "times": None}, "reverse needs times of at least 2"),
    ],
)
async def test_an_invalid_fault_is_refused_with_what_is_accepted(
    emulator: Emulator, fault: dict[str, Any], message: str
) -> None:
    with pytest.raises(ControlError, match=message):
        emulator.add_fault(**fault)


async def test_requests_are_recorded_without_their_signatures_and_passwords(emulator: Emulator, cloud: Cloud) -> None:
    await cloud.create("seven.pdf", DocPassword="secret")
    await cloud.send("GET", "/docqueue", params={"state": "All"})
    create, queues = emulator.requests
    assert (create.operation, create.method, create.path, create.status) == ("create", "POST", "/doc_jobs", 200)
    assert b"<Object>seven.pdf</Object>" in create.body
    assert b"<DocPassword>***</DocPassword>" in create.body
    assert create.headers["authorization"].endswith("q-signature=***")
    assert (queues.operation, queues.query) == ("queues", "state=All")
    emulator.clear_requests()
    assert emulator.requests == []


async def test_the_log_has_neither_passwords_nor_signatures(
    emulator: Emulator, cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    """It has neither bodies nor queries nor headers."""
    caplog.set_level("DEBUG")
    job_id = await cloud.job_id("seven.pdf", DocPassword="hunter2")
    await emulator.wait_for_job(job_id)
    await cloud.send("GET", "/x", params={"q-signature": "abcdef"}, host=f"{BUCKET}.cos.{REGION}.myqcloud.com")
    assert "hunter2" not in caplog.text
    assert "abcdef" not in caplog.text


@pytest.mark.parametrize("kind", ["drip", "truncate"])
async def test_a_head_that_is_slow_or_cut_says_the_length_of_the_object(
    emulator: Emulator, cloud: Cloud, kind: str
) -> None:
    """There is no body that could be cut."""
    await cloud.put("a.pdf", b"%PDF")
    emulator.add_fault(kind, "object", seconds=0.01)
    reply = await cloud.send("HEAD", "/a.pdf", host=COS_HOST)
    assert (reply.status, reply.headers["Content-Length"]) == (200, "4")
    assert emulator.faults == []
