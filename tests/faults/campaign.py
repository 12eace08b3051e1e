"""Fault campaign: concurrent creates from many clients, while gateways are killed and everything behind them fails."""

from __future__ import annotations

import asyncio
import random
import re
import uuid
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import grpc
from google.rpc import error_details_pb2, status_pb2

from docpreview.v1.preview_job_pb2 import ObjectLocation
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_emulator import Emulator
from docpreview_emulator import Settings as EmulatorSettings
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.faults.gateway_process import BUCKET, RECONCILED, REGION, GatewayProcess
from tests.faults.history import BilledJob, Body, History, Operation, violations
from tests.faults.nemesis import Nemesis
from tests.faults.proxy import FaultMix, FlakyProxy
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from docpreview_emulator.recording import RequestRecord

DOCUMENT = "a.pdf"
LIST_DELAY = 1.5
FINAL_ROUNDS = 4
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
"""Options of a Redis server that has written a command to disk before it acknowledges it."""

_ID = re.compile(rb"(?:<Object>out|<UserData>id)/([0-9a-f-]{36})/")
"""What names the id of a create: its output path, or in campaigns that share outputs its user data."""

REFUSALS = {
    "REQUEST_ID_REUSED",
    "UPSTREAM_THROTTLED",
    "INPUT_OBJECT_NOT_FOUND",
    "UPSTREAM_INVALID_ARGUMENT",
    "UPSTREAM_ACCESS_DENIED",
    "CLOCK_SKEW",
}
"""Reasons that guarantee that no job was created; every other error counts as `info`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Parameters of a fault campaign; the same seed gives the same choices (not the same interleaving).

    One gateway keeps its ledger in SQLite, several share one in Redis, which is killed `store_kills` times. `pauses`:
    how often a gateway is stopped by SIGSTOP, often for longer than its fence, then continued.
    """

    seed: int
    ids: int
    kills: int
    clients: int = 24
    gateways: int = 1
    store_kills: int = 0
    pauses: int = 0


@dataclass(frozen=True, slots=True)
class Intent:
    """A request id and its attempts. `twins`: two concurrent ones. `tries_other`: another body after the first OK."""

    request_id: str
    body: Body
    attempts: int
    twins: bool
    tries_other: bool


@dataclass(slots=True)
class Report:
    """Result of a fault campaign."""

    plan: Plan
    history: History
    kills: int
    posts: int
    faults: str
    seconds: float

    @property
    def violations(self) -> list[str]:
        return violations(self.history)

    def __str__(self) -> str:
        ends = Counter(each.outcome for each in self.history.operations)
        reasons = Counter(each.reason for each in self.history.operations if each.reason)
        wanted = sum(each.body == "first" for each in self.history.final)
        return (
            f"seed {self.plan.seed}: {self.plan.ids} ids, {len(self.history.operations)} attempts"
            f" (ok {ends['ok']}, fail {ends['fail']}, info {ends['info']}), {self.faults};"
            f" {self.posts} POSTs reached the cloud,"
            f" {len(self.history.jobs)} jobs billed for {wanted} wanted; {len(self.violations)} violations;"
            f" {self.seconds:.0f} s\n"
            f"  {', '.join(f'{name} {count}' for name, count in reasons.most_common())}"
        )


