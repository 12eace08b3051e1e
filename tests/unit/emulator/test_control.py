"""The same knobs for other processes, below `/_emulator/`."""

import asyncio
import math
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote

import aiohttp
import pytest
from yarl import URL

from docpreview_emulator import Emulator
from docpreview_emulator.clock import MOST_OFFSET, Clock
from docpreview_emulator.errors import ControlError
from docpreview_emulator.faults import Fault

from .cloud_client import BUCKET, COS_HOST, REGION, Cloud


async def ask(cloud: Cloud, method: str, path: str, body: object = None) -> tuple[int, Any]:
    async with cloud.session.request(method, f"{cloud.url}/_emulator/{path}", json=body) as response:
        return response.status, await response.json()


async def test_health_is_ok_and_stats_count_jobs_objects_and_requests(emulator: Emulator, cloud: Cloud) -> None:
    """Accepted jobs are those that would be on the bill."""
    await emulator.wait_for_job(await cloud.job_id("seven.pdf", PageRanges="1"))
    status, health = await ask(cloud, "GET", "health")
    assert (status, health["status"]) == (200, "ok")
    assert (await ask(cloud, "GET", "stats"))[1] == {
        "accepted_jobs": 1,
        "jobs": {"Success": 1},
        "objects": 2,
        "requests": 1,
        "held": False,
        "paused_queues": [],
    }


async def test_stats_say_that_jobs_are_held_and_which_queues_are_paused(emulator: Emulator, cloud: Cloud) -> None:
    queue = emulator.queue_id(BUCKET, REGION)
    emulator.hold_jobs()
    emulator.pause_queue(queue)
    stats = (await ask(cloud, "GET", "stats"))[1]
    assert (stats["held"], stats["paused_queues"]) == (True, [queue])


async def test_an_upload_that_breaks_off_is_one_line_of_the_log_and_no_error(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    _, writer = await asyncio.open_connection("127.0.0.1", emulator.port)
    path = f"/_emulator/upload/{COS_HOST}/short"
    writer.write(f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\nabc".encode())
    await writer.drain()
    writer.close()
    async with asyncio.timeout(10):
        while not any(f"{path}: client disconnected" in each for each in caplog.messages):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
    assert [each for each in caplog.records if each.levelname not in {"DEBUG", "INFO"}] == []


async def test_faults_can_be_added_listed_and_cleared(cloud: Cloud) -> None:
    status, fault = await ask(cloud, "POST", "faults", {"kind": "throttle", "operation": "list"})
    assert (status, fault["code"]) == (200, "SlowDown")
    assert (await ask(cloud, "GET", "faults"))[1] == [fault]
    assert (await cloud.list()).status == 503
    await ask(cloud, "POST", "faults", {"kind": "error", "times": None})
    await ask(cloud, "DELETE", "faults")
    assert (await cloud.list()).status == 200


async def test_the_clock_can_be_set_wrong_from_outside(emulator: Emulator, cloud: Cloud) -> None:
    assert (await ask(cloud, "PUT", "clock", {"offset_seconds": 3600}))[0] == 200
    assert (await ask(cloud, "GET", "clock"))[1]["offset_seconds"] == 3600
    assert (await cloud.list()).text("Message") == "Request has expired"
    assert emulator.clock.offset_seconds == 3600


async def test_requests_can_be_listed_and_cleared(cloud: Cloud) -> None:
    await cloud.create("seven.pdf")
    (record,) = (await ask(cloud, "GET", "requests"))[1]
    assert (record["operation"], record["status"]) == ("create", 200)
    assert "<Object>seven.pdf</Object>" in record["body"]
    await ask(cloud, "DELETE", "requests")
    assert (await ask(cloud, "GET", "requests"))[1] == []


@pytest.mark.parametrize("key", ["a%0ab.pdf", "%0A", "a%0d%0a/b.pdf"])
async def test_a_document_whose_key_has_line_breaks_is_uploaded_as_by_a_signed_put(
    emulator: Emulator, cloud: Cloud, key: str
) -> None:
    url = URL(f"{cloud.url}/_emulator/upload/{BUCKET}.cos.{REGION}.myqcloud.com/{key}", encoded=True)
    async with cloud.session.put(url, data=b"data") as response:
        assert response.status == 200
        assert (await response.json())["key"] == unquote(key)
    assert emulator.get_object(BUCKET, REGION, unquote(key)) == b"data"


async def test_queues_pause_jobs_are_held_and_a_state_is_set_from_outside(emulator: Emulator, cloud: Cloud) -> None:
    """Queues resume and jobs are released from outside, too."""
    queue = emulator.queue_id(BUCKET, REGION)
    await ask(cloud, "POST", f"queues/{queue}/pause")
    job_id = await cloud.job_id("seven.pdf", PageRanges="1")
    assert emulator.job(job_id).state == "Pause"
    await ask(cloud, "POST", "jobs/hold")
    await ask(cloud, "POST", f"queues/{queue}/resume")
    await ask(cloud, "POST", "jobs/release")
    assert (await emulator.wait_for_job(job_id)).state == "Success"
    state = {"state": "Failed", "code": "-1", "message": "by hand"}
    assert (await ask(cloud, "PUT", f"jobs/{job_id}/state", state))[0] == 200
    assert emulator.job(job_id).message == "by hand"


async def test_a_bucket_unbound_from_outside_is_refused(cloud: Cloud) -> None:
    await ask(cloud, "PUT", f"buckets/{BUCKET}/binding", {"region": REGION, "bound": False})
    assert (await cloud.list()).text("Code") == "DocBucketUnBinded"


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("POST", "faults", {"kind": "meteor"}, "accepted: latency"),
        ("POST", "faults", {}, "kind is missing; accepted: kind"),
        ("POST", "faults", [], "not a JSON object"),
        ("PUT", "clock", {"offset": 1}, "accepted: offset_seconds"),
        ("PUT", "clock", {}, "offset_seconds is needed"),
        ("PUT", "clock", {"offset_seconds": "1"}, "wrong type"),
        ("POST", "queues/p0/pause", None, "no queue p0"),
        ("PUT", "jobs/d0/state", {"state": "Failed"}, "no job d0"),
        ("PUT", "jobs/d0/state", {"state": "Asleep"}, "accepted: Submitted"),
        ("PUT", "buckets/b/binding", {"region": REGION}, "are needed"),
        ("POST", "jobs", {"bucket": BUCKET, "region": REGION, "key": "\ud800.pdf"}, "not JSON"),
        ("PUT", f"upload/{BUCKET}.cos.{REGION}.myqcloud.com/{'x' * 851}", None, "A key may have 850 bytes"),
    ],
)
async def test_a_mistaken_control_request_is_400_with_what_is_accepted(
    cloud: Cloud, method: str, path: str, body: object, message: str
) -> None:
    status, reply = await ask(cloud, method, path, body)
    assert status == 400
    assert message in reply["error"]


