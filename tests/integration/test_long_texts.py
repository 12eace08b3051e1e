"""Long texts of callers: every status still reaches its client whole, and no log line repeats them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewOptions
from docpreview.v1.preview_job_service_pb2 import BatchGetPreviewJobsRequest, CreatePreviewJobRequest
from docpreview_emulator import Emulator
from docpreview_gateway.model.contract import SERVICES
from tests.integration.conftest import BUCKET
from tests.integration.gateway_processes import configuration, running
from tests.integration.identity import Policy, bearer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from google.protobuf.message import Message

LENGTHS = (20_000, 900_000)
LONGEST_LINE = 8192
"""Bytes of a log line."""

EXPECTED = {"INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED"}
HONEST = {"bucket": BUCKET, "job_id": "d1", "input_object": "in/a.pdf"}


def texts(descriptor: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all fields of a message that hold text, and of those of its parts."""
    for field in descriptor.fields:
        if field.type == field.TYPE_STRING:
            yield (*path, field.name)
        elif field.type == field.TYPE_MESSAGE and field.message_type.full_name.startswith("docpreview."):
            yield from texts(field.message_type, (*path, field.name))


METHODS = {
    method.name: (service.full_name, method, GetMessageClass(method.input_type))
    for service in SERVICES
    for method in service.methods
}
FIELDS = [(name, path) for name, (_, method, _) in METHODS.items() for path in texts(method.input_type)]


def request_with(name: str, path: tuple[str, ...], text: str) -> Message:
    """An otherwise valid request of a method with `text` in the field at `path`."""
    request = METHODS[name][2]()
    for field, value in HONEST.items():
        if field in request.DESCRIPTOR.fields_by_name:
            setattr(request, field, value)
    if isinstance(request, CreatePreviewJobRequest):
        request.output.object = "previews/${Number}.jpg"
    if isinstance(request, BatchGetPreviewJobsRequest):
        request.job_ids.append("d1")
    *parents, leaf = path
    owner: Any = request
    for parent in parents:
        owner = getattr(owner, parent)
    if isinstance(getattr(owner, leaf), str):
        setattr(owner, leaf, text)
    else:
        getattr(owner, leaf).append(text)
    return request


class Site:
    """A gateway process, a channel with gRPC's own limits, and a caller."""

    def __init__(self, channel: grpc.aio.Channel, metadata: Any, folder: Path) -> None:
        self._channel = channel
        self._metadata = metadata
        self._folder = folder
        self._calls = 0

    async def error(self, name: str, request: Message, **metadata: str) -> tuple[str, list[Any]]:
        """Status code of a call, and the details in its status."""
        service, method, _ = METHODS[name]
        kind = self._channel.unary_stream if method.server_streaming else self._channel.unary_unary
        call: Any = kind(f"/{service}/{name}", request_serializer=lambda message: message.SerializeToString())
        self._calls += 1
        answer = call(request, metadata=(*self._metadata, *metadata.items()), timeout=20)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            _ = [reply async for reply in answer] if method.server_streaming else await answer
        found = dict(caught.value.trailing_metadata()).get("grpc-status-details-bin", b"")
        return caught.value.code().name, list(status_pb2.Status.FromString(found).details)

    async def longest_line(self) -> int:
        """Bytes of the longest line that the gateway has logged, once it has logged every call."""
        async with asyncio.timeout(10):
            while True:
                lines = [line for log in self._folder.glob("gateway-*.log") for line in log.read_bytes().splitlines()]
                if sum(b'"event":"call"' in line for line in lines) >= self._calls:
                    return max(map(len, lines))
                await asyncio.sleep(0.1)


@pytest.fixture(params=["with a policy", "without a policy"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A gateway with or without a policy."""
    policy = Policy(tmp_path / "policy.yaml")
    metadata: Any = ()
    more: dict[str, object] = {}
    if request.param == "with a policy":
        metadata = bearer(policy.add("shop", prefix="in/"))
        policy.write()
        more = {"policy": {"file": str(policy.path)}}
    async with (
        Emulator() as emulator,
        running(configuration(emulator, tmp_path, **more)) as gateway,
        grpc.aio.insecure_channel(gateway.address) as channel,
    ):
        yield Site(channel, metadata, tmp_path)


def info_of(details: list[Any]) -> error_details_pb2.ErrorInfo:
    (packed,) = [detail for detail in details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    info = error_details_pb2.ErrorInfo()
    packed.Unpack(info)
    return info


async def test_a_long_text_in_any_field_gets_a_whole_status_and_short_log_lines(site: Site) -> None:
    """Every field of every request that holds text, of ASCII and of characters that triple on the way."""
    wrong = []
    for name, path in FIELDS:
        for length in LENGTHS:
            for letter in ("a", "\u00e9" if length < LENGTHS[-1] else "a"):
                code, details = await site.error(name, request_with(name, path, letter * length))
                if code not in EXPECTED or not details or not info_of(details).reason:
                    wrong.append((name, path, length, letter, code))
    assert wrong == []
    assert await site.longest_line() < LONGEST_LINE


async def test_a_request_in_which_everything_is_wrong_gets_a_whole_status(site: Site) -> None:
    """Every field of a create, and every id of a batch."""
    long = "\U0001f600" * 5000
    options = PreviewOptions(source_format=long, page_ranges=long, password=long, image_params=long, quality=999)
    for name in ("start_page", "end_page", "sheet_id", "zoom_percent", "image_dpi"):
        setattr(options, name, 2**31 - 1)
    for name in ("target_format", "paper_orientation", "paper_size", "comments"):
        setattr(options, name, 99)
    for bucket in (BUCKET, long):
        create = CreatePreviewJobRequest(
            bucket=bucket,
            queue_id=long,
            input_object=long,
            output=ObjectLocation(bucket=long, region=long, object=long),
            options=options,
            user_data=long,
            request_id=long,
            preset=long,
        )
        code, details = await site.error("CreatePreviewJob", create)
        assert (code, info_of(details).reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
        batch = BatchGetPreviewJobsRequest(bucket=bucket, job_ids=[f"{long[:1000]}{n}" for n in range(100)])
        code, details = await site.error("BatchGetPreviewJobs", batch)
        assert (code, info_of(details).reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")


async def test_long_metadata_is_neither_sent_back_nor_logged(site: Site) -> None:
    """As long as gRPC lets it in."""
    for key in ("x-request-id", "traceparent", "cache-control", "x-anything", "user-data"):
        request = request_with("GetPreviewJob", ("job_id",), "?")
        code, details = await site.error("GetPreviewJob", request, **{key: "a" * 6000})
        assert (code, info_of(details).reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert await site.longest_line() < 1000