async def run_campaign(plan: Plan, folder: Path, **ledger: float) -> Report:
    """Run a plan, wait until nothing is in flight, make a final attempt of each id, and read the bill."""
    begin = asyncio.get_running_loop().time()
    rng = random.Random(plan.seed)  # noqa: S311 - a seed makes it repeatable
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(cloud())
        proxy = await stack.enter_async_context(FlakyProxy(emulator.port, rng, FaultMix()))
        store = stack.enter_context(running_redis(folder, *DURABLE)) if plan.gateways > 1 else None
        changes = {} if store is None else {"shared_state": {"url": store.url}, "replicas": plan.gateways}
        homes = [folder / f"gateway-{number}" for number in range(plan.gateways)]
        every = (stack.enter_async_context(GatewayProcess(home, proxy.port, changes, **ledger)) for home in homes)
        gateways = await asyncio.gather(*every)
        clients = await stack.enter_async_context(Clients([each.address for each in gateways], rng))
        nemesis = Nemesis(emulator, proxy, rng, operations=("create", "list"))
        async with nemesis.faults_injected(), asyncio.TaskGroup() as group:
            for count, fault in (
                (plan.kills, lambda: nemesis.kill(gateways)),
                (plan.pauses, lambda: nemesis.pause(gateways)),
                (plan.store_kills, lambda: nemesis.kill_store(store)),
            ):
                group.create_task(nemesis.repeat(count, fault, clients, plan.ids))
            group.create_task(clients.work(plan.ids, plan.clients))
        await quiescence(emulator)
        quiescent = attributed(emulator)
        final = await final_attempts(emulator, clients)
        history = History(clients.operations, final, quiescent, attributed(emulator))
        posts = nemesis.posts
    seconds = asyncio.get_running_loop().time() - begin
    kills = sum(each.kills for each in gateways)
    faults = (
        f"{kills} kills, {nemesis.pauses} pauses, {nemesis.store_kills} kills of the store,"
        f" {nemesis.faults} faults of the cloud, {proxy.held} delays, {proxy.cuts} cuts"
    )
    return Report(plan, history, kills, posts, faults, seconds)


async def quiescence(emulator: Emulator) -> None:
    """Wait until fence and visibility of the last POST of any gateway have passed; time out after a minute."""
    clock = SystemClock()
    quiet_since = clock.now()
    async with asyncio.timeout(60):
        while (left := quiet_since + RECONCILED - clock.now()) > 0:
            await asyncio.sleep(left)
            quiet_since = max([quiet_since, *(post.time for post in creates(emulator))])


async def final_attempts(
    emulator: Emulator, clients: Clients, unreached: frozenset[str] = frozenset({"UNAVAILABLE"})
) -> list[Operation]:
    """The final attempt of each id, after which its outcome must be known.

    An attempt that proves that there is no job sends a new POST, which may be lost like any other (the machine may be
    busy). Such an id waits for quiescence again and gets another attempt. So does an attempt that failed with
    UNAVAILABLE in the client's own transport: gRPC's retries, which would repeat it, are switched off in these clients
    (`unreached` are all reasons of this kind). Any other id that is still unknown is a violation.
    """
    final: dict[str, Operation] = {}
    waiting = clients.intents
    for _ in range(FINAL_ROUNDS):
        before = sent_by_id(emulator)
        final |= {each.request_id: each for each in await clients.ask(waiting)}
        sent = sent_by_id(emulator)
        unknown = (each for each in waiting if final[each.request_id].outcome == "info")
        waiting = [
            each
            for each in unknown
            if sent[each.request_id] > before[each.request_id] or final[each.request_id].reason in unreached
        ]
        if not waiting:
            break
        await quiescence(emulator)
    return list(final.values())


def creates(emulator: Emulator) -> list[RequestRecord]:
    """Create requests that reached the cloud, refused ones included."""
    return [request for request in emulator.requests if request.operation == "create"]


def sent_by_id(emulator: Emulator) -> Counter[str]:
    """Number of creates of each `request_id` that reached the cloud."""
    found = (_ID.search(request.body) for request in creates(emulator))
    return Counter(match[1].decode() for match in found if match)


@asynccontextmanager
async def cloud() -> AsyncIterator[Emulator]:
    """An emulator with one document, whose jobs are accepted (and billed) but never rendered."""
    settings = EmulatorSettings(list_delay=LIST_DELAY, record_limit=1_000_000)
    async with Emulator(settings=settings) as emulator:
        emulator.hold_jobs()
        emulator.put_object(BUCKET, REGION, DOCUMENT, b"%PDF-1.4")
        yield emulator


