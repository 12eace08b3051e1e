"""What a caller learns about jobs that it may not see, from the real command: nothing but the time it takes."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from docpreview.v1 import preview_job_service_pb2 as pb
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview.v1.preview_queue_service_pb2_grpc import PreviewQueueServiceStub
from docpreview.v1.usage_service_pb2 import GetUsageRequest
from docpreview.v1.usage_service_pb2_grpc import UsageServiceStub
from docpreview_emulator import Credential, Emulator
from tests.integration.conftest import BUCKET, REGION
from tests.integration.gateway_processes import Running, configuration, page, running
from tests.integration.identity import Policy, bearer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from google.protobuf import any_pb2

JOBS = pb.ListPreviewJobsRequest
SIZES = (1, 2, 10, 100)
NO_CACHE = ("cache-control", "no-cache")
ABOUT_THE_CLOUD = {"x-cache", "x-upstream-request-id"}
KEY = {"secret_id": "example-secret-id", "secret_key": "EXAMPLEsecretKEY00000000000000000"}
RELOADED = 'docpreview_reloads_total{file="credentials",outcome="ok"} 1.0'
NEW_KEY = {"secret_id": "new-secret-id", "secret_key": "NEWsecretKEY0000000000000000000000"}


@dataclass
class Site:
    """A cloud, whose jobs do not end, and callers: `mine` and `twin` see jobs under mine/, `whole` sees all."""

    emulator: Emulator
    policy: Policy
    folder: Path

    def gateway(self, name: str = "one", **changes: object) -> Any:
        """The command, as a replica with a state of its own."""
        folder = self.folder / name
        folder.mkdir()
        return running(configuration(self.emulator, folder, policy={"file": str(self.policy.path)}, **changes))

    def log(self, name: str = "one") -> list[dict[str, Any]]:
        """The lines of calls in a replica's log."""
        lines = [line for path in (self.folder / name).glob("*.log") for line in path.read_text().splitlines()]
        return [entry for entry in map(json.loads, lines) if entry["event"] == "call"]


