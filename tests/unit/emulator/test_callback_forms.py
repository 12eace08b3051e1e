"""The forms of callbacks, of jobs and of queues, and receivers that are slow or fail."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from docpreview_emulator import Emulator, Settings
from docpreview_emulator.xmltree import Element, read_xml
from tests.fakes.raw_server import Exchange, RawServer

from .cloud_client import BUCKET, REGION, XML, Cloud
from .pdf_files import pdf

CUT = b"HTTP/1.1 200 OK\r\nContent-Len"


@pytest.fixture
async def emulator(tmp_path: Path) -> AsyncIterator[Emulator]:
    settings = Settings(submit_delay=0.0, callback_seconds=0.5)
    async with Emulator(tmp_path / "data", settings=settings) as running:
        running.put_object(BUCKET, REGION, "seven.pdf", pdf(3))
        yield running


class Receivers(RawServer):
    """Receivers of callbacks by their paths: `/good`, `/slow`, `/failing`, `/moved` and `/cut`."""

    def __init__(self) -> None:
        super().__init__(self._receive)

    async def _receive(self, exchange: Exchange) -> None:
        path = exchange.request_line.split()[1]
        if path == "/slow":
            return
        if path == "/cut":
            exchange.writer.write(CUT)
            exchange.writer.close()
            return
        status = {"/failing": "500 No", "/moved": f"307 Elsewhere\r\nLocation: {self.url}/good"}.get(path, "200 OK")
        exchange.writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())


@pytest.fixture
async def receivers() -> AsyncIterator[Receivers]:
    async with Receivers() as server:
        yield server


async def ended(emulator: Emulator, cloud: Cloud, address: str, form: str, by: str) -> str:
    """The id of a job with two pages, of whose end the receiver is told by its create or by its queue."""
    if by == "queue":
        queue = emulator.queue_id(BUCKET, REGION)
        config = (
            f"<NotifyConfig><Url>{address}</Url><State>On</State><ResultFormat>{form}</ResultFormat></NotifyConfig>"
        )
        body = f"<Request><Name>q</Name><State>Active</State>{config}</Request>".encode()
        assert (await cloud.send("PUT", f"/docqueue/{queue}", headers={"content-type": XML}, body=body)).status == 200
    of_job = {"CallBack": address, "CallBackFormat": form} if by == "job" else {}
    job_id = await cloud.job_id("seven.pdf", EndPage=2, UserData="a<b", **of_job)
    await emulator.wait_for_job(job_id)
    return job_id


async def told(emulator: Emulator, count: int) -> None:
    async with asyncio.timeout(10):
        while len(emulator.callbacks) < count:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.01)


def plain(element: Element) -> Any:
    return [(child.name, plain(child)) for child in element.children] or element.text


@pytest.mark.parametrize("by", ["job", "queue"])
async def test_a_callback_in_xml_has_the_job_as_a_get_has_it(
    emulator: Emulator, cloud: Cloud, receivers: Receivers, by: str
) -> None:
    job_id = await ended(emulator, cloud, f"{receivers.url}/good", "XML", by)
    await told(emulator, 1)
    (got,) = receivers.exchanges
    assert got.request_line == "POST /good HTTP/1.1"
    assert (got.header("content-type"), got.header("user-agent")) == ([XML], ["Go-http-client/1.1"])
    root, shown = read_xml(got.body), read_xml((await cloud.get(job_id)).body)
    assert (root.name, root.value("EventName")) == ("Response", "TaskFinish")
    assert plain(root.children[1]) == plain(shown.children[0])
    assert root.value("JobsDetail/State") == "Success"


@pytest.mark.parametrize("by", ["job", "queue"])
async def test_a_callback_in_json_has_the_job_in_an_array_and_its_pages_in_another(
    emulator: Emulator, cloud: Cloud, receivers: Receivers, by: str
) -> None:
    job_id = await ended(emulator, cloud, f"{receivers.url}/good", "JSON", by)
    await told(emulator, 1)
    (got,) = receivers.exchanges
    assert got.header("content-type") == ["application/json"]
    told_of = json.loads(got.body)
    (job,) = told_of.pop("JobsDetail")
    assert told_of == {"EventName": "TaskFinish"}
    assert (job["JobId"], job["State"], job["Input"]["Object"]) == (job_id, "Success", "seven.pdf")
    assert job["Operation"]["UserData"] == "a<b"
    pages = job["Operation"]["DocProcessResult"]["PageInfo"]
    assert pages == [{"PageNo": "1", "TgtUri": "out/1"}, {"PageNo": "2", "TgtUri": "out/2"}]


@pytest.mark.parametrize("form", ["XML", "JSON"])
async def test_a_failed_job_is_told_with_its_code(
    emulator: Emulator, cloud: Cloud, receivers: Receivers, form: str
) -> None:
    emulator.put_object(BUCKET, REGION, "noise.pdf", b"no pdf")
    await emulator.wait_for_job(await cloud.job_id("noise.pdf", CallBack=f"{receivers.url}/good", CallBackFormat=form))
    await told(emulator, 1)
    body = receivers.exchanges[0].body
    told_of = json.loads(body)["JobsDetail"][0] if form == "JSON" else dict(plain(read_xml(body).children[1]))
    assert (told_of["State"], told_of["Code"]) == ("Failed", "FileOpenFailed")


@pytest.mark.parametrize("by", ["job", "queue"])
@pytest.mark.parametrize(
    "fails",
    [
        ("/slow", None, "no answer within 0.5 s"),
        ("/failing", 500, ""),
        ("/moved", 307, ""),
        ("/cut", None, "the connection was closed before the answer"),
    ],
)
async def test_a_receiver_that_is_slow_or_fails_is_told_once_and_recorded(
    emulator: Emulator, cloud: Cloud, receivers: Receivers, by: str, fails: tuple[str, int | None, str]
) -> None:
    """A redirect is not followed. The job is as it was, and the next one is told."""
    path, status, problem = fails
    job_id = await ended(emulator, cloud, receivers.url + path, "XML", by)
    await told(emulator, 1)
    assert [(each.job_id, each.status, each.problem) for each in emulator.callbacks] == [(job_id, status, problem)]
    assert emulator.job(job_id).state == "Success"
    await ended(emulator, cloud, f"{receivers.url}/good", "XML", by)
    await told(emulator, 2)
    assert [each.request_line.split()[1] for each in receivers.exchanges] == [path, "/good"]


async def test_a_slow_receiver_holds_up_no_other(emulator: Emulator, cloud: Cloud, receivers: Receivers) -> None:
    slow = await ended(emulator, cloud, f"{receivers.url}/slow", "XML", "job")
    good = await ended(emulator, cloud, f"{receivers.url}/good", "XML", "job")
    await told(emulator, 2)
    assert {each.job_id: each.problem for each in emulator.callbacks} == {slow: "no answer within 0.5 s", good: ""}


@pytest.mark.parametrize("kind", ["drop_before", "latency", "twice", "other_state", "other_job", "wrong_token"])
@pytest.mark.parametrize("form", ["XML", "JSON"])
async def test_every_fault_strikes_callbacks_of_queues_too_in_either_form(
    emulator: Emulator, cloud: Cloud, receivers: Receivers, kind: str, form: str
) -> None:
    emulator.add_fault(kind, "callback", seconds=0.01)
    first = await ended(emulator, cloud, f"{receivers.url}/cb/good", form, "queue")
    await told(emulator, {"drop_before": 0, "twice": 2}.get(kind, 1))
    second = await ended(emulator, cloud, f"{receivers.url}/cb/good", form, "queue")
    await told(emulator, {"drop_before": 1, "twice": 3}.get(kind, 2))
    seen = [(each.request_line.split()[1], *facts(each.body, form)) for each in receivers.exchanges]
    good = ("/cb/good", first, "Success")
    assert seen.pop() == ("/cb/good", second, "Success")
    if kind == "other_job":
        assert [(path, state) for path, _, state in seen] == [("/cb/good", "Success")]
        assert seen[0][1] not in {first, second}
        return
    struck = {"drop_before": [], "twice": [good, good], "other_state": [("/cb/good", first, "Failed")]}
    assert seen == {**struck, "wrong_token": [("/cb/AAAA", first, "Success")]}.get(kind, [good])


def facts(body: bytes, form: str) -> tuple[str, str]:
    """Id and state of the job of which a body tells."""
    if form == "XML":
        root = read_xml(body)
        return root.value("JobsDetail/JobId"), root.value("JobsDetail/State")
    (job,) = json.loads(body)["JobsDetail"]
    return job["JobId"], job["State"]