def attributed(emulator: Emulator) -> Mapping[str, BilledJob]:
    """Every billed job, attributed to its id and body by its unique output path."""
    jobs = {}
    for job in emulator.jobs:
        _, request_id, body, _ = job.spec.output.object.split("/")
        jobs[job.job_id] = BilledJob(request_id, body, job.created)  # type: ignore[arg-type]  # written by this module
    return jobs


class Clients:
    """Concurrent clients with retries, and the history of their operations."""

    def __init__(self, addresses: list[str], rng: random.Random) -> None:
        self.operations: list[Operation] = []
        self.intents: list[Intent] = []
        self._begun = 0
        self._progress = asyncio.Event()
        self._addresses = addresses
        self._rng = rng

    async def __aenter__(self) -> Self:
        options = [
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 300),
        ]
        self._channels = [grpc.aio.insecure_channel(address, options) for address in self._addresses]
        self._stubs = [PreviewJobServiceStub(channel) for channel in self._channels]
        return self

    async def __aexit__(self, *_details: object) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def work(self, ids: int, clients: int) -> None:
        """So many ids, by so many clients at a time."""
        self.intents = [self._intent() for _ in range(ids)]
        waiting = iter(self.intents)

        async def client() -> None:
            for intent in waiting:
                self._begun += 1
                self._progress.set()
                await self._pursue(intent)

        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())

    async def reached(self, number: int) -> None:
        """Wait until work on so many ids has begun."""
        while self._begun < number:
            self._progress.clear()
            await self._progress.wait()

    async def ask(self, intents: list[Intent]) -> list[Operation]:
        """One attempt of each, a few at a time."""
        waiting = iter(intents)

        async def client() -> list[Operation]:
            return [await self._attempt(intent.request_id, intent.body, 30.0) for intent in waiting]

        return [answer for answers in await asyncio.gather(*(client() for _ in range(8))) for answer in answers]

    def _intent(self) -> Intent:
        rng = self._rng
        request_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        body: Body = "missing" if rng.random() < 0.1 else "first"
        return Intent(request_id, body, rng.randint(1, 6), rng.random() < 0.2, rng.random() < 0.2)

    async def _pursue(self, intent: Intent) -> None:
        left, accepted = intent.attempts, False
        while left > 0:
            concurrent = min(left, 2 if intent.twins else 1)
            left -= concurrent
            tries = [self._recorded(intent.request_id, intent.body, self._deadline()) for _ in range(concurrent)]
            ended = await asyncio.gather(*tries)
            accepted = accepted or any(each.outcome == "ok" for each in ended)
            if not accepted:
                await asyncio.sleep(self._rng.uniform(0.05, 1.0))
        if accepted and intent.tries_other:
            await self._recorded(intent.request_id, "other", self._deadline())

    def _deadline(self) -> float:
        return self._rng.uniform(0.3, 6.0)

    async def _recorded(self, request_id: str, body: Body, seconds: float) -> Operation:
        operation = await self._attempt(request_id, body, seconds)
        self.operations.append(operation)
        return operation

    async def _attempt(self, request_id: str, body: Body, seconds: float) -> Operation:
        now = SystemClock().now
        operation = Operation(request_id, body, now())
        request = CreatePreviewJobRequest(
            bucket=BUCKET,
            input_object="missing.pdf" if body == "missing" else DOCUMENT,
            output=ObjectLocation(object=f"out/{request_id}/{body}/p-${{Page}}.jpg"),
            request_id=request_id,
        )
        try:
            job = await self._rng.choice(self._stubs).CreatePreviewJob(request, timeout=seconds, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            operation.reason, operation.details = reason_of(error), error.details() or ""
            operation.outcome = "fail" if operation.reason in REFUSALS else "info"
        else:
            operation.outcome, operation.job_id = "ok", job.job_id
        operation.end = now()
        return operation


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The gateway's reason, or the status where the gateway said nothing."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            info = error_details_pb2.ErrorInfo()
            status_pb2.Status.FromString(value).details[0].Unpack(info)
            return str(info.reason)
    return error.code().name
