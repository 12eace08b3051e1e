"""The gateway before a cloud whose way is full of strangers: proxies' pages, portals, and connections that break."""

from __future__ import annotations

import asyncio
import gzip
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING

import grpc
import pytest
from lxml import etree

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import (
    CreatePreviewJobRequest,
    GetPreviewJobRequest,
    WatchPreviewJobRequest,
)
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_gateway.settings.upstream import BreakerSettings, CacheSettings, RetrySettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.fakes.raw_server import Exchange, RawServer
from tests.fakes.transport import job_detail
from tests.integration.conftest import BUCKET, settings
from tests.unit.rpc.conftest import error_info

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceAsyncStub

REQUEST_ID = "6b1f2b0e-4a53-4d6c-9d2b-0d4b5a1c7e11"
OF_CI = "Server: tencent-ci\r\nX-Ci-Request-Id: cloud-1\r\n"
PAGE = b"<html><body><h1>404 Not Found</h1><hr>nginx</body></html>"


@dataclass
class Cloud:
    """A cloud with the job d1, and something on the way that takes the first replies from `on_the_way`."""

    on_the_way: list[Callable[[Exchange], Awaitable[None]]] = field(default_factory=list)
    state: str = "Running"
    user_data: list[str] = field(default_factory=list)
    """Of the jobs that creates made."""

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.request_line.startswith("POST"):
            self.user_data.append(etree.fromstring(exchange.body).findtext("Operation/UserData") or "")
        if self.on_the_way:
            await self.on_the_way.pop(0)(exchange)
        else:
            headers = f"{OF_CI}Date: {formatdate(usegmt=True)}\r\n"
            await exchange.answer(self.reply(exchange.request_line), headers=headers)

    def reply(self, line: str) -> bytes:
        if "/doc_jobs?" not in line:
            return f"<Response>{job_detail('d1', self.state)}</Response>".encode()
        jobs = "".join(
            job_detail(f"made{number}").replace("<Tag>", f"<Operation><UserData>{text}</UserData></Operation><Tag>")
            for number, text in enumerate(self.user_data)
        )
        return f"<Response>{jobs}<NextToken/></Response>".encode()


def page(status: str, body: bytes = PAGE, headers: str = "Server: nginx\r\n") -> Callable[[Exchange], Awaitable[None]]:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(body, status, headers)

    return answer


async def hang_up(exchange: Exchange) -> None:
    exchange.reset()


@dataclass
class World:
    cloud: Cloud
    server: RawServer
    gateway: Gateway
    stub: PreviewJobServiceAsyncStub

    async def get(self) -> PreviewJob:
        return await self.stub.GetPreviewJob(GetPreviewJobRequest(bucket=BUCKET, job_id="d1"), timeout=20)

    async def create(self, request_id: str = REQUEST_ID) -> PreviewJob:
        output = ObjectLocation(object="p-${Page}.jpg")
        request = CreatePreviewJobRequest(bucket=BUCKET, input_object="a.pdf", output=output, request_id=request_id)
        return await self.stub.CreatePreviewJob(request, timeout=20)

    def attempts(self, operation: str) -> float:
        """Attempts at the cloud, as the metrics count them."""
        name = "docpreview_upstream_requests_total"
        families = (family for family in self.gateway.registry.collect() if family.name in name)
        samples = (sample for family in families for sample in family.samples if sample.name == name)
        return sum(sample.value for sample in samples if sample.labels["operation"] == operation)

    def retries(self, operation: str) -> float:
        labels = {"operation": operation, "outcome": "made"}
        return self.gateway.registry.get_sample_value("docpreview_upstream_retries_total", labels) or 0.0

    async def reason(self, call: Awaitable[object]) -> str:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        return str(error_info(caught.value).reason)


@asynccontextmanager
async def started(**changes: object) -> AsyncIterator[World]:
    cloud = Cloud()
    values = {"retry": RetrySettings(base_seconds=0.01, cap_seconds=0.02), "breaker": BreakerSettings()} | changes
    async with (
        RawServer(cloud) as server,
        Gateway(settings(server, **values)) as gateway,
        grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}", options=[("grpc.enable_retries", 0)]) as channel,
    ):
        yield World(cloud, server, gateway, PreviewJobServiceStub(channel))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with started() as found:
        yield found