@asynccontextmanager
async def site_in(folder: Path) -> AsyncIterator[Site]:
    policy = Policy(folder / "policy.yaml")
    for name, prefix in (("mine", "mine/"), ("twin", "mine/"), ("whole", "")):
        policy.add(name, BUCKET, prefix)
    policy.write()
    async with Emulator() as emulator:
        emulator.hold_jobs()
        for key in ("mine/a.pdf", "secret/a.pdf"):
            emulator.put_object(BUCKET, REGION, key, b"%PDF-1.4")
        yield Site(emulator, policy, folder)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A site of its own for a test."""
    async with site_in(tmp_path) as made:
        yield made


@dataclass
class Caller:
    """A caller of a gateway."""

    jobs: Any
    queues: Any
    usage: Any
    metadata: tuple[tuple[str, str], ...]

    async def create(self, key: str) -> PreviewJob:
        job: PreviewJob = await self.jobs.CreatePreviewJob(creation(key), metadata=self.metadata, timeout=20)
        return job

    async def page(self, request: pb.ListPreviewJobsRequest) -> tuple[pb.ListPreviewJobsResponse, set[str]]:
        """A page, and the names of its trailers."""
        call = self.jobs.ListPreviewJobs(request, metadata=self.metadata, timeout=20)
        return await call, {name for name, _ in await call.trailing_metadata()}

    async def refusal(self, request: Any) -> bytes:
        """The serialised error with which a list with this token is refused."""
        method = self.jobs.ListPreviewJobs if isinstance(request, JOBS) else self.queues.ListPreviewQueues
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request, metadata=(*self.metadata, ("x-request-id", "r1")), timeout=20)
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        details = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
        assert isinstance(details, bytes)
        assert b"start the list again" in details
        return details


@asynccontextmanager
async def callers(site: Site, gateway: Running, *names: str) -> AsyncIterator[list[Caller]]:
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        stubs = PreviewJobServiceStub(channel), PreviewQueueServiceStub(channel), UsageServiceStub(channel)
        yield [Caller(*stubs, bearer(site.policy.tokens[name])) for name in names]


def creation(key: str) -> pb.CreatePreviewJobRequest:
    output = ObjectLocation(bucket=BUCKET, object="previews/${Number}.jpg")
    return pb.CreatePreviewJobRequest(bucket=BUCKET, input_object=key, output=output)


def first(size: int) -> pb.ListPreviewJobsRequest:
    return pb.ListPreviewJobsRequest(bucket=BUCKET, page_size=size)


@pytest.mark.parametrize("visible", [0, 12])
async def test_pages_tokens_and_trailers_do_not_tell_hidden_jobs(tmp_path: Path, visible: int) -> None:
    """The same with 0 and with 57 hidden jobs, for every page size; and the pages have all visible jobs, in order."""
    shapes = []
    for hidden in (0, 57):
        async with (
            site_in(tmp_path) as site,
            site.gateway(f"beside-{hidden}") as gateway,
            callers(site, gateway, "mine", "whole") as (mine, whole),
        ):
            turns = [True] * visible + [False] * hidden
            random.Random(57).shuffle(turns)  # noqa: S311 - the same in every run
            expected: list[str] = []
            for is_visible in turns:
                job = await (mine.create("mine/a.pdf") if is_visible else whole.create("secret/a.pdf"))
                expected[:0] = [job.job_id] * is_visible
            shapes.append([await _shape(mine, size, expected) for size in SIZES])
    assert shapes[0] == shapes[1]
    for size, shape in zip(SIZES, shapes[1], strict=True):
        assert [count for count, _, _ in shape] == ([min(size, visible - at) for at in range(0, visible, size)] or [0])


async def _shape(caller: Caller, size: int, expected: list[str]) -> list[tuple[int, int, frozenset[str]]]:
    """Of each page of a list: the number of jobs, the length of its token, the names of its trailers."""
    request, found, shape = first(size), [], []
    while True:
        reply, trailers = await caller.page(request)
        found += [job.job_id for job in reply.jobs]
        request.page_token = reply.next_page_token
        shape.append((len(reply.jobs), len(request.page_token), frozenset(trailers)))
        if not request.page_token:
            assert found == expected
            return shape


async def test_a_token_is_refused_when_it_is_changed_or_of_another_caller(site: Site) -> None:
    """With one and the same error for every reason, which does not say whose token it is."""
    async with (
        site.gateway() as gateway,
        callers(site, gateway, "mine", "twin") as (mine, twin),
    ):
        ids = [(await mine.create("mine/a.pdf")).job_id for _ in range(3)]
        request = first(1)
        token = request.page_token = (await mine.page(request))[0].next_page_token
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        assert not any(job_id.encode() in raw for job_id in ids)
        errors = {await twin.refusal(request)}
        for position in range(0, len(raw), 7):
            changed = bytearray(raw)
            changed[position] ^= 0x40
            request.page_token = base64.urlsafe_b64encode(changed).decode().rstrip("=")
            errors.add(await mine.refusal(request))
        of_before = base64.urlsafe_b64encode(b"\x01" + bytes(12) + b"7").decode()
        for forged in ("x", "AQ", token[:-1], token + "A", of_before.rstrip("=")):
            request.page_token = forged
            errors.add(await mine.refusal(request))
        request.page_token, request.order = token, pb.ListPreviewJobsRequest.ORDER_OLDEST_FIRST
        errors.add(await mine.refusal(request))
        queues = ListPreviewQueuesRequest(bucket=BUCKET, page_token=token)
        errors.add(await mine.refusal(queues))
        assert len(errors) == 1
        request.order = pb.ListPreviewJobsRequest.ORDER_UNSPECIFIED
        assert [job.job_id for job in (await mine.page(request))[0].jobs] == [ids[1]]


async def test_a_token_of_one_replica_works_at_another_without_shared_state(site: Site) -> None:
    """Replicas share the cloud's key and nothing else."""
    async with (
        site.gateway("one") as one,
        site.gateway("two") as two,
        callers(site, one, "mine", "twin") as (here, _),
        callers(site, two, "mine", "twin") as (there, twin_there),
    ):
        ids = [(await here.create("mine/a.pdf")).job_id for _ in range(4)][::-1]
        found, request = [], first(1)
        for turn in range(4):
            reply, _trailers = await (here, there)[turn % 2].page(request)
            found += [job.job_id for job in reply.jobs]
            request.page_token = reply.next_page_token or request.page_token
            await twin_there.refusal(request)
        assert (found, reply.next_page_token) == (ids, "")


async def test_a_token_made_before_a_rotation_of_the_cloud_key_works_after_it(site: Site) -> None:
    """Until the gateway restarts: then the list has to be started again, as the error says."""
    keys = site.folder / "keys.json"
    keys.write_text(json.dumps(KEY))
    credentials = {"credentials": {"main": {"file": str(keys)}}}
    async with site.gateway("one", **credentials) as gateway, callers(site, gateway, "mine") as (mine,):
        ids = [(await mine.create("mine/a.pdf")).job_id for _ in range(4)][::-1]
        before = first(1)
        before.page_token = (await mine.page(before))[0].next_page_token
        site.emulator.credentials |= {NEW_KEY["secret_id"]: Credential(NEW_KEY["secret_id"], NEW_KEY["secret_key"])}
        fresh = keys.with_suffix(".new")
        fresh.write_text(json.dumps(NEW_KEY))
        fresh.replace(keys)
        await _reloaded(gateway)
        site.emulator.credentials.pop(KEY["secret_id"])
        reply, _ = await mine.page(before)
        assert [job.job_id for job in reply.jobs] == ids[1:2]
        after = first(1)
        after.page_token = reply.next_page_token
    async with site.gateway("two", **credentials) as gateway, callers(site, gateway, "mine") as (mine,):
        await mine.refusal(before)
        assert [job.job_id for job in (await mine.page(after))[0].jobs] == ids[2:3]


