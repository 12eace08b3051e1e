"""Fault campaign that shares everything: ids of several callers have the same documents and outputs, and budgets.

At the same time the vendor's SDK makes jobs of these documents at these outputs, without marker. Jobs are attributed by
the user data that reached the cloud, whether or not its answers show it.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from docpreview.v1.preview_job_pb2 import ObjectLocation
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview.v1.usage_service_pb2 import GetUsageRequest
from docpreview.v1.usage_service_pb2_grpc import UsageServiceStub
from docpreview_emulator import Emulator
from docpreview_emulator import Settings as EmulatorSettings
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.faults import campaign
from tests.faults.campaign import DURABLE, LIST_DELAY, REFUSALS, Clients, Intent, reason_of
from tests.faults.gateway_process import BUCKET, REGION, GatewayProcess
from tests.faults.history import BilledJob, Body, Counted, History, Operation, overspent, violations
from tests.faults.nemesis import Nemesis
from tests.faults.proxy import FaultMix, FlakyProxy
from tests.faults.vendor import vendor_sdk
from tests.integration.identity import Policy, bearer
from tests.machine_clock import MachineClock
from tests.redis_server import running_redis
from tests.unit.emulator.pdf_files import pdf

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

MOST_PAGES = 3
DOCUMENTS = {f"in/{pages}.pdf": pages for pages in range(1, MOST_PAGES + 1)}
OUTPUTS = [f"previews/{name}/${{Number}}.jpg" for name in "abc"]
WAITING = frozenset({"UNAVAILABLE", "LEDGER_UNAVAILABLE", "LIMITER_UNAVAILABLE"})
"""Reasons of a call whose create was not sent, because the gateway or its store could not be reached."""

SETTLED_SECONDS = 330.0
"""Time in which all pages are charged: a job is looked at again after 300 s at the latest, and leases end before."""


@dataclass(frozen=True, slots=True)
class SharingPlan:
    """Parameters of a campaign. One gateway has its records in SQLite, several share a server, which fails as well.

    Without `echo` no store is lost: what was made could not be found again for a day.
    """

    seed: int
    ids: int
    gateways: int = 2
    echo: bool = True
    kills: int = 0
    pauses: int = 0
    store_kills: int = 0
    losses: int = 0
    jumps: int = 0
    full: int = 0
    clients: int = 16

    @property
    def budgets(self) -> dict[str, int | None]:
        """Pages a day of each caller; about half of what the second would need."""
        return {"rich": None, "poor": self.ids // 4 + MOST_PAGES, "leasing": self.ids + 40, "saving": 4 * self.ids}

    @property
    def callers(self) -> dict[str, dict[str, Any]]:
        """What the policy says of each caller."""
        limits: dict[str, dict[str, Any]] = {
            name: {"budget": {"per_day": pages, "estimate": MOST_PAGES}} if pages else {}
            for name, pages in self.budgets.items()
        }
        limits["leasing"]["budget"]["outage_pages"] = 2 * MOST_PAGES
        limits["saving"]["dedupe_seconds"] = 3600
        return limits


@dataclass(frozen=True, slots=True)
class SharingIntent(Intent):
    """An intent with its caller, document and output. Not `named`: a create without `request_id`, tried once."""

    caller: str = ""
    document: str = ""
    output: str = ""
    named: bool = True


@dataclass(slots=True)
class SharingReport:
    """Result of a campaign."""

    plan: SharingPlan
    history: History
    counted: list[Counted]
    foreign: int
    faults: str
    seconds: float

    @property
    def violations(self) -> list[str]:
        """All violated promises."""
        return [*violations(self.history), *overspent(self.counted, exact=self.plan.echo)]

    def __str__(self) -> str:
        ends = Counter(each.outcome for each in self.history.operations)
        finals = Counter(each.reason or "ok" for each in self.history.final)
        pages = ", ".join(f"{each.caller} {each.made} made {each.used} used of {each.budget}" for each in self.counted)
        return (
            f"{self.plan}: {len(self.history.operations)} attempts (ok {ends['ok']}, fail {ends['fail']},"
            f" info {ends['info']}), {len(self.history.jobs)} jobs and {self.foreign} of others; {self.faults};"
            f" {len(self.violations)} violations; {self.seconds:.0f} s\n  {pages}\n  final {dict(finals)}\n  "
            + "\n  ".join(self.violations[:20])
        )


class SharingClients(Clients):
    """Clients of several callers."""

    def __init__(self, addresses: list[str], rng: random.Random, policy: Policy) -> None:
        super().__init__(addresses, rng)
        self._policy = policy
        self.by_id: dict[str, SharingIntent] = {}

    @property
    def alike(self) -> Mapping[str, str]:
        """The group of each id whose caller deduplicates."""
        saving = (each for each in self.by_id.values() if each.caller == "saving")
        return {each.request_id: f"{each.document} {each.output}" for each in saving}

    async def opened(self) -> None:
        """Wait until each gateway can count pages: a store is new, or known, before the first fault."""
        for number in range(len(self._channels)):
            async with asyncio.timeout(30):
                while True:
                    with suppress(grpc.aio.AioRpcError):
                        await self.usage("poor", number)
                        break
                    await asyncio.sleep(0.1)

    async def usage(self, caller: str, gateway: int = 0) -> tuple[int, int]:
        """Pages used and reserved on this day."""
        stub: Any = UsageServiceStub(self._channels[gateway])
        metadata = bearer(self._policy.tokens[caller])
        day = (await stub.GetUsage(GetUsageRequest(), metadata=metadata, timeout=10)).day
        return day.used_pages, day.reserved_pages

    def _intent(self) -> SharingIntent:
        rng = self._rng
        request_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
        named = rng.random() < 0.9
        intent = SharingIntent(
            request_id,
            "missing" if rng.random() < 0.05 else "first",
            rng.randint(1, 5) if named else 1,
            twins=named and rng.random() < 0.2,
            tries_other=named and rng.random() < 0.2,
            caller=rng.choice(list(self._policy.tokens)),
            document=rng.choice(list(DOCUMENTS)),
            output=rng.choice(OUTPUTS),
            named=named,
        )
        self.by_id[request_id] = intent
        return intent

    async def _recorded(self, request_id: str, body: Body, seconds: float) -> Operation:
        """An attempt that is repeated while nothing can be sent for lack of the store."""
        for _ in range(60):
            operation = await super()._recorded(request_id, body, seconds)
            if operation.reason not in WAITING - {"UNAVAILABLE"}:
                break
            await asyncio.sleep(self._rng.uniform(1.0, 3.0))
        return operation

    async def _attempt(self, request_id: str, body: Body, seconds: float) -> Operation:
        now, intent = SystemClock().now, self.by_id[request_id]
        operation = Operation(request_id, body, now())
        request = CreatePreviewJobRequest(
            bucket=BUCKET,
            input_object="in/missing.pdf" if body == "missing" else intent.document,
            output=ObjectLocation(object=intent.output),
            request_id=request_id if intent.named else "",
            user_data=f"id/{request_id}/{body}",
        )
        if body == "other":
            request.options.quality = 50
        stub: Any = self._rng.choice(self._stubs)
        metadata = bearer(self._policy.tokens[intent.caller])
        try:
            job = await stub.CreatePreviewJob(request, timeout=seconds, wait_for_ready=True, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            operation.reason, operation.details = reason_of(error), error.details() or ""
            refused = operation.reason in REFUSALS | {"PAGE_BUDGET_EXHAUSTED"}
            operation.outcome = "fail" if refused else "info"
        else:
            operation.outcome, operation.job_id = "ok", job.job_id
        operation.end = now()
        return operation


@dataclass
class Foreign:
    """Jobs of another program, by the vendor's SDK."""

    emulator: Emulator
    rng: random.Random
    made: set[str] = field(default_factory=set)

    @asynccontextmanager
    async def making(self) -> AsyncIterator[None]:
        """Make a job now and then, while the context lasts."""
        with ThreadPoolExecutor(1) as thread:
            task = asyncio.create_task(self._make(thread))
            try:
                yield
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _make(self, thread: ThreadPoolExecutor) -> None:
        sdk, loop = vendor_sdk(self.emulator.url), asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.rng.uniform(0.2, 1.5))
            document, output = self.rng.choice(list(DOCUMENTS)), self.rng.choice(OUTPUTS)
            place = {"OutputBucket": BUCKET, "OutputRegion": REGION, "OutputObject": output}

            def create(document: str = document, place: dict[str, str] = place) -> str:
                return str(sdk.ci_create_doc_job(Bucket=BUCKET, InputObject=document, **place)["JobsDetail"]["JobId"])

            # The SDK raises errors of many kinds when the cloud's replies are lost.
            with suppress(Exception):
                self.made.add(await loop.run_in_executor(thread, create))