NOT_FOUND = {
    "page": page("404 Not Found"),
    "empty": page("404 Not Found", b"", ""),
    "json": page("404 Not Found", b'{"code": "NoSuchJob", "message": "no", "request_id": "1"}', ""),
    "store": page("404 Not Found", b"<Error><Code>NoSuchKey</Code><RequestId>1</RequestId><HostId>2</HostId></Error>"),
}


class TestAbsence:
    @pytest.mark.parametrize("stranger", NOT_FOUND.values(), ids=list(NOT_FOUND))
    async def test_a_404_of_something_on_the_way_is_read_again_and_the_job_is_found(
        self, world: World, stranger: Callable[[Exchange], Awaitable[None]]
    ) -> None:
        """The reply of a proxy costs a retry, not the job."""
        world.cloud.on_the_way = [stranger]
        assert (await world.get()).job_id == "d1"
        assert (world.attempts("get"), world.retries("get")) == (2, 1)

    @pytest.mark.parametrize("stranger", NOT_FOUND.values(), ids=list(NOT_FOUND))
    async def test_a_lasting_404_of_something_on_the_way_is_a_bad_response_and_is_not_cached(
        self, stranger: Callable[[Exchange], Awaitable[None]]
    ) -> None:
        """Never JOB_NOT_FOUND; as soon as the cloud answers itself, so does the gateway."""
        async with started(cache=CacheSettings(missing_seconds=60)) as world:
            world.cloud.on_the_way = [stranger, stranger]
            assert await world.reason(world.get()) == "UPSTREAM_BAD_RESPONSE"
            assert (await world.get()).job_id == "d1"

    async def test_a_watch_goes_on_through_the_404s_of_something_on_the_way(self, world: World) -> None:
        """It ends when the job ends."""
        seen = []
        async with asyncio.timeout(20):
            async for event in world.stub.WatchPreviewJob(WatchPreviewJobRequest(bucket=BUCKET, job_id="d1")):
                seen.append(event.job.state)
                if len(seen) == 1:
                    world.cloud.on_the_way = [page("404 Not Found")] * 4
                    world.cloud.state = "Success"
        assert (seen[0], seen[-1]) == (PreviewJob.STATE_RUNNING, PreviewJob.STATE_SUCCESS)
        assert world.cloud.on_the_way == []

    async def test_the_cloud_itself_still_says_that_a_job_does_not_exist(self, world: World) -> None:
        """By a bare 404 with its headers."""
        world.cloud.on_the_way = [page("404 Not Found", b"", OF_CI)]
        assert await world.reason(world.get()) == "JOB_NOT_FOUND"
        assert world.attempts("get") == 1


REFUSED = {
    "blocked": page("403 Forbidden"),
    "not found": page("404 Not Found"),
    "proxy's login": page("407 Proxy Authentication Required", b""),
    "portal": page("302 Found", b"", "Location: http://portal.invalid/\r\n"),
    "login page": page("200 OK", b"<html>log in</html>"),
    "throttled": page("429 Too Many Requests", b"", "Retry-After: 1\r\n"),
}


class TestCreates:
    @pytest.mark.parametrize("stranger", REFUSED.values(), ids=list(REFUSED))
    async def test_a_create_refused_by_something_on_the_way_is_looked_for_and_billed_once(
        self, world: World, stranger: Callable[[Exchange], Awaitable[None]]
    ) -> None:
        """The cloud had accepted it: the caller gets its job, by the list."""
        await world.get()  # the cloud's time is heard before anything is on the way
        world.cloud.on_the_way = [stranger]
        assert (await world.create()).job_id == "made0"
        assert len(world.cloud.user_data) == 1

    @pytest.mark.parametrize("stranger", REFUSED.values(), ids=list(REFUSED))
    async def test_a_create_without_request_id_is_looked_for_too_and_is_sent_once(
        self, world: World, stranger: Callable[[Exchange], Awaitable[None]]
    ) -> None:
        """Every create carries a marker."""
        await world.get()
        world.cloud.on_the_way = [stranger]
        assert (await world.create("")).job_id == "made0"
        assert len(world.cloud.user_data) == 1

    async def test_a_create_without_request_id_that_no_list_shows_has_an_unknown_outcome(self, world: World) -> None:
        """The caller is not told that it may simply try again."""
        await world.get()
        world.cloud.on_the_way = [page("403 Forbidden"), page("200 OK"), page("200 OK", b"<Response/>")]
        assert await world.reason(world.create("")) == "CREATE_OUTCOME_UNKNOWN"
        assert len(world.cloud.user_data) == 1

    async def test_an_empty_list_of_something_on_the_way_proves_nothing(self, world: World) -> None:
        """The lists are a portal's page and an empty document of nobody: no second create is sent."""
        lost = page("403 Forbidden")
        await world.get()
        world.cloud.on_the_way = [lost, page("200 OK"), page("200 OK", b"<Response/>")]
        assert await world.reason(world.create()) == "CREATE_OUTCOME_UNKNOWN"
        assert (await world.create()).job_id == "made0"
        assert len(world.cloud.user_data) == 1