LONG = "9" * 5000


@pytest.mark.parametrize(
    ("offset", "message"),
    [
        ("NaN", "NaN is not a number that is accepted"),
        ("-Infinity", "-Infinity is not a number that is accepted"),
        ("1e999", "1e999 is not a number that is accepted"),
        ("1e18", "offset_seconds must be between -1576800000 and 1576800000, which is 50 years"),
        ("-1576800001", "offset_seconds must be between"),
        (LONG, "a number of 5000 characters"),
        (f"0.{LONG}", "a number of 5002 characters"),
        ("true", "offset_seconds is of the wrong type"),
        ("[" * 100_000, "the body is not JSON"),
    ],
)
async def test_an_offset_of_the_clock_that_is_no_time_is_400_with_what_is_accepted(
    emulator: Emulator, cloud: Cloud, offset: str, message: str
) -> None:
    body, kind = f'{{"offset_seconds": {offset}}}', {"Content-Type": "application/json"}
    async with cloud.session.put(f"{cloud.url}/_emulator/clock", data=body, headers=kind) as response:
        assert response.status == 400
        assert message in (await response.json())["error"]
    assert emulator.clock.offset_seconds == 0
    assert (await cloud.list()).status == 200


@pytest.mark.parametrize("offset", [MOST_OFFSET, -MOST_OFFSET, -3600.5])
async def test_the_furthest_offsets_of_the_clock_work(emulator: Emulator, cloud: Cloud, offset: float) -> None:
    assert (await ask(cloud, "PUT", "clock", {"offset_seconds": offset}))[0] == 200
    reply = await cloud.list()
    assert reply.status == 403
    assert parsedate_to_datetime(reply.headers["Date"]).timestamp() == pytest.approx(emulator.clock.now(), abs=60)


@pytest.mark.parametrize("offset", [math.nan, math.inf, 1e18, 10**400])
def test_a_library_that_sets_such_an_offset_gets_the_same_error(offset: float) -> None:
    clock = Clock()
    with pytest.raises(ControlError, match="50 years"):
        clock.offset_seconds = offset
    assert clock.offset_seconds == 0


@pytest.mark.parametrize("field", ["seconds", "retry_after"])
async def test_a_fault_whose_seconds_are_no_number_is_400(cloud: Cloud, field: str) -> None:
    body, kind = f'{{"kind": "throttle", "{field}": NaN}}', {"Content-Type": "application/json"}
    async with cloud.session.post(f"{cloud.url}/_emulator/faults", data=body, headers=kind) as response:
        assert response.status == 400
    with pytest.raises(ControlError, match="finite"):
        Fault.of({"kind": "throttle", field: math.inf})


async def test_an_unknown_host_and_route_is_404(cloud: Cloud) -> None:
    """Neither a host of the cloud nor a route of the emulator."""
    async with aiohttp.ClientSession() as session, session.get(f"{cloud.url}/doc_jobs") as response:
        assert response.status == 404


async def test_an_unsigned_upload_is_stored_only_for_a_host_of_the_cloud(emulator: Emulator, cloud: Cloud) -> None:
    """A person with curl puts a document into a bucket."""
    host = f"{BUCKET}.cos.{REGION}.myqcloud.com"
    async with cloud.session.put(f"{cloud.url}/_emulator/upload/{host}/in/a%20b.pdf", data=b"%PDF") as response:
        assert (await response.json())["size"] == 4
    assert emulator.get_object(BUCKET, REGION, "in/a b.pdf") == b"%PDF"
    assert (await ask(cloud, "PUT", "upload/example.org/a.pdf"))[0] == 400


@pytest.mark.parametrize(("bucket", "region"), [("bad", REGION), ("Upper-1250000000", REGION), (BUCKET, "no region")])
async def test_an_object_is_not_put_where_no_bucket_can_be(emulator: Emulator, bucket: str, region: str) -> None:
    """The error shows what names look like, as for the same mistake in an upload."""
    with pytest.raises(ControlError, match="bucket and region must look like examplebucket-1250000000 and ap-chong"):
        emulator.put_object(bucket, region, "a.pdf", b"data")
    with pytest.raises(ControlError, match="there is no object"):
        emulator.get_object(bucket, region, "a.pdf")
