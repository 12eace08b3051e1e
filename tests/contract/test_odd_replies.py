"""Odd replies over a real socket: what the vendor's SDK reads, the gateway reads the same or refuses.

A refusal of what the SDK reads is UPSTREAM_BAD_RESPONSE. No odd reply is told as an absence that the cloud did not
state, and none is an error without a reason. `ODD_REPLIES_SEED` sets another seed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
import xml.etree.ElementTree as ET
import zlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from qcloud_cos import CosConfig, CosS3Client
from qcloud_cos.xml2dict import Xml2Dict

from docpreview.v1.error_reason_pb2 import ErrorReason
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.upstream.builtin_transport import BuiltinTransport
from docpreview_gateway.upstream.client import CloudClient
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from docpreview_gateway.upstream.operations import (
    CreateJob,
    GetJob,
    JobPage,
    ListJobs,
    ListQueues,
    Operation,
    QueuePage,
)
from tests.contract.odd_replies import OF_CI, READS, SAMPLES, OddReply, odd_reply
from tests.fakes.clock import FakeClock
from tests.fakes.credentials import FakeCredentials
from tests.fakes.raw_server import Exchange, RawServer
from tests.fakes.telemetry import FakeTelemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

SEED = int(os.environ.get("ODD_REPLIES_SEED", "20261129"))
BUCKET = Bucket("examplebucket-1250000000", "ap-chongqing", "main")
JOB = "dcf488492340d11edb2a0e3aa2e38c523"
MADE_IN = Bucket("test-1250000000", "ap-chongqing", "main")
CREATE = CreatePreviewJobRequest(
    bucket=MADE_IN.name, input_object="1.txt", output=ObjectLocation(object="test_doc/normal/abc_${Number}.jpg")
)
"""The create of the vendor's sample."""
OPERATIONS: dict[str, Operation[Any]] = {
    "get": GetJob(BUCKET, JOB),
    "create": CreateJob(CREATE, MADE_IN, MADE_IN),
    "list_jobs": ListJobs(ListPreviewJobsRequest(bucket=BUCKET.name), BUCKET, 10, ""),
    "list_queues": ListQueues(ListPreviewQueuesRequest(bucket=BUCKET.name), BUCKET, 10, 1),
}

UNREAD = object()
"""What the SDK gives as something else than a text: an element that is repeated, or has attributes or children."""


@dataclass
class Answers:
    """The cloud: one reply for everyone."""

    reply: OddReply | None = None

    async def __call__(self, exchange: Exchange) -> None:
        assert self.reply is not None
        await exchange.send(self.reply.wire)


@dataclass
class Desk:
    """The vendor's SDK and the gateway's client, before the same server."""

    sdk: Any
    client: CloudClient
    answers: Answers
    outcomes: Counter[str] = field(default_factory=Counter)

    async def compare(self, reply: OddReply) -> None:
        self.answers.reply = reply
        said, read = await asyncio.to_thread(self.by_sdk, reply.operation), await self.by_gateway(reply.operation)
        if not isinstance(read, str):
            # With a wrong `Content-Encoding` only the gateway reads a document.
            _compare(_read_as_the_sdk_does(reply.body) if said is None else said, read)
            self.outcomes["read"] += 1
            return
        self.outcomes[read] += 1
        allowed = _allowed(reply, said)
        assert allowed is None or read in allowed, f"{read} for {reply}, which the SDK reads as {said}: {reply.plain!r}"
        assert read not in {"JOB_NOT_FOUND", "BUCKET_NOT_FOUND", "OBJECT_NOT_FOUND"} or _says_missing(reply), reply

    def by_sdk(self, operation: str) -> Any:
        """What the SDK reads; None when it raises."""
        try:
            return self._ask_sdk(operation)
        except Exception:  # noqa: BLE001 - of the SDK, of its XML parser, of `eval`, of `requests`
            return None

    def _ask_sdk(self, operation: str) -> Any:
        output = {"OutputBucket": BUCKET.name, "OutputRegion": BUCKET.region, "OutputObject": "${Page}.jpg"}
        calls = {
            "get": lambda: self.sdk.ci_get_doc_job(Bucket=BUCKET.name, JobID=JOB),
            "create": lambda: self.sdk.ci_create_doc_job(Bucket=BUCKET.name, InputObject="a.pdf", **output),
            "list_jobs": lambda: self.sdk.ci_list_doc_jobs(Bucket=BUCKET.name),
            "list_queues": lambda: self.sdk.ci_get_doc_queue(Bucket=BUCKET.name),
        }
        found = calls[operation]()
        return _without_namespaces(found)

    async def by_gateway(self, operation: str) -> Any:
        """What the gateway reads, or the name of the reason."""
        try:
            return await self.client(OPERATIONS[operation], Call("r", time.monotonic() + 20))
        except GatewayError as error:
            assert error.message.isprintable()  # noqa: PT017 - of every error
            return ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    logging.getLogger("qcloud_cos").setLevel(logging.CRITICAL + 1)
    answers = Answers()
    async with RawServer(answers) as server:
        keys = {"SecretId": "example-secret-id", "SecretKey": "EXAMPLEsecretKEY00000000000000000"}
        proxies = {"http": server.url}
        config = CosConfig(Region=BUCKET.region, Scheme="http", Proxies=proxies, Timeout=10, **keys)
        async with BuiltinTransport(base_url=server.url, connect_seconds=10, read_seconds=10) as transport:
            client = CloudClient(
                transport, FakeCredentials(), CloudTimes(FakeClock()), telemetry=FakeTelemetry(), timeout_seconds=10
            )
            yield Desk(CosS3Client(config, retry=0), client, answers)


