"""Hostile bucket and region names, which try to send the gateway and its signature to another host (SSRF)."""

from __future__ import annotations

import random
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, GetPreviewJobRequest
from docpreview_gateway.access.bucket_registry import BucketRegistry
from docpreview_gateway.jobs.job_lists import JobLists
from docpreview_gateway.jobs.page_tokens import PageTokens
from docpreview_gateway.jobs.page_urls import PageUrls
from docpreview_gateway.jobs.poller import WatchLimits
from docpreview_gateway.jobs.preview_jobs import PreviewJobs
from docpreview_gateway.jobs.watching import Watching
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.upstream.builtin_transport import BuiltinTransport
from docpreview_gateway.upstream.client import CloudClient
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from docpreview_gateway.upstream.memory_cache import LruMemoryCache
from docpreview_gateway.upstream.middleware.cached import Cached
from docpreview_gateway.upstream.operations import GetJob
from docpreview_gateway.upstream.policies.freshness import Freshness
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.fakes.credentials import FakeCredentials
from tests.fakes.raw_server import Exchange, RawServer
from tests.fakes.recorded import Recorded
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.transport import job_reply

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNT = 100_000
HONEST_EVERY = 1000
BUCKET = Bucket("examplebucket-1250000000", "ap-chongqing", "main")
OTHER = Bucket("previews-1250000000", "ap-guangzhou", "main")
HONEST = {"", BUCKET.name, OTHER.name, BUCKET.region, OTHER.region}
REFUSED = {r.ERROR_REASON_INVALID_REQUEST, r.ERROR_REASON_BUCKET_NOT_CONFIGURED}
PIECES = (
    *(BUCKET.name, OTHER.name, BUCKET.region, "stranger-1250000000", "ap-beijing", "cos", "ci", "myqcloud.com"),
    *("evil.example", "localhost", "127.0.0.1", "[::1]", "169.254.169.254", "metadata", "0x7f.1", "2130706433"),
    *(".", "..", "/", "//", "\\", "@", ":", ":80", "#", "?", "&", "%", "%2e", "%2F", "%00", "%0d%0a", ";", "=", "+"),
    *(
        "\r\n",
        "\n",
        "\0",
        "\t",
        " ",
        "\u200b",
        "\u202e",
        "\u3002",
        "\uff0e",
        "\u2024",
        "\u0130",
        "ß",
        "\uff41",
        "-",
        "--",
    ),
    *("Host: evil.example", "http://", "https://evil.example/", "xn--", "a" * 64, "A", "0", "1250000000", "${jndi}"),
)

EVENTS = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}
LOOK_UP = "socket.getaddrinfo"

_ears: list[list[tuple[str, Any]]] = []


def _on_event(event: str, arguments: tuple[Any, ...]) -> None:
    if _ears and event in EVENTS:
        _ears[-1].append((event, arguments[1] if event == "socket.connect" else arguments[0]))
        if event == LOOK_UP:
            raise OSError("names are not looked up here")


@cache
def _install() -> None:
    """Install the audit hook once, since it cannot be removed."""
    sys.addaudithook(_on_event)


@pytest.fixture
def network_events() -> Iterator[list[tuple[str, Any]]]:
    """Every connection and DNS look-up that this process attempts, by any library; look-ups fail."""
    _install()
    _ears.append([])
    yield _ears[-1]
    _ears.pop()


def hostile_names(count: int) -> Iterator[str]:
    """Random names: concatenated fragments, and real names with a few characters changed."""
    dice = random.Random(20260101)  # noqa: S311 - the same names in every run
    made = 0
    while made < count:
        if dice.random() < 0.5:
            text = "".join(dice.choices(PIECES, k=dice.randint(1, 5)))
        else:
            characters = list(dice.choice((BUCKET.name, OTHER.name, BUCKET.region, BUCKET.ci_host)))
            for _ in range(dice.randint(1, 3)):
                place = dice.randrange(len(characters))
                characters[place : place + dice.randint(0, 1)] = dice.choice(
                    (*PIECES, chr(dice.randint(0, 0xD7FF)), "")
                )
            text = "".join(characters)
        if text not in HONEST:
            made += 1
            yield text


