"""Queues tell the ends of their jobs: `PUT /docqueue/<id>` says whom, and a create may say otherwise."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from docpreview_emulator import Emulator
from tests.fakes.raw_server import Exchange, RawServer

from .cloud_client import BUCKET, REGION, XML, Cloud, Reply, create_body
from .conftest import QUICK

URL = "http://127.0.0.1:9/hook"


@pytest.fixture
async def receiver() -> AsyncIterator[RawServer]:
    async with RawServer(Exchange.answer) as server:
        yield server


def notify(url: str, **changes: str) -> str:
    values = {"Url": url, "State": "On", "Type": "Url", "Event": "TaskFinish", "ResultFormat": "JSON"} | changes
    return "".join(f"<{name}>{value}</{name}>" for name, value in values.items())


async def update(cloud: Cloud, queue_id: str, config: str, **changes: str) -> Reply:
    values = {"Name": "previews", "QueueID": queue_id, "State": "Active"} | changes
    fields = "".join(f"<{name}>{value}</{name}>" for name, value in values.items())
    body = f"<Request>{fields}<NotifyConfig>{config}</NotifyConfig></Request>".encode()
    return await cloud.send("PUT", f"/docqueue/{queue_id}", headers={"content-type": XML}, body=body)


async def called(receiver: RawServer, count: int) -> None:
    async with asyncio.timeout(10):
        while len(receiver.exchanges) < count:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.01)


async def create(cloud: Cloud, emulator: Emulator, callback: str = "") -> str:
    """The id of a job that has ended."""
    body = create_body("seven.pdf", PageRanges="1").replace(b"</Request>", callback.encode() + b"</Request>")
    reply = await cloud.send("POST", "/doc_jobs", headers={"content-type": XML}, body=body)
    job_id = reply.text("JobsDetail/JobId")
    await emulator.wait_for_job(job_id)
    return job_id


async def test_a_queue_is_told_to_nobody_until_it_is_updated_and_then_shows_whom(
    emulator: Emulator, cloud: Cloud
) -> None:
    queue = emulator.queue_id(BUCKET, REGION)
    before = await cloud.send("GET", "/docqueue")
    assert (before.text("QueueList/NotifyConfig/State"), before.text("QueueList/NotifyConfig/Url")) == ("Off", "")
    changed = await update(cloud, queue, notify(URL))
    assert (changed.status, changed.text("Queue/QueueId")) == (200, queue)
    after = await cloud.send("GET", "/docqueue")
    names = ("Url", "State", "Type", "Event", "ResultFormat")
    shown = [after.text(f"QueueList/NotifyConfig/{name}") for name in names]
    assert shown == [URL, "On", "Url", "TaskFinish", "JSON"]
    assert after.text("QueueList/Name") == "previews"


async def test_it_survives_a_restart(tmp_path: Path) -> None:
    async with Emulator(tmp_path, settings=QUICK) as emulator, Cloud(emulator.url) as cloud:
        await update(cloud, emulator.queue_id(BUCKET, REGION), notify(URL))
    async with Emulator(tmp_path, settings=QUICK) as emulator, Cloud(emulator.url) as cloud:
        assert (await cloud.send("GET", "/docqueue")).text("QueueList/NotifyConfig/Url") == URL


@pytest.mark.parametrize("form", ["JSON", "XML"])
async def test_a_job_without_an_address_is_told_to_the_receiver_of_its_queue(
    emulator: Emulator, cloud: Cloud, receiver: RawServer, form: str
) -> None:
    await update(cloud, emulator.queue_id(BUCKET, REGION), notify(f"{receiver.url}/queue", ResultFormat=form))
    job_id = await create(cloud, emulator)
    await called(receiver, 1)
    (got,) = receiver.exchanges
    assert got.request_line == "POST /queue HTTP/1.1"
    if form == "JSON":
        assert json.loads(got.body)["JobsDetail"][0]["JobId"] == job_id
    else:
        assert f"<JobId>{job_id}</JobId>" in got.body.decode()


async def test_the_address_of_a_job_wins_and_no_is_told_to_nobody(
    emulator: Emulator, cloud: Cloud, receiver: RawServer
) -> None:
    await update(cloud, emulator.queue_id(BUCKET, REGION), notify(f"{receiver.url}/queue"))
    await create(cloud, emulator, "<CallBack>no</CallBack>")
    await create(cloud, emulator, f"<CallBack>{receiver.url}/job</CallBack>")
    await called(receiver, 1)
    await create(cloud, emulator)
    await called(receiver, 2)
    assert [got.request_line.split()[1] for got in receiver.exchanges] == ["/job", "/queue"]


async def test_what_is_switched_off_is_told_to_nobody(emulator: Emulator, cloud: Cloud, receiver: RawServer) -> None:
    """As the vendor's SDK for Go switches it off: without an address."""
    queue = emulator.queue_id(BUCKET, REGION)
    await update(cloud, queue, notify(f"{receiver.url}/queue"))
    await update(cloud, queue, "<State>Off</State>")
    await create(cloud, emulator)
    await update(cloud, queue, notify(f"{receiver.url}/again"))
    await create(cloud, emulator)
    await called(receiver, 1)
    assert receiver.exchanges[0].request_line.split()[1] == "/again"


async def test_an_update_pauses_a_queue_and_lets_it_go_on(emulator: Emulator, cloud: Cloud) -> None:
    queue = emulator.queue_id(BUCKET, REGION)
    await update(cloud, queue, "<State>Off</State>", State="Paused")
    job_id = await cloud.job_id("seven.pdf", PageRanges="1")
    assert emulator.job(job_id).state == "Pause"
    await update(cloud, queue, "<State>Off</State>")
    assert (await emulator.wait_for_job(job_id)).state == "Success"


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (notify("http://x/" + "a" * 92), {}),
        (notify("ftp://x"), {}),
        (notify("", State="On"), {}),
        (notify(URL, State="Maybe"), {}),
        (notify(URL, Type="TDMQ"), {}),
        (notify(URL, Event="Other"), {}),
        (notify(URL, ResultFormat="YAML"), {}),
        (notify(URL), {"Name": ""}),
        (notify(URL), {"Name": "n" * 101}),
        (notify(URL), {"State": "Draining"}),
        (notify(URL), {"QueueID": "p0"}),
    ],
)
async def test_an_update_that_cannot_be_is_refused_and_changes_nothing(
    emulator: Emulator, cloud: Cloud, config: str, changes: dict[str, str]
) -> None:
    before = (await cloud.send("GET", "/docqueue")).text("QueueList/UpdateTime")
    reply = await update(cloud, emulator.queue_id(BUCKET, REGION), config, **changes)
    assert (reply.status, reply.text("Code")) == (400, "InvalidArgument")
    after = await cloud.send("GET", "/docqueue")
    assert (after.text("QueueList/UpdateTime"), after.text("QueueList/NotifyConfig/State")) == (before, "Off")


async def test_a_queue_that_is_not_of_the_bucket_is_not_found(emulator: Emulator, cloud: Cloud) -> None:
    other = emulator.queue_id("other-1250000000", REGION)
    assert (await update(cloud, other, notify(URL))).text("Code") == "QueueNotFound"


async def test_a_right_that_is_missing_is_injected_as_a_fault_of_updates_alone(
    emulator: Emulator, cloud: Cloud
) -> None:
    emulator.add_fault("error", "update_queue", status=403, code="AccessDenied")
    assert (await cloud.send("GET", "/docqueue")).status == 200
    reply = await update(cloud, emulator.queue_id(BUCKET, REGION), notify(URL))
    assert (reply.status, reply.text("Code")) == (403, "AccessDenied")