def _replies(seed: int, count: int) -> Iterator[OddReply]:
    rnd = random.Random(seed)  # noqa: S311 - the same replies in each run
    return (odd_reply(rnd) for _ in range(count))


async def test_hundreds_of_odd_replies_are_read_as_the_vendors_sdk_reads_them_or_refused(desk: Desk) -> None:
    """Some of all kinds are among them."""
    for reply in _replies(SEED, 400):
        await desk.compare(reply)
    if "ODD_REPLIES_SEED" not in os.environ:
        assert desk.outcomes["read"] > 100
        assert desk.outcomes["UPSTREAM_BAD_RESPONSE"] > 100
        assert {"UPSTREAM_UNAVAILABLE", "CREATE_OUTCOME_UNKNOWN"} <= desk.outcomes.keys()


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(SEED + 1, SEED + 4))
async def test_thousands_of_odd_replies_are_read_as_the_vendors_sdk_reads_them_or_refused(
    desk: Desk, seed: int
) -> None:
    """Of several seeds."""
    for reply in _replies(seed, 5_000):
        await desk.compare(reply)


@pytest.mark.parametrize(
    ("operation", "sample"), [(operation, sample) for operation, samples in READS.items() for sample in samples]
)
async def test_the_vendors_samples_are_read_as_the_vendors_sdk_reads_them(
    desk: Desk, operation: str, sample: str
) -> None:
    """Without a change, so that the comparison itself is tested."""
    body = (SAMPLES / sample / "reply.xml").read_bytes()
    if operation == "get":
        body = body.replace(ET.fromstring(body).findtext("JobsDetail/JobId", "").encode(), JOB.encode())  # noqa: S314
    await desk.compare(OddReply(operation, 200, OF_CI, body, (sample,)))
    assert desk.outcomes == {"read": 1}


def _allowed(reply: OddReply, said: Mapping[str, Any] | None) -> set[str] | None:
    """The reasons with which the gateway may refuse; None: any that is not an absence."""
    if reply.operation == "create" and not reply.made[0].startswith("error"):
        refused = {"CREATE_OUTCOME_UNKNOWN"}
        # A create whose status is the cloud's own refusal was not accepted.
        return refused if reply.status < 300 or not _is_marked(reply) else None
    if 200 <= reply.status < 300 and not reply.made[0].startswith("error"):
        missing = {"JOB_NOT_FOUND"} if _says_missing(reply) else set()
        return {"UPSTREAM_BAD_RESPONSE"} | missing
    if "page" in reply.made:
        return {"UPSTREAM_BAD_RESPONSE", "UPSTREAM_UNAVAILABLE"}
    assert said is None or reply.status < 400
    return None


def _is_marked(reply: OddReply) -> bool:
    return any(reply.headers.get(name) == value for name, value in OF_CI.items() if name != "Content-Type")


def _says_missing(reply: OddReply) -> bool:
    """Whether the cloud itself says that there is no job: by a document without one, or by a 404 that names none."""
    if reply.status == 404 and _is_marked(reply) and b"JobId>" not in _inflated(reply):
        return True
    try:
        root = ET.fromstring(_inflated(reply))  # noqa: S314 - made here
    except (ET.ParseError, ValueError):
        return False
    names = [element.tag.rpartition("}")[2] for element in root]
    with_text = [name for name, element in zip(names, root, strict=True) if "".join(element.itertext()).strip()]
    says_something = bool({"JobsDetail", "NonExistJobIds"} & set(names))
    return root.tag.endswith("Response") and says_something and "JobsDetail" not in with_text


def _inflated(reply: OddReply) -> bytes:
    try:
        return zlib.decompress(reply.body, 31)
    except zlib.error:
        return reply.body


