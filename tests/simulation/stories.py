"""Scripted worlds: one story at a time, with the invariants of the random ones."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import UUID

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.creates.records import Timing
from docpreview_gateway.model.callers import Caller, PageBudget
from docpreview_gateway.upstream.wire.signing import Window
from tests.simulation import virtual_loop
from tests.simulation.cloud import CloudRules
from tests.simulation.schedules import settle
from tests.simulation.world import BUCKET, Violation, World, WorldRules

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.simulation.faults import Fault
    from tests.simulation.replica import Replica

FENCE = 45.0 + 60.0 + 60.0
"""Seconds after which an attempt is decided."""

HOUR = 3600.0


def request(number: int = 0, options: str = "1", *, has_id: bool = True) -> CreatePreviewJobRequest:
    """The create of an id. All have one document and one output place."""
    return CreatePreviewJobRequest(
        bucket=BUCKET.name,
        input_object="a.docx",
        output=ObjectLocation(object="out/${Number}.jpg"),
        options=PreviewOptions(page_ranges=options),
        request_id=str(UUID(int=number + 1)) if has_id else "",
        user_data=f"c{number}",
    )


def budget(pages: int, outage_pages: int = 0, per_month: int | None = None) -> PageBudget:
    return PageBudget(per_day=pages, per_month=per_month, estimate=1, outage_pages=outage_pages)


class Story:
    """A world with two callers, `alice` and `bob`, and two replicas."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.r0, self.r1 = world.replicas

    async def ask(
        self, replica: Replica, create: CreatePreviewJobRequest, *, caller: str = "alice", seconds: float = 15.0
    ) -> str:
        return await self.world.call(replica, caller, create, seconds)

    async def repeat(self, replica: Replica, create: CreatePreviewJobRequest, *, caller: str = "alice") -> str:
        """Repeat a create until it has a job, or an answer that is final."""
        for _ in range(100):
            answer = await self.ask(replica, create, caller=caller)
            if answer.startswith("d0") or answer in {"CREATE_OUTCOME_AMBIGUOUS", "REQUEST_ID_REUSED"}:
                return answer
            await asyncio.sleep(20)
        return answer

    def others_make(self, create: CreatePreviewJobRequest) -> None:
        """Another program makes an equal job, without marker."""
        foreign = CreatePreviewJobRequest()
        foreign.CopyFrom(create)
        foreign.user_data = ""
        self.world.cloud.create(foreign, Window.around(self.world.cloud.now()))

    @property
    def jobs(self) -> int:
        """Jobs of ours."""
        return sum(made.marker is not None for made in self.world.cloud.jobs)

    @staticmethod
    def cut_off(replica: Replica, seconds: float = 1e9) -> None:
        replica.down_until = asyncio.get_running_loop().time() + seconds

    @staticmethod
    def reach(replica: Replica) -> None:
        replica.down_until = 0.0


def tell(
    story: Callable[[Story], Awaitable[None]],
    *faults: Fault,
    cloud: CloudRules | None = None,
    exclusive: bool = False,
    alice: PageBudget | None = None,
    keep: float = 24 * HOUR,
    settles: bool = True,
    pace: float = 2.0,
) -> World:
    """Run a story to its end and check what must hold. Violation."""

    async def whole() -> World:
        rules = WorldRules(
            callers=(Caller("alice", budget=alice), Caller("bob")),
            cloud=cloud or CloudRules(),
            timing=Timing(keep=keep),
            exclusive=exclusive,
            faults=faults,
        )
        world = World(rules)
        world.steady(pace)
        await asyncio.sleep(5)
        try:
            await story(Story(world))
        except AssertionError as error:
            error.add_note(world.report())
            raise
        if settles:
            world.faults.end()
            world.ending_since = asyncio.get_running_loop().time()
            for replica in world.replicas:
                replica.down_until = 0.0
            await settle(world, 2 * HOUR)
        return world

    world = virtual_loop.run(whole())
    if world.violation:
        raise Violation(world.report())
    return world