async def run_sharing_campaign(plan: SharingPlan, folder: Path) -> SharingReport:
    """Run a plan, wait until all pages are charged, and compare what was told and counted with the bill."""
    begin, rng = asyncio.get_running_loop().time(), random.Random(plan.seed)  # noqa: S311 - a seed makes it repeatable
    policy = Policy(folder / "policy.yaml")
    for name, limits in plan.callers.items():
        policy.add(name, BUCKET, **limits)
    policy.write()
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(cloud(echo=plan.echo))
        proxy = await stack.enter_async_context(FlakyProxy(emulator.port, rng, FaultMix()))
        store = stack.enter_context(running_redis(folder, *DURABLE)) if plan.gateways > 1 else None
        changes: dict[str, object] = {"policy": {"file": str(policy.path)}}
        if store is not None:
            changes |= {"shared_state": {"url": store.url}, "replicas": plan.gateways}
        clocks = [MachineClock(folder / f"clock-{number}") for number in range(plan.gateways)]
        homes = [folder / f"gateway-{number}" for number in range(plan.gateways)]
        gateways = [GatewayProcess(home, proxy.port, changes) for home in homes]
        for gateway, clock in zip(gateways, clocks, strict=True):
            gateway.variables = clock.variables
        await asyncio.gather(*(stack.enter_async_context(each) for each in gateways))
        clients = SharingClients([each.address for each in gateways], rng, policy)
        await stack.enter_async_context(clients)
        await clients.opened()
        nemesis = Nemesis(emulator, proxy, rng, operations=("create", "list"), empty_pages=True)
        foreign = Foreign(emulator, rng)
        async with foreign.making(), nemesis.faults_injected(), asyncio.TaskGroup() as group:
            for count, fault in (
                (plan.kills, lambda: nemesis.kill(gateways)),
                (plan.pauses, lambda: nemesis.pause(gateways)),
                (plan.jumps, lambda: nemesis.jump(clocks)),
                (plan.full, lambda: nemesis.fill_disk(gateways)),
                (plan.store_kills, lambda: nemesis.kill_store(store)),
                (plan.losses, lambda: nemesis.lose_store(store)),
            ):
                group.create_task(nemesis.repeat(count, fault, clients, plan.ids))
            group.create_task(clients.work(plan.ids, plan.clients))
        history = await judged(plan, emulator, clients)
        counted = await settled(plan, emulator, clients)
        others = sum(not owner(job.spec.user_data)[0] for job in emulator.jobs)
    seconds = asyncio.get_running_loop().time() - begin
    faults = (
        f"{sum(each.kills for each in gateways)} kills, {nemesis.pauses} pauses, {nemesis.store_kills} kills and"
        f" {nemesis.losses} losses of the store, {nemesis.jumps} jumps, {nemesis.full} full disks, {nemesis.faults}"
        f" faults of the cloud, {proxy.held} delays, {proxy.cuts} cuts"
    )
    return SharingReport(plan, history, counted, others, faults, seconds)