def _compare(said: Mapping[str, Any], read: PreviewJob | JobPage | QueuePage) -> None:
    """Assert that both read the same."""
    if isinstance(read, QueuePage):
        queues = _list(said.get("QueueList"))
        for queue, found in zip(queues, read.queues, strict=True):
            _same(_text(queue, "QueueId"), found.queue_id)
            _same(_text(queue, "Name"), found.name)
            _same(_text(queue, "Category"), found.category)
        return
    details = _list(said.get("JobsDetail"))
    jobs = read.jobs if isinstance(read, JobPage) else (read,)
    assert len(details) == len(jobs), (details, jobs)
    for detail, job in zip(details, jobs, strict=True):
        _compare_jobs(detail, job)
    if isinstance(read, JobPage):
        _same(_text(said, "NextToken"), read.cursor)


def _compare_jobs(detail: Mapping[str, Any], job: PreviewJob) -> None:
    texts = {
        "JobId": job.job_id,
        "State": job.raw_state,
        "QueueId": job.queue_id,
        "Input/BucketId": job.input.bucket,
        "Input/Object": job.input.object,
        "Operation/Output/Bucket": job.output.bucket,
        "Operation/Output/Object": job.output.object,
        "Operation/DocProcess/SrcType": job.options.source_format,
        "Operation/DocProcess/PageRanges": job.options.page_ranges,
        "Operation/DocProcess/ImageParams": job.options.image_params,
        "Operation/UserData": job.user_data.strip(),
    }
    for path, read in texts.items():
        _same(_text(detail, path), read, path)
    numbers = {"Quality": job.options.quality, "Zoom": job.options.zoom_percent, "ImageDpi": job.options.image_dpi}
    for name, number in numbers.items():
        _same(_number(_text(detail, f"Operation/DocProcess/{name}")), number, name)
    formats = {"jpg": PreviewOptions.TARGET_FORMAT_JPG, "png": PreviewOptions.TARGET_FORMAT_PNG}
    formats["pdf"] = PreviewOptions.TARGET_FORMAT_PDF
    said = _text(detail, "Operation/DocProcess/TgtType")
    if isinstance(said, str):
        _same(formats.get(said.lower(), PreviewOptions.TARGET_FORMAT_UNSPECIFIED), job.options.target_format)
    for name, moment in {"CreationTime": job.create_time, "EndTime": job.end_time}.items():
        _same(_seconds(_text(detail, name)), moment.seconds, name)
    _compare_results(detail, job)


def _compare_results(detail: Mapping[str, Any], job: PreviewJob) -> None:
    state = _text(detail, "State")
    result = _at(detail, "Operation/DocProcessResult")
    if not isinstance(result, dict) or not isinstance(state, str) or state.lower() != "success":
        return
    _same(_number(_text(result, "TotalPageCount")), job.result.total_page_count)
    pages = [page for page in _list(result.get("PageInfo")) if isinstance(page, dict)]
    if len(pages) == len(_list(result.get("PageInfo"))) == len(job.result.pages):
        for page, found in zip(pages, job.result.pages, strict=True):
            said = _text(page, "TgtUri")
            _same(said.removeprefix("/") if isinstance(said, str) else said, found.object, "TgtUri")


def _same(said: object, read: object, of: str = "") -> None:
    assert said is UNREAD or said == read, (of, said, read)


def _read_as_the_sdk_does(body: bytes) -> Any:
    return _without_namespaces(dict(Xml2Dict(ET.fromstring(body))))  # noqa: S314 - made here


def _without_namespaces(said: Any) -> Any:
    """As if the SDK removed every namespace, not only those of the vendor. {} for a document without elements."""
    if said is None:
        return {}
    if isinstance(said, list):
        return [_without_namespaces(item) for item in said]
    if not isinstance(said, dict):
        return said
    return {name.rpartition("}")[2]: _without_namespaces(value) for name, value in said.items() if value is not None}


def _list(said: object) -> list[Any]:
    items = said if isinstance(said, list) else [said]
    return [item for item in items if isinstance(item, dict)]


def _at(said: Mapping[str, Any], path: str) -> Any:
    found: Any = said
    for name in path.split("/"):
        if found is None:
            return None
        if not isinstance(found, dict):
            return UNREAD
        found = found.get(name)
    return found


def _text(said: Mapping[str, Any], path: str) -> Any:
    """A text that the SDK read, stripped; empty when there is none."""
    found = _at(said, path)
    if found is None:
        return ""
    return found.strip() if isinstance(found, str) else UNREAD


def _number(said: Any) -> Any:
    if not isinstance(said, str):
        return said
    digits = said.removeprefix("-")
    return int(said) if digits.isascii() and digits.isdigit() and int(digits) < 2**31 else 0


def _seconds(said: Any) -> Any:
    if not isinstance(said, str):
        return said
    try:
        moment = datetime.fromisoformat(said)
        there = moment if moment.tzinfo else moment.replace(tzinfo=timezone(timedelta(hours=8)))
        # A time outside of the years 1 to 9999 of UTC has no form in the contract.
        return int(there.astimezone(UTC).timestamp())
    except (ValueError, OverflowError):
        return 0