class TestAttempts:
    async def test_each_request_to_the_cloud_is_counted_when_kept_alive_connections_break(self, world: World) -> None:
        """Every second request finds its connection closed: the gateway's own retry reads again, and nothing else.

        The HTTP library would repeat them beside the retry budget and the metrics; a new version that does so again
        sends more requests than the metrics count.
        """
        reads = 6
        for _ in range(reads):
            world.cloud.on_the_way = [hang_up]
            assert (await world.get()).job_id == "d1"
        assert len(world.server.exchanges) == world.attempts("get") == 2 * reads
        assert world.retries("get") == reads

    async def test_a_request_that_is_signed_again_after_a_clock_refusal_is_counted_too(self, world: World) -> None:
        """The refused one as CLOCK_SKEW."""
        body = b"<Error><Code>RequestTimeTooSkewed</Code><RequestId>1</RequestId></Error>"
        headers = OF_CI + "Date: Mon, 01 Jan 2024 00:00:00 GMT\r\n"
        world.cloud.on_the_way = [page("403 Forbidden", body, headers)]
        assert (await world.get()).job_id == "d1"
        assert len(world.server.exchanges) == world.attempts("get") == 2

    async def test_a_spent_budget_ends_the_retries_of_broken_connections(self) -> None:
        """With a cloud that breaks every connection the budget bounds what is sent."""
        retry = RetrySettings(budget_floor=2, budget_share=0.0, base_seconds=0.01, cap_seconds=0.02)
        async with started(retry=retry) as world:
            world.cloud.on_the_way = [hang_up] * 1000
            for _ in range(5):
                assert await world.reason(world.get()) == "UPSTREAM_UNAVAILABLE"
            assert len(world.server.exchanges) == world.attempts("get") == 7
            assert world.retries("get") == 2


async def two_lengths(exchange: Exchange) -> None:
    """As of a box on the way that adds a header of its own."""
    await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\nok")


class TestRepliesThatAreNoHttp:
    async def test_a_read_is_repeated_once_and_then_a_bad_response_that_says_what(self, world: World) -> None:
        """One of a box that does so always would fail for ever as a broken connection, and nobody would know why."""
        world.cloud.on_the_way = [two_lengths] * 3
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await world.get()
        assert str(error_info(caught.value).reason) == "UPSTREAM_BAD_RESPONSE"
        assert caught.value.details() == "the reply is not HTTP: two lengths"
        assert world.attempts("get") == 2
        assert (await world.get()).job_id == "d1"

    async def test_a_create_with_such_a_reply_is_looked_for_and_never_sent_twice(self, world: World) -> None:
        """It was sent: its job is found by its marker, by this call or a repeated one."""
        await world.get()
        world.cloud.on_the_way = [two_lengths]
        made = await world.create()
        assert made.job_id == (await world.create()).job_id == "made0"
        assert len(world.cloud.user_data) == 1


class TestTolerance:
    @pytest.mark.parametrize(
        ("body", "headers"),
        [
            (f"<Response>{job_detail('d1', 'Success')}</Response>".encode(), "X-A: b\r\n"),
            (f'<Response xmlns="urn:x">{job_detail("d1", "Success")}</Response>'.encode(), OF_CI),
            (
                gzip.compress(f"<Response>{job_detail('d1', 'Success')}</Response>".encode()),
                OF_CI + "Content-Encoding: gzip\r\n",
            ),
        ],
        ids=["without headers", "namespace", "gzip"],
    )
    async def test_a_reply_in_an_unusual_form_is_read(self, world: World, body: bytes, headers: str) -> None:
        """At the first attempt."""
        world.cloud.on_the_way = [page("200 OK", body, headers)]
        assert (await world.get()).state == PreviewJob.STATE_SUCCESS
        assert world.attempts("get") == 1