async def judged(plan: SharingPlan, emulator: Emulator, clients: SharingClients) -> History:
    """The history with a final attempt of each id that has a `request_id`."""
    await campaign.quiescence(emulator)
    quiescent = attributed(emulator)
    named = [each for each in clients.by_id.values() if each.named]
    clients.intents = list(named)
    final = await campaign.final_attempts(emulator, clients, WAITING)
    ends = {"PAGE_BUDGET_EXHAUSTED"} | (set() if plan.echo else {"CREATE_OUTCOME_AMBIGUOUS"})
    operations, jobs, alike = clients.operations, attributed(emulator), clients.alike
    return History(operations, final, quiescent, jobs, frozenset(ends), alike, store_was_lost=plan.losses > 0)


async def settled(plan: SharingPlan, emulator: Emulator, clients: SharingClients) -> list[Counted]:
    """What is counted and made, as soon as the two agree, or after a time in which they should."""
    loop = asyncio.get_running_loop()
    until = loop.time() + SETTLED_SECONDS
    while True:
        counted = []
        for caller, budget in plan.budgets.items():
            if budget is not None:
                with suppress(grpc.aio.AioRpcError):
                    counted.append(
                        Counted(caller, budget, *await clients.usage(caller), made_by(emulator, clients, caller))
                    )
        if loop.time() > until or (len(counted) == 3 and not overspent(counted, exact=plan.echo)):
            return counted
        await asyncio.sleep(1.0)


def made_by(emulator: Emulator, clients: SharingClients, caller: str) -> int:
    """Pages of all jobs of a caller."""
    pages = 0
    for job in emulator.jobs:
        request_id = owner(job.spec.user_data)[0]
        if request_id and clients.by_id[request_id].caller == caller and job.result is not None:
            pages += len(job.result.pages)
    return pages


def owner(user_data: str | None) -> tuple[str, str]:
    """Id and body of a job by its user data; empty: it is another program's."""
    words = (user_data or "").split(" ")[0].split("/")
    return (words[1], words[2]) if words[0] == "id" else ("", "")


def attributed(emulator: Emulator) -> Mapping[str, BilledJob]:
    """Every job of the gateways' callers."""
    jobs = {}
    for job in emulator.jobs:
        request_id, body = owner(job.spec.user_data)
        if request_id:
            jobs[job.job_id] = BilledJob(request_id, body, job.created)  # type: ignore[arg-type]  # written by this module
    return jobs


@asynccontextmanager
async def cloud(*, echo: bool) -> AsyncIterator[Emulator]:
    """An emulator with documents of one to three pages, which it renders."""
    settings = EmulatorSettings(list_delay=LIST_DELAY, record_limit=1_000_000, echo_user_data=echo)
    async with Emulator(settings=settings) as emulator:
        for document, pages in DOCUMENTS.items():
            emulator.put_object(BUCKET, REGION, document, pdf(pages))
        yield emulator
