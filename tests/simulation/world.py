"""The real code of creates in a simulated world: stores, clouds, clocks and processes that fail, and what must hold.

Invariants (create-protocol): at most one job for a remembered id (P1); the job that a caller is told was made for its
id and request (P2); never "absent" for a job that exists or still comes (P3); pages made within the budget (P4).
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.creates.records import Record, State, Timing
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.storage.background import loop_time
from tests.fakes.creates import MemoryData
from tests.simulation.cloud import Cloud, CloudRules, Made
from tests.simulation.faults import Fault, Faults
from tests.simulation.replica import Replica

if TYPE_CHECKING:
    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.creates.outcomes import Outcome
    from docpreview_gateway.model.callers import Caller
    from docpreview_gateway.upstream.wire.user_data import Marker

BUCKET = Bucket("docs-1250000000", "ap-chongqing", "main")
SECRET = b"0123456789abcdef0123456789abcdef"


class Violation(AssertionError):  # noqa: N818
    """A promise that was broken."""


@dataclass
class WorldRules:
    """All that is decided before a world begins."""

    seed: int = 0
    replicas: int = 2
    callers: tuple[Caller, ...] = ()
    cloud: CloudRules = field(default_factory=CloudRules)
    timing: Timing = field(default_factory=Timing)
    exclusive: bool = False
    faults: tuple[Fault, ...] = ()
    crosses_midnight: bool = False


class World:
    """A world. It has to be made in a running virtual loop."""

    def __init__(self, rules: WorldRules) -> None:
        self.plan = rules
        self.rules = rules.cloud
        self.rng = random.Random(rules.seed)  # noqa: S311
        self.faults = Faults(list(rules.faults))
        self.timing = rules.timing
        self.exclusive = rules.exclusive
        self.bucket = BUCKET
        self.keys = CreateKeys("simulation", [SECRET])
        self.callers = {caller.name: caller for caller in rules.callers}
        self._tags = {self.keys.caller_tag(name): name for name in self.callers}
        self.data = MemoryData() if self.rng.random() < 0.5 else MemoryData(generation="", generations=0)
        self._pace = self.rng.choice((1.0, 8.0, 16.0, 24.0))
        self.log: list[tuple[float, tuple[object, ...]]] = []
        self.violation = ""
        self.lost = self.wiped = self.was_ambiguous = False
        self.ending_since: float | None = None
        self.cloud = Cloud(rules.cloud, self.rng, self.faults, self._made, self.note)
        self._by_key: dict[str, list[Made]] = defaultdict(list)
        self._absent: set[str] = set()
        self.made_pages: dict[str, int] = defaultdict(int)
        self.bound: dict[str, int] = defaultdict(int)
        self.replicas = [Replica(self, f"R{number}") for number in range(rules.replicas)]

    # --- what happens ----------------------------------------------------------------------------------------------

    def note(self, *what: object) -> None:
        """Remember what happened, for the report of a violation."""
        self.log.append((loop_time(), what))

    def latency(self) -> float:
        return self.rng.choice((0.02, 0.1, 0.4))

    def pace(self) -> float:
        """How many times longer than usual the background rounds may pause, so that long ends cost little."""
        since = self.ending_since
        return self._pace if since is None else min(300.0, max(8.0, (loop_time() - since) / 20))

    def steady(self, pace: float) -> None:
        """Background rounds at so many times their usual intervals."""
        self._pace = pace

    def empty_store(self) -> None:
        self.note("the store is emptied")
        self.lost = True
        self.data.empty()

    async def call(self, replica: Replica, caller: str, request: CreatePreviewJobRequest, seconds: float) -> str:
        """Make a create; the job's id, or the name of the error's reason, or "" when its process was killed."""
        call = Call("", loop_time() + seconds, self.callers[caller])
        task = asyncio.ensure_future(replica.creates.create(request, call))
        life = replica.life
        await asyncio.wait((task, life.ended), timeout=seconds + 1, return_when=asyncio.FIRST_COMPLETED)
        name = f"{request.request_id[:4] or request.user_data} {request.input_object} by {caller} at {replica.name}"
        if not task.done():
            if not life.is_over:
                self.violate("a call outlives its deadline:", name)
            return ""
        try:
            job = task.result()
        except GatewayError as error:
            reason = reasons.ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
            self.note(name, "gets", reason)
            return reason
        except BaseException as error:  # noqa: BLE001
            if life.is_over:
                return ""
            self.unexpected(error)
            return "INTERNAL"
        self.note(name, "gets", job.job_id)
        self._told(caller, request, job)
        return job.job_id

    # --- what must hold --------------------------------------------------------------------------------------------

    def violate(self, *what: object) -> None:
        if not self.violation:
            self.violation = " ".join(map(str, what))
            self.note("VIOLATION", *what)

    def unexpected(self, error: BaseException) -> None:
        self.violate("unexpected error", repr(error))

    def _made(self, made: Made) -> None:
        """The cloud has made a job."""
        marker = made.marker
        if marker is None:
            return
        others = self._by_key[marker.key]
        others.append(made)
        if len(others) > 1 and made.created < others[-2].created + self.timing.keep:
            self.violate("TWICE: an id has two jobs,", others[-2].job.job_id, "and", made.job.job_id)
        if _attempt(marker) in self._absent:
            self.violate("ABSENT: an attempt that was concluded absent has a job", made.job.job_id)
        caller = self.callers.get(self._tags.get(marker.caller, ""))
        if caller is None or caller.budget is None:
            return
        self.made_pages[caller.name] += made.pages
        asked = caller.budget.asked(made.job.options)
        self.bound[caller.name] += max(0, made.pages - asked)
        limit = caller.budget.per_month if self.plan.crosses_midnight else caller.budget.per_day
        total = self.made_pages[caller.name]
        # Without echo nothing is known of the pages of an emptied store.
        if limit is not None and total > limit + self.bound[caller.name] and (self.rules.echo or not self.lost):
            self.violate("EXCEEDED:", total, "pages made for", caller.name, "of", limit)

    def concluded(self, record: Record, outcome: Outcome) -> None:
        """A look has come to a conclusion."""
        if outcome.kind != "absent":
            self.was_ambiguous = self.was_ambiguous or outcome.kind == "ambiguous"
            return
        marker = self.keys.marker(record.key, record.body, record.caller, record.nonce)
        self.note("concluded absent:", str(marker)[-12:])
        self._absent.add(_attempt(marker))
        for made in self._by_key[record.key]:
            if made.marker is not None and _attempt(made.marker) == _attempt(marker):
                self.violate("ABSENT: concluded, and it has the job", made.job.job_id)

    def _told(self, caller: str, request: CreatePreviewJobRequest, job: PreviewJob) -> None:
        """A caller is told that this is its job."""
        made = next((made for made in self.cloud.jobs if made.job.job_id == job.job_id), None)
        if made is None or made.marker is None:
            self.violate("OTHERS: told a job that is not ours:", repr(job.job_id))
            return
        key = self.keys.record_keys(caller, request.bucket, request.request_id)[0]
        body = self.keys.marker(key, self.keys.body(request), caller, b"").body
        if request.request_id and (made.marker.key, made.marker.body) == (key, body):
            return
        if not request.request_id and made.text == request.user_data:
            return
        same = (made.job.input.object, made.job.options) == (request.input_object, request.options)
        if self.callers[caller].dedupe_seconds and same and made.marker.caller == self.keys.caller_tag(caller):
            return
        self.violate("OTHERS: told", job.job_id, "that was not made for it")

    def check_counts(self) -> None:
        """After each step of the store: what it counts is within the budget, as long as all was counted before."""
        if self.lost or self.wiped:
            return
        for caller in self.callers.values():
            limit = caller.budget.per_day if caller.budget else None
            day = self.data.day
            if limit is None or not day:
                continue
            held = self.data.pages.get((caller.name, day))
            if held is not None and sum(held) > limit + self.bound[caller.name]:
                self.violate("EXCEEDED:", sum(held), "pages counted for", caller.name, "of", limit)
            if held is not None and min(held) < 0:
                self.violate("COUNT: negative pages of", caller.name, held)

    def check_end(self) -> None:
        """When all has ended: pages counted are pages made."""
        for name, caller in self.callers.items():
            if caller.budget is None:
                continue
            counts = [count for (who, period), count in self.data.pages.items() if who == name and len(period) == 7]
            used, held, made = (
                sum(count.used for count in counts),
                sum(count.held for count in counts),
                self.made_pages[name],
            )
            if self.was_ambiguous or (self.lost and not self.rules.echo):
                continue
            if self.wiped and not self.rules.echo:
                if used + held < made:
                    self.violate("COUNT:", made, "pages made for", name, "but counted", used, "and held", held)
            elif used != made or held:
                self.violate("COUNT:", made, "pages made for", name, "but counted", used, "and held", held)

    def is_quiet(self) -> bool:
        """Whether nothing is open any more."""
        names, data = {replica.lease_name for replica in self.replicas}, self.data
        return (
            bool(data.generation)
            and not data.lost_since
            and not self.cloud.flying
            and all(due.record.state is State.CHARGED for due in data.records.values())
            and all(lease.replica in names for lease in data.leases.values())
            and not any(replica.journal or replica.store.lost for replica in self.replicas)
        )

    def report(self) -> str:
        lines = [f"{at:9.2f}  {' '.join(map(str, what))}" for at, what in self.log]
        return "\n".join([self.violation, f"seed {self.plan.seed}", repr(self.plan), *lines])


def _attempt(marker: Marker) -> str:
    return marker.key + marker.nonce