async def _reloaded(gateway: Running) -> None:
    async with asyncio.timeout(30):
        while RELOADED not in (await page(gateway.admin_port, "/metrics"))[1]:  # noqa: ASYNC110 - a metric
            await asyncio.sleep(0.05)


async def test_trailers_about_the_cloud_go_only_to_callers_who_see_all_of_the_bucket(site: Site) -> None:
    """For every method, cached or not, and for errors; a create has them for everybody. The log always has them."""
    sent: dict[str, dict[str, set[str]]] = {}
    async with (
        site.gateway(retry={"max_retries": 0}, breaker={"min_calls": 0}) as gateway,
        callers(site, gateway, "mine", "whole") as both,
    ):
        for name, caller in zip(("mine", "whole"), both, strict=True):
            job_id = (await caller.create("mine/a.pdf")).job_id
            site.emulator.set_job_state(job_id, "Success")
            sent[name] = {what: await _about_the_cloud(start()) for what, start in _calls(caller, job_id).items()}
            site.emulator.add_fault("error", times=None)
            failing = caller.jobs.ListPreviewJobs(first(1), metadata=(*caller.metadata, NO_CACHE), timeout=20)
            sent[name]["error"] = await _about_the_cloud(failing)
            site.emulator.clear_faults()
        async with asyncio.timeout(20):
            while len(site.log()) < 2 * (1 + len(sent["mine"])):  # noqa: ASYNC110 - a log is not announced
                await asyncio.sleep(0.05)
    assert {what for what, found in sent["mine"].items() if found} == {"create"}
    # A stream of many jobs has no cache and no request of its own to tell of.
    assert {what for what, found in sent["whole"].items() if not found} == {"usage", "watch many"}
    assert sent["whole"]["error"] >= {"x-cache", "upstream_request_id"}
    of_mine = [entry for entry in site.log() if entry["caller"] == "mine"]
    assert {"hit", "miss"} <= {entry["cache"] for entry in of_mine if entry["method"] == "GetPreviewJob"}
    (listed,) = [entry for entry in of_mine if (entry["method"], entry["code"]) == ("ListPreviewJobs", "OK")]
    assert listed["upstream_request_id"]


def _calls(caller: Caller, job_id: str) -> dict[str, Callable[[], Any]]:
    """Starts a call of each method; of a read from the cloud, from the cache, and of a missing job."""
    jobs, own = caller.jobs, {"metadata": caller.metadata, "timeout": 20}
    fresh = own | {"metadata": (*caller.metadata, NO_CACHE)}
    get = pb.GetPreviewJobRequest(bucket=BUCKET, job_id=job_id)
    missing = pb.GetPreviewJobRequest(bucket=BUCKET, job_id="d1")
    batch = pb.BatchGetPreviewJobsRequest(bucket=BUCKET, job_ids=[job_id, "d1"])
    wait = pb.WaitPreviewJobRequest(bucket=BUCKET, job_id=job_id, timeout=Duration())
    watch = pb.WatchPreviewJobRequest(bucket=BUCKET, job_id=job_id)
    many = pb.WatchPreviewJobsRequest(bucket=BUCKET, job_ids=[job_id, "d1"])
    queues = ListPreviewQueuesRequest(bucket=BUCKET)
    return {
        "create": lambda: jobs.CreatePreviewJob(creation("mine/a.pdf"), **own),
        "read": lambda: jobs.GetPreviewJob(get, **fresh),
        "cached": lambda: jobs.GetPreviewJob(get, **own),
        "missing": lambda: jobs.GetPreviewJob(missing, **own),
        "batch": lambda: jobs.BatchGetPreviewJobs(batch, **own),
        "list": lambda: jobs.ListPreviewJobs(first(1), **own),
        "wait": lambda: jobs.WaitPreviewJob(wait, **own),
        "watch": lambda: jobs.WatchPreviewJob(watch, **own),
        "watch many": lambda: jobs.WatchPreviewJobs(many, **own),
        "queues": lambda: caller.queues.ListPreviewQueues(queues, **own),
        "usage": lambda: caller.usage.GetUsage(GetUsageRequest(), **own),
    }


async def _about_the_cloud(call: Any) -> set[str]:
    """What the trailers and the ErrorInfo of a call have about the cloud, by name."""
    if isinstance(call, grpc.aio.UnaryStreamCall):
        assert [reply async for reply in call]
    await call.code()
    trailers = dict(await call.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
    known = {name for packed in status.details if (info := _error_info(packed)) for name in info.metadata}
    return (ABOUT_THE_CLOUD & trailers.keys()) | (known & {"upstream_request_id"})


def _error_info(packed: any_pb2.Any) -> error_details_pb2.ErrorInfo | None:
    info = error_details_pb2.ErrorInfo()
    return info if packed.Unpack(info) else None
