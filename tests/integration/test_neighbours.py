"""What one caller, or a stranger, takes of a serving command, and what is left for others."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from docpreview.v1.preview_job_service_pb2 import (
    BatchGetPreviewJobsRequest,
    GetPreviewJobRequest,
    WaitPreviewJobRequest,
    WatchPreviewJobRequest,
)
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_emulator import Emulator
from tests.fakes.raw_server import Exchange, RawServer
from tests.integration.conftest import BUCKET, REGION
from tests.integration.gateway_processes import configuration, page, running
from tests.integration.identity import Policy, bearer, caller, create, get
from tests.integration.issuer import AUDIENCE, ISSUER, Issuer
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.integration.gateway_processes import Running

C = grpc.StatusCode
DOCUMENT = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"
JUNK = 3000


def detail_of(error: grpc.aio.AioRpcError, kind: Any) -> Any:
    """The detail of this kind in the error's status, which is filled in."""
    found = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
    for detail in status_pb2.Status.FromString(found).details:
        detail.Unpack(kind)
    return kind


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason in the error's ErrorInfo."""
    reason: str = detail_of(error, error_details_pb2.ErrorInfo()).reason
    return reason


async def metric(gateway: Running, name: str) -> float:
    """The value of a sample with its labels; 0 when there is none."""
    _, text = await page(gateway.admin_port, "/metrics")
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name} "))


def batches(size: int, count: int) -> list[BatchGetPreviewJobsRequest]:
    """Batches of ids that are all different."""
    return [
        BatchGetPreviewJobsRequest(bucket=BUCKET, job_ids=[f"b{number}n{i}" for i in range(size)])
        for number in range(count)
    ]


async def outcome(call: Any) -> str:
    """OK, or the reason of the error with which a call ends; the name of the code when gRPC itself ended it."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return reason_of(error) or error.code().name
    return "OK"


@pytest.mark.parametrize("redis", [False, True], ids=["one process", "shared state"])
async def test_batches_read_the_cloud_no_faster_than_their_callers_rate(tmp_path: Path, redis: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Of seven batches of 100 ids, at a call a second in bursts of ten, only the first is served.

    Its debt is repaid after a minute and a half. The caller's neighbour is served as ever.
    """
    policy = Policy(tmp_path / "policy.yaml")
    greedy, honest = policy.add("greedy", rate={"per_second": 1, "burst": 10}), policy.add("honest")
    policy.write()
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator())
        more: dict[str, object] = {"policy": {"file": str(policy.path)}}
        if redis:
            server = stack.enter_context(running_redis(tmp_path))
            more["shared_state"] = {"url": server.url, "timeout_seconds": 2}
        gateway = await stack.enter_async_context(running(configuration(emulator, tmp_path, **more)))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(gateway.address))
        stub: Any = PreviewJobServiceStub(channel)
        begin = time.monotonic()
        found = [
            await outcome(stub.BatchGetPreviewJobs(batch, metadata=bearer(greedy), timeout=30))
            for batch in batches(100, 7)
        ]
        took = time.monotonic() - begin
        assert found == ["OK"] + ["RATE_LIMITED"] * 6
        assert len([request for request in emulator.requests if request.operation == "get"]) == 100
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetPreviewJob(GetPreviewJobRequest(bucket=BUCKET, job_id="d1"), metadata=bearer(greedy))
        retry = detail_of(caught.value, error_details_pb2.RetryInfo())
        assert 90 - took - 5 <= retry.retry_delay.seconds <= 90
        assert await get(channel, bearer(honest)) == C.NOT_FOUND


async def test_batches_that_begin_together_share_one_burst(tmp_path: Path) -> None:
    """The debt of the first counts before the second is admitted."""
    policy = Policy(tmp_path / "policy.yaml")
    greedy = policy.add("greedy", rate={"per_second": 1, "burst": 10})
    policy.write()
    async with (
        Emulator() as emulator,
        running(configuration(emulator, tmp_path, policy={"file": str(policy.path)})) as gateway,
        grpc.aio.insecure_channel(gateway.address) as channel,
    ):
        stub: Any = PreviewJobServiceStub(channel)
        calls = [stub.BatchGetPreviewJobs(batch, metadata=bearer(greedy), timeout=30) for batch in batches(100, 7)]
        found = sorted([await outcome(call) for call in calls])
        assert found == ["OK"] + ["RATE_LIMITED"] * 6
        assert len([request for request in emulator.requests if request.operation == "get"]) == 100


