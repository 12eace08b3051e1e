"""Random schedules by seed: a world, its calls and its faults, a fair end, and what must hold then."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.creates.records import Timing
from docpreview_gateway.model.callers import Caller, PageBudget
from docpreview_gateway.storage.background import loop_time
from docpreview_gateway.upstream.wire.signing import Window
from tests.simulation import virtual_loop
from tests.simulation.cloud import EPOCH, CloudRules
from tests.simulation.faults import Fault
from tests.simulation.world import BUCKET, Violation, World, WorldRules

STORE_STEPS = ("begin", "begin", "change", "change", "find", "due", "state", "lease", "hand_over", "bound", "advance")
WAYS = ("lost", "late", "reply lost", "failed", "failed and made", "refused", "queue", "unreachable create")
KILLS = ("kill before create", "kill after create", "kill before list_jobs", "kill before get")
LISTS = ("page-empty", "page-cut", "broken list_jobs", "unreachable list_jobs", "broken get")
AT_TIMES = ("down", "down", "empty", "jump", "kill", "wipe")

FINAL = frozenset({"REQUEST_ID_REUSED", "CREATE_OUTCOME_AMBIGUOUS", "PAGE_BUDGET_EXHAUSTED", "PAGE_BUDGET_TOO_SMALL"})


class Planned(NamedTuple):
    """A call, or a fault at a time."""

    at: float
    what: str
    replica: int = 0
    value: float = 0.0
    caller: str = ""
    request: CreatePreviewJobRequest | None = None


@dataclass
class Schedule:
    """A world and what happens in it."""

    rules: WorldRules
    planned: list[Planned]
    patience: float
    """Seconds after which the fair end must have decided every id."""

    def __str__(self) -> str:
        return "\n".join(
            f"  {each.at:7.1f} {each.what} R{each.replica} {each.value:.1f} {each.caller} "
            + " ".join(str(each.request or "").split())
            for each in self.planned
        )


def random_schedule(seed: int) -> Schedule:
    """The schedule of a seed."""
    rng = random.Random(seed)  # noqa: S311
    faults, timed = _faults(rng)
    echo = rng.random() < 0.75
    exclusive = rng.random() < (0.2 if echo else 0.5)
    callers = tuple(_caller(rng, name) for name in ("alice", "bob"))
    midnight = rng.random() < 0.15
    cloud = CloudRules(
        echo=echo,
        visibility=rng.choice((0.0, 30.0, 60.0)),
        page_size=rng.choice((1, 2, 100)),
        skew=rng.choice((0.0, 0.0, 0.0, 30.0, -50.0)),
        pages=2,
        begins_at=EPOCH + (86_400 - rng.uniform(20, 120) if midnight else 36_000.0),
    )
    length = rng.choice((10.0, 60.0, 200.0))
    planned = [*_calls(rng, [caller.name for caller in callers], length), *timed]
    if not exclusive and rng.random() < 0.4:
        planned.append(Planned(rng.uniform(0, length), "foreign", request=_request(rng)))
    keep = 3600.0 if any(each.what == "empty" for each in timed) else 24 * 3600.0
    rules = WorldRules(
        seed=seed,
        callers=callers,
        cloud=cloud,
        timing=Timing(keep=keep),
        exclusive=exclusive,
        faults=tuple(faults),
        crosses_midnight=midnight,
    )
    far = max([abs(fault.value) for fault in faults if fault.kind in {"date", "late"}], default=0.0)
    blind = keep if keep < 24 * 3600 else 0.0
    return Schedule(rules, sorted(planned, key=lambda each: each.at), 1800.0 + far + 2.5 * blind)


def _caller(rng: random.Random, name: str) -> Caller:
    budget = None
    if rng.random() < 0.6:
        day = rng.choice((2, 4, 6))
        budget = PageBudget(
            per_day=day,
            per_month=day + rng.choice((0, 2)),
            estimate=rng.choice((1, 2, 4)),
            outage_pages=rng.choice((0, 2, 4)),
        )
    return Caller(name, budget=budget, dedupe_seconds=rng.choice((0.0, 0.0, 600.0)))


def _request(rng: random.Random, request_id: str = "", text: str = "") -> CreatePreviewJobRequest:
    output = rng.choice(("out/a-${Number}.jpg", "out/a-${Number}.jpg", "out/${RequestToken}-${Number}.jpg"))
    return CreatePreviewJobRequest(
        bucket=BUCKET.name,
        input_object=rng.choice(("a.docx", "a.docx", "b.docx")),
        output=ObjectLocation(object=output),
        options=PreviewOptions(page_ranges=rng.choice(("", "1", "1-2"))),
        request_id=request_id,
        user_data=text,
    )


def _calls(rng: random.Random, callers: list[str], length: float) -> list[Planned]:
    planned = []
    for number in range(rng.randint(2, 4)):
        caller, has_id = rng.choice(callers), rng.random() < 0.7
        request_id = str(UUID(int=rng.getrandbits(128))) if has_id else ""
        bodies = [_request(rng, request_id, f"c{number}") for _ in range(rng.choice((1, 1, 1, 2, 3)) if has_id else 1)]
        start = rng.uniform(0, length)
        for body in bodies:
            for _ in range(rng.randint(1, 3) if has_id else 1):
                at = start + rng.choice((0.0, rng.uniform(0, 2), rng.uniform(0, 60), rng.uniform(0, 300)))
                planned.append(Planned(at, "call", rng.randrange(2), rng.choice((2.0, 10.0, 40.0)), caller, body))
    return planned


def _faults(rng: random.Random) -> tuple[list[Fault], list[Planned]]:  # noqa: C901, PLR0912
    faults, timed = list[Fault](), list[Planned]()
    lied = False
    for _ in range(rng.randint(1, 3)):
        group = rng.randrange(6)
        if group == 0:
            how = rng.choice(("fail before", "fail after", "kill before", "kill after", "stall", "slow answer"))
            fault = Fault(f"{how} {rng.choice(STORE_STEPS)}", rng.randrange(4), rng.choice((5.0, 20.0, 100.0)))
        elif group in {1, 2}:
            way = rng.choice(WAYS)
            late = rng.choice((3.0, rng.uniform(10, 50), rng.uniform(40, 130), rng.uniform(100, 3600)))
            fault = Fault(way, rng.randrange(3), rng.uniform(1, 60) if way == "queue" else late)
        elif group == 3:
            fault = Fault(rng.choice(KILLS), rng.randrange(3))
        elif group == 4:
            fault = Fault(rng.choice((*LISTS, "date", "date", "journal fails")), rng.randrange(6))
            if fault.kind == "date":
                if lied:
                    continue
                lied = True
                fault.value = rng.choice((-1, 1)) * rng.choice((90.0, 400.0, 5000.0, 90_000.0))
        else:
            what, value = rng.choice(AT_TIMES), rng.uniform(5, 150)
            if what == "jump":
                value = rng.choice((-90_000.0, 90_000.0))
            timed.append(Planned(rng.uniform(0, 200), what, rng.randrange(2), value))
            continue
        faults.append(fault)
    return faults, timed


def run_schedule(schedule: Schedule) -> World:
    """Run it. Violation, with the seed, the schedule and what happened."""
    world = virtual_loop.run(_run(schedule))
    if world.violation:
        raise Violation(f"{world.report()}\nschedule:\n{schedule}")
    return world


async def _run(schedule: Schedule) -> World:
    world = World(schedule.rules)
    decided: dict[bytes, str] = {}
    calls = [asyncio.ensure_future(_happen(world, each, decided)) for each in schedule.planned]
    await asyncio.wait(calls)
    for task in calls:
        task.result()
    await fair_end(world, schedule, decided)
    return world


async def _happen(world: World, each: Planned, decided: dict[bytes, str]) -> None:  # noqa: C901, PLR0912 - a table of what may happen
    await asyncio.sleep(each.at)
    replica = world.replicas[each.replica]
    if each.what == "call" and each.request is not None:
        if replica.is_up:
            await _ask(world, each, decided)
    elif each.what == "foreign" and each.request is not None:
        world.cloud.create(each.request, Window.around(world.cloud.now() + world.rules.skew))
    elif each.what == "down":
        world.note(replica.name, "cannot reach the store for", each.value)
        replica.down_until = loop_time() + each.value
    elif each.what == "empty":
        # Without echo a replica that never saw the store takes an empty one for a new one (docs/creates.md).
        if world.rules.echo or all(each.memory.value.generation for each in world.replicas):
            world.empty_store()
    elif each.what == "jump":
        world.note("wall clock jumps of", replica.name, each.value)
        replica.wall.time += each.value
    elif each.what in {"kill", "wipe"}:
        replica.life.kill()
        if each.what == "wipe":
            replica.wipe()


async def _ask(world: World, each: Planned, decided: dict[bytes, str]) -> None:
    request = each.request
    assert request is not None
    replica = world.replicas[each.replica]
    result = await world.call(replica, each.caller, request, each.value)
    if result in FINAL or result.startswith("d0"):
        decided[_name(each)] = result


def _name(each: Planned) -> bytes:
    assert each.request is not None
    return each.caller.encode() + each.request.SerializeToString(deterministic=True)


async def fair_end(world: World, schedule: Schedule, decided: dict[bytes, str]) -> None:
    """Nothing fails any more, callers repeat until each id is decided, and the background rounds go on."""
    world.faults.end()
    world.ending_since = start = loop_time()
    world.note("the fair end begins")
    for replica in world.replicas:
        replica.down_until = 0.0
        if not replica.is_up:
            replica.start()
    asked = [each for each in schedule.planned if each.what == "call" and each.request and each.request.request_id]
    pause = 5.0
    while not world.violation:
        left = list({_name(each): each for each in asked if _name(each) not in decided}.values())
        if not left:
            break
        if loop_time() - start > schedule.patience:
            world.violate("STUCK: ids that are not decided:", len(left))
            return
        for each in left:
            await _ask(world, each._replace(value=12.0, replica=world.rng.randrange(len(world.replicas))), decided)
        await asyncio.sleep(pause)
        pause = min(600.0, pause * 1.3)
    await settle(world, schedule.patience + 3600.0)


async def settle(world: World, patience: float) -> None:
    """Wait until all has ended, and compare what is counted with what was made."""
    until = loop_time() + patience
    while not world.violation and not world.is_quiet() and loop_time() < until and not world.was_ambiguous:  # noqa: ASYNC110
        await asyncio.sleep(30 * world.pace())
    for replica in world.replicas:
        await replica.end()
    if not world.is_quiet() and not world.was_ambiguous:
        world.violate("STUCK: records that are not settled:", len(world.data.records))
    world.check_end()


def run_seed(seed: int) -> World:
    return run_schedule(random_schedule(seed))