def use_cases(transport: BuiltinTransport) -> PreviewJobs:
    buckets, clock, credentials = BucketRegistry([BUCKET, OTHER]), SystemClock(), FakeCredentials()
    times = CloudTimes(clock)
    client = Cached(
        CloudClient(transport, credentials, times, telemetry=FakeTelemetry(), timeout_seconds=5),
        LruMemoryCache(2**20),
        None,
        freshness=Freshness(),
        clock=clock,
        telemetry=FakeTelemetry(),
    )
    watching = Watching(client, times, FakeTelemetry(), limits=WatchLimits(), jitter=random.random)
    creating = Recorded(client, buckets, times, FakeTelemetry()).creates
    lists = JobLists(client, PageTokens(credentials, random.randbytes))
    return PreviewJobs(client, buckets, creating, watching, PageUrls(buckets, credentials, times), lists=lists)


async def attack(jobs: PreviewJobs, number: int, name: str) -> None:
    """One call with a hostile name in one of its fields."""
    call = Call("r1", float("inf"))
    honest = CreatePreviewJobRequest(
        bucket=BUCKET.name, input_object="a.pdf", output=ObjectLocation(object="p-${Page}.jpg")
    )
    match number % 4:
        case 0:
            await jobs.get(GetPreviewJobRequest(bucket=name, job_id="d1"), call)
        case 1:
            honest.bucket = name
        case 2:
            honest.output.bucket = name
        case 3:
            honest.output.region = name
    if number % 4:
        await jobs.create(honest, call)


async def answer(exchange: Exchange) -> None:
    await exchange.answer(job_reply("d1").body)


async def test_hostile_names_are_refused_and_never_reach_the_configured_endpoint(
    network_events: list[tuple[str, Any]],
) -> None:
    """100,000 hostile names; only the valid calls between them reach the endpoint."""
    async with (
        RawServer(answer) as server,
        BuiltinTransport(base_url=server.url, connect_seconds=5, read_seconds=5) as transport,
    ):
        jobs = use_cases(transport)
        for number, name in enumerate(hostile_names(COUNT)):
            with pytest.raises(GatewayError) as caught:
                await attack(jobs, number, name)
            assert caught.value.reason in REFUSED, name
            if number % HONEST_EVERY == 0:
                honest = Call("r1", float("inf"), no_cache=True)
                found = await jobs.get(GetPreviewJobRequest(bucket=BUCKET.name, job_id="d1"), honest)
                assert found.state == PreviewJob.STATE_SUBMITTED
    hosts = [host for exchange in server.exchanges for host in exchange.header("host")]
    assert hosts == [BUCKET.ci_host] * (COUNT // HONEST_EVERY)
    assert set(network_events) == {("socket.connect", ("127.0.0.1", server.port))}


async def test_hostile_names_without_an_endpoint_cause_no_dns_look_up(network_events: list[tuple[str, Any]]) -> None:
    """Without `upstream.endpoint` the bucket's host would be resolved."""
    async with BuiltinTransport(base_url=None, connect_seconds=5, read_seconds=5) as transport:
        jobs = use_cases(transport)
        for number, name in enumerate(hostile_names(COUNT // 5)):
            with pytest.raises(GatewayError):
                await attack(jobs, number, name)
    assert network_events == []


async def test_an_honest_call_without_endpoint_resolves_the_buckets_host_only(
    network_events: list[tuple[str, Any]],
) -> None:
    """Shows that the audit hook records look-ups."""
    nowhere = Bucket("examplebucket-1250000000", "ap-nowhere", "main")
    async with BuiltinTransport(base_url=None, connect_seconds=0.5, read_seconds=0.5) as transport:
        client = CloudClient(
            transport, FakeCredentials(), CloudTimes(SystemClock()), telemetry=FakeTelemetry(), timeout_seconds=1
        )
        with pytest.raises(GatewayError):
            await client(GetJob(nowhere, "d1"), Call("r1", float("inf")))
    assert {host for event, host in network_events if event == LOOK_UP} == {nowhere.ci_host}