async def test_one_caller_leaves_waits_and_watches_for_others(tmp_path: Path) -> None:
    """Of 40 it gets three quarters; the second caller is served, and a metric names the first."""
    policy = Policy(tmp_path / "policy.yaml")
    greedy, honest = policy.add("greedy"), policy.add("honest")
    policy.write()
    more: dict[str, object] = {"policy": {"file": str(policy.path)}, "watch": {"max_watches": 40}}
    async with (
        Emulator() as emulator,
        running(configuration(emulator, tmp_path, **more)) as gateway,
        grpc.aio.insecure_channel(gateway.address) as channel,
    ):
        emulator.put_object(BUCKET, REGION, "a.pdf", DOCUMENT.read_bytes())
        emulator.hold_jobs()
        job = await create(channel, bearer(honest), "a.pdf")
        stub: Any = PreviewJobServiceStub(channel)
        watches, refused = [], []
        for _ in range(60):
            request = WatchPreviewJobRequest(bucket=BUCKET, job_id=job.job_id)
            watch = stub.WatchPreviewJob(request, metadata=bearer(greedy), timeout=60)
            try:
                await watch.read()
            except grpc.aio.AioRpcError as error:
                refused.append((error.code(), reason_of(error)))
            else:
                watches.append(watch)
        assert len(watches) == 30
        assert set(refused) == {(C.RESOURCE_EXHAUSTED, "CONCURRENCY_LIMITED")}
        wait = WaitPreviewJobRequest(bucket=BUCKET, job_id=job.job_id)
        wait.timeout.FromMilliseconds(100)
        assert await outcome(stub.WaitPreviewJob(wait, metadata=bearer(honest), timeout=30)) == "OK"
        decisions = 'docpreview_limit_decisions_total{caller="greedy",limit="share",outcome="refused"}'
        assert await metric(gateway, decisions) == 30
        for watch in watches:
            watch.cancel()


class Idp:
    """A server of an issuer's JWKS that does not answer while it `hangs`."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self.hangs = False
        self.was_asked = asyncio.Event()
        """Whether it was asked for keys that it did not send."""

    async def answer(self, exchange: Exchange) -> None:
        if not self.hangs:
            await exchange.answer(self._issuer.jwks().encode())
            return
        self.was_asked.set()
        await asyncio.Event().wait()


class Junk:
    """Calls with tokens that name unknown keys, over connections of their own."""

    def __init__(self, issuer: Issuer, channels: Sequence[grpc.aio.Channel]) -> None:
        self._issuer = issuer
        self._channels = channels
        self.calls: list[asyncio.Task[str]] = []

    def start(self) -> None:
        """Start one more call."""
        number = len(self.calls)
        token = self._issuer.forged({"alg": "ES256", "kid": f"junk{number}"}, b"x" * 64)
        stub: Any = PreviewJobServiceStub(self._channels[number % len(self._channels)])
        request = GetPreviewJobRequest(bucket=BUCKET, job_id="d1")
        call = outcome(stub.GetPreviewJob(request, metadata=bearer(token), timeout=60))
        self.calls.append(asyncio.ensure_future(call))

    async def start_until(self, event: asyncio.Event) -> None:
        """Start a call every half second until the event."""
        waiting = asyncio.ensure_future(event.wait())
        async with asyncio.timeout(90):
            while not waiting.done():
                self.start()
                await asyncio.wait((waiting,), timeout=0.5)


@pytest.mark.slow
async def test_tokens_with_unknown_keys_hold_nobody_up_while_their_issuer_does_not_answer(tmp_path: Path) -> None:
    """3,000 junk tokens are refused while the JWKS address hangs, and few of their calls wait for it.

    Callers with static tokens and with known keys are served. Begins half a minute after the start, when keys may be
    fetched again.
    """
    issuer = Issuer("ec1")
    policy = Policy(tmp_path / "policy.yaml")
    static = policy.add("static")
    policy.callers["signed"] = caller([{"jwt": {"issuer": ISSUER, "value": "svc-one"}}])
    policy.write()
    idp = Idp(issuer)
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator())
        server = await stack.enter_async_context(RawServer(idp.answer))
        jwt = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": f"{server.url}/jwks", "algorithms": ["ES256"]}
        more = {"policy": {"file": str(policy.path)}, "auth": {"jwt": [jwt]}, "limits": {"max_calls": 50}}
        gateway = await stack.enter_async_context(running(configuration(emulator, tmp_path, **more)))
        channels = [
            grpc.aio.insecure_channel(gateway.address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(4)
        ]
        honest, *others = [await stack.enter_async_context(channel) for channel in channels]
        junk = Junk(issuer, others)
        idp.hangs = True
        await junk.start_until(idp.was_asked)
        for _ in range(JUNK):
            junk.start()
        for turn in range(20):
            token = static if turn % 2 else issuer.token("ec1", iat=1_700_000_000 + turn)
            assert await get(honest, bearer(token)) == C.NOT_FOUND
        found = set(await asyncio.gather(*junk.calls))
        assert "IDENTITY_UNAVAILABLE" in found
        # Of so many calls at the same time gRPC's own bounds end some.
        assert found <= {"IDENTITY_UNAVAILABLE", "UNAUTHENTICATED", "CANCELLED", "UNAVAILABLE"}


async def test_an_unreachable_jwks_address_is_told_with_its_issuer_and_is_no_invalid_reload(tmp_path: Path) -> None:
    """In the log and in a metric."""
    policy = Policy(tmp_path / "policy.yaml")
    policy.add("one")
    policy.write()
    jwt = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": "http://127.0.0.1:1/jwks"}
    more: dict[str, object] = {"policy": {"file": str(policy.path)}, "auth": {"jwt": [jwt]}}
    async with Emulator() as emulator, running(configuration(emulator, tmp_path, **more)) as gateway:
        _, text = await page(gateway.admin_port, "/metrics")
        assert 'docpreview_reloads_total{file="jwks",outcome="unreachable"}' in text
        assert 'docpreview_reloads_total{file="jwks",outcome="invalid"}' not in text
    (log,) = tmp_path.glob("gateway-*.log")  # noqa: ASYNC240 - a small folder
    line = next(line for line in log.read_text().splitlines() if "keys of an issuer not fetched" in line)
    assert json.loads(line)["issuer"] == ISSUER
