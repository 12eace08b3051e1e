"""Many creates from many clients, while the gateway is killed and everything behind it misbehaves."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.rpc import error_details_pb2, status_pb2

from docpreview.v1.preview_job_pb2 import ObjectLocation
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_emulator import Emulator
from docpreview_emulator import Settings as EmulatorSettings
from docpreview_gateway.adapters.system_clock import SystemClock
from tests.faults.gateway_process import BUCKET, REGION, SETTLED, GatewayProcess
from tests.faults.history import Body, History, Made, Operation, violations
from tests.faults.proxy import FlakyProxy, Weather

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

DOCUMENT = "a.pdf"
LIST_DELAY = 1.5
FOUL = Weather(hold=0.05, longest=9.0, cut=0.02)
"""Some requests are held up for longer than their signature lasts."""

REFUSALS = {
    "REQUEST_ID_REUSED",
    "UPSTREAM_THROTTLED",
    "INPUT_OBJECT_NOT_FOUND",
    "UPSTREAM_INVALID_ARGUMENT",
    "UPSTREAM_ACCESS_DENIED",
    "CLOCK_SKEW",
}
"""Reasons that promise that nothing was made; every other error is `info`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A storm; the same seed gives the same choices (not the same interleaving)."""

    seed: int
    ids: int
    kills: int
    clients: int = 24


@dataclass(frozen=True, slots=True)
class Intent:
    """An id and what a client does with it. `twins`: attempts go out two at a time."""

    request_id: str
    body: Body
    attempts: int
    twins: bool
    tries_other: bool


@dataclass(slots=True)
class Outcome:
    """What is left of a storm."""

    plan: Plan
    history: History
    kills: int
    posts: int
    faults: int
    held: int
    cuts: int
    seconds: float

    @property
    def violations(self) -> list[str]:
        return violations(self.history)

    def __str__(self) -> str:
        ends = Counter(each.outcome for each in self.history.operations)
        reasons = Counter(each.reason for each in self.history.operations if each.reason)
        wanted = sum(each.body == "first" for each in self.history.last)
        return (
            f"seed {self.plan.seed}: {self.plan.ids} ids, {len(self.history.operations)} attempts"
            f" (ok {ends['ok']}, fail {ends['fail']}, info {ends['info']}), {self.kills} kills, {self.faults} faults,"
            f" {self.held} delays, {self.cuts} cuts; {self.posts} POSTs reached the cloud,"
            f" {len(self.history.jobs)} jobs billed for {wanted} wanted; {len(self.violations)} violations;"
            f" {self.seconds:.0f} s\n"
            f"  {', '.join(f'{name} {count}' for name, count in reasons.most_common())}"
        )


async def storm(plan: Plan, folder: Path, **ledger: float) -> Outcome:
    """Run a plan, let everything come to rest, retry each id once more, and look at the bill."""
    begin = asyncio.get_running_loop().time()
    chance = random.Random(plan.seed)  # noqa: S311 - a seed makes it repeatable
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(cloud())
        proxy = await stack.enter_async_context(FlakyProxy(emulator.port, chance, Weather()))
        gateway = await stack.enter_async_context(GatewayProcess(folder, proxy.port, None, **ledger))
        clients = await stack.enter_async_context(Clients(gateway.address, chance))
        nemesis = Nemesis(emulator, proxy, chance, operations=("create", "list"))
        async with nemesis.foul(), asyncio.TaskGroup() as group:
            group.create_task(nemesis.kill(gateway, clients, plan))
            group.create_task(clients.work(plan.ids, plan.clients))
        await asyncio.sleep(SETTLED)
        rested = attributed(emulator)
        await clients.ask_once_more()
        history = History(clients.operations, clients.last, rested, attributed(emulator))
        posts = nemesis.posts
    seconds = asyncio.get_running_loop().time() - begin
    return Outcome(plan, history, gateway.kills, posts, nemesis.faults, proxy.held, proxy.cuts, seconds)


@asynccontextmanager
async def cloud() -> AsyncIterator[Emulator]:
    """An emulator with one document, whose jobs are billed but not worked on."""
    settings = EmulatorSettings(list_delay=LIST_DELAY, record_limit=1_000_000)
    async with Emulator(settings=settings) as emulator:
        emulator.hold_jobs()
        emulator.put_object(BUCKET, REGION, DOCUMENT, b"%PDF-1.4")
        yield emulator


def attributed(emulator: Emulator) -> Mapping[str, Made]:
    """Every job on the bill, by the output path that only one id and body has."""
    jobs = {}
    for job in emulator.jobs:
        _, request_id, body, _ = job.spec.output.object.split("/")
        jobs[job.job_id] = Made(request_id, body, job.created)  # type: ignore[arg-type]  # we wrote it
    return jobs


class Clients:
    """Concurrent clients with retries, and the history of what they saw."""

    def __init__(self, address: str, chance: random.Random) -> None:
        self.operations: list[Operation] = []
        self.last: list[Operation] = []
        self._begun = 0
        self._progress = asyncio.Event()
        self._address = address
        self._chance = chance
        self._intents: list[Intent] = []

    async def __aenter__(self) -> Self:
        options = [
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 300),
        ]
        self._channel = grpc.aio.insecure_channel(self._address, options)
        self._stub = PreviewJobServiceStub(self._channel)
        return self

    async def __aexit__(self, *_details: object) -> None:
        await self._channel.close()

    async def work(self, ids: int, clients: int) -> None:
        """So many ids, by so many clients at a time."""
        self._intents = [self._intent() for _ in range(ids)]
        waiting = iter(self._intents)

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

    async def ask_once_more(self) -> None:
        """One last attempt of each id, a few at a time."""
        waiting = iter(self._intents)

        async def client() -> None:
            for intent in waiting:
                self.last.append(await self._attempt(intent.request_id, intent.body, 30.0))

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(client())

    def _intent(self) -> Intent:
        chance = self._chance
        request_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
        body: Body = "missing" if chance.random() < 0.1 else "first"
        return Intent(request_id, body, chance.randint(1, 6), chance.random() < 0.2, chance.random() < 0.2)

    async def _pursue(self, intent: Intent) -> None:
        left, accepted = intent.attempts, False
        while left > 0:
            at_once = min(left, 2 if intent.twins else 1)
            left -= at_once
            tries = [self._recorded(intent.request_id, intent.body, self._deadline()) for _ in range(at_once)]
            ended = await asyncio.gather(*tries)
            accepted = accepted or any(each.outcome == "ok" for each in ended)
            if not accepted:
                await asyncio.sleep(self._chance.uniform(0.05, 1.0))
        if accepted and intent.tries_other:
            await self._recorded(intent.request_id, "other", self._deadline())

    def _deadline(self) -> float:
        return self._chance.uniform(0.3, 6.0)

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
            job = await self._stub.CreatePreviewJob(request, timeout=seconds, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            operation.reason = reason_of(error)
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


class Nemesis:
    """Breaks what stands behind the clients: answers of the emulator, and connections to it."""

    def __init__(
        self, emulator: Emulator, proxy: FlakyProxy, chance: random.Random, *, operations: tuple[str, ...]
    ) -> None:
        self.faults = 0
        self._operations = operations
        self._emulator = emulator
        self._proxy = proxy
        self._chance = chance

    @property
    def posts(self) -> int:
        """Creates that reached the emulator, refused ones included."""
        return sum(request.operation == "create" for request in self._emulator.requests)

    @asynccontextmanager
    async def foul(self) -> AsyncIterator[None]:
        """Foul weather inside; everything held up has arrived when this ends."""
        self._proxy.weather = FOUL
        faults = asyncio.create_task(self._add_faults())
        try:
            yield
        finally:
            faults.cancel()
            await asyncio.gather(faults, return_exceptions=True)
        self._proxy.weather = Weather()
        self._emulator.clear_faults()
        await self._proxy.delivered()

    async def kill(self, gateway: GatewayProcess, clients: Clients, plan: Plan) -> None:
        """Kills spread over the ids, each at a random moment."""
        for number in range(plan.kills):
            await clients.reached(plan.ids * number // plan.kills)
            await asyncio.sleep(self._chance.uniform(0, 1.0))
            await gateway.restart()

    async def _add_faults(self) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(0.02, 0.2))
            if len(self._emulator.faults) < 10:
                operation = self._chance.choice(self._operations)
                self._emulator.add_fault(operation=operation, **self._fault())
                self.faults += 1

    def _fault(self) -> dict[str, Any]:
        kinds: list[dict[str, Any]] = [
            {"kind": "latency", "seconds": self._chance.uniform(0.1, 4.0)},
            {"kind": "drop_before"},
            {"kind": "drop_after"},
            {"kind": "error"},
            {"kind": "error", "accepted": True},
            {"kind": "error", "status": 503, "code": "ServiceUnavailable", "accepted": True},
            {"kind": "throttle"},
            {"kind": "truncate"},
            {"kind": "garbage"},
            {"kind": "drip", "seconds": self._chance.uniform(0.5, 4.0)},
        ]
        return {"times": self._chance.randint(1, 3), **self._chance.choice(kinds)}
