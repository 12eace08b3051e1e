"""History of the clients' operations, and the checker of the promises I1 to I6.

As in Jepsen: an operation ends `ok`, `fail` (refused for certain) or `info` (unknown: it may take effect later).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Outcome = Literal["ok", "fail", "info"]
Body = Literal["first", "other", "missing"]
"""Body of a create: the id's own, another one with the same id, or one whose document does not exist."""


class BilledJob(NamedTuple):
    """A job on the bill: id and body by its output path (no marker of the gateway is trusted), and creation time."""

    request_id: str
    body: Body
    created: float


@dataclass(slots=True)
class Operation:
    """One attempt of a client; times are Unix seconds, like the cloud's."""

    request_id: str
    body: Body
    begin: float
    end: float = 0.0
    outcome: Outcome = "info"
    job_id: str = ""
    reason: str = ""
    details: str = ""


@dataclass(slots=True)
class History:
    """Operations in order of their begin. `final`: the final attempts. `quiescent`: the jobs before these attempts.

    `ends` are reasons with which a final attempt may end besides OK, `alike` the group of each id whose caller
    deduplicates: it may be told a job of another id of its group.
    """

    operations: list[Operation] = field(default_factory=list)
    final: list[Operation] = field(default_factory=list)
    quiescent: Mapping[str, BilledJob] = field(default_factory=dict)
    jobs: Mapping[str, BilledJob] = field(default_factory=dict)
    ends: frozenset[str] = frozenset()
    alike: Mapping[str, str] = field(default_factory=dict)
    store_was_lost: bool = False
    """Whether the store lost records: ids that deduplication answered are in no list, and forgotten then."""

    def may_tell(self, made: BilledJob, operation: Operation) -> bool:
        """Whether the job is that of the operation's id and body, or of an equal create."""
        group = self.alike.get(operation.request_id, operation.request_id)
        return made.body == operation.body and self.alike.get(made.request_id, made.request_id) == group

    def by_id(self, *, final: bool = True) -> Iterator[tuple[str, list[Operation]]]:
        """The operations of each id."""
        found: dict[str, list[Operation]] = defaultdict(list)
        for operation in [*self.operations, *(self.final if final else ())]:
            found[operation.request_id].append(operation)
        return iter(found.items())


def violations(history: History) -> list[str]:
    """Violated promises, one line each."""
    checks = (
        _one_job_per_id,
        _ok_jobs_exist,
        _one_answer_per_id,
        _other_bodies_refused,
        _nothing_unknown,
        _refused_made_none,
    )
    return [line for check in checks for line in check(history)]


def _one_job_per_id(history: History) -> Iterable[str]:
    jobs: dict[str, list[str]] = defaultdict(list)
    for job_id, made in history.jobs.items():
        jobs[made.request_id].append(job_id)
    return [f"I1 {request_id}: jobs {found}" for request_id, found in jobs.items() if len(found) > 1]


def _ok_jobs_exist(history: History) -> Iterable[str]:
    for request_id, operations in history.by_id():
        for each in operations:
            made = history.jobs.get(each.job_id)
            if each.outcome == "ok" and (made is None or not history.may_tell(made, each)):
                yield f"I2 {request_id}: OK {each.job_id}, which is {made}"


def _one_answer_per_id(history: History) -> Iterable[str]:
    for request_id, operations in history.by_id():
        answers = {each.job_id for each in operations if each.outcome == "ok"}
        if history.store_was_lost:
            made = history.jobs
            answers = {job for job in answers if job not in made or made[job].request_id == request_id}
        if len(answers) > 1:
            yield f"I3 {request_id}: answered {sorted(answers)}"


def _other_bodies_refused(history: History) -> Iterable[str]:
    """Other bodies are sent only after an OK of the first."""
    for request_id, operations in history.by_id():
        for each in operations:
            refused = each.outcome == "info" or (each.outcome, each.reason) == ("fail", "REQUEST_ID_REUSED")
            if each.body == "other" and not refused:
                yield f"I4 {request_id}: another body was answered {each.outcome} {each.reason}"
    yield from (f"I4 {made.request_id}: job {job} of another body" for job, made in _of("other", history.jobs))


def _nothing_unknown(history: History) -> Iterable[str]:
    for each in history.final:
        wanted = "fail" if each.body == "missing" else "ok"
        if each.outcome != wanted and each.reason not in history.ends:
            yield f"I5 {each.request_id}: after the final attempt still {each.outcome} {each.reason} ({each.details})"


def _refused_made_none(history: History) -> Iterable[str]:
    """A refusal promises that no job exists at that moment; as the final operation, that none ever will."""
    quiescent = {made.request_id for made in history.quiescent.values()}
    created = {made.request_id: made.created for made in history.jobs.values()}
    for request_id, operations in history.by_id():
        for each in operations:
            refused = each.outcome == "fail" and each.reason != "REQUEST_ID_REUSED"
            if refused and created.get(request_id, each.begin) < each.begin:
                yield f"I6 {request_id}: {each.reason}, but it had a job"
    for request_id, operations in history.by_id(final=False):
        final = max(operations, key=lambda each: each.begin)
        alone = all(each.end <= final.begin for each in operations if each is not final)
        refused = final.outcome == "fail" and final.reason != "REQUEST_ID_REUSED"
        if alone and refused and request_id in quiescent:
            yield f"I6 {request_id}: the final operation was refused with {final.reason}, but there is a job"
    yield from (f"I6 {of.request_id}: job {job} without document" for job, of in _of("missing", history.jobs))


def _of(body: Body, jobs: Mapping[str, BilledJob]) -> Iterator[tuple[str, BilledJob]]:
    return ((job_id, made) for job_id, made in jobs.items() if made.body == body)


class Counted(NamedTuple):
    """A caller's budget of the day, its pages as the gateway counts them, and those that its jobs made at the cloud."""

    caller: str
    budget: int | None
    used: int
    reserved: int
    made: int


def overspent(counted: Iterable[Counted], *, exact: bool) -> list[str]:
    """Violated promises about pages, one line each.

    P4: no budget is exceeded (no create may make more pages than it asked for). P5: once all has ended pages counted
    are pages made; not `exact`: at least those, where creates stayed ambiguous.
    """
    lines = []
    for each in counted:
        if each.budget is not None and each.made > each.budget:
            lines.append(f"P4 {each.caller}: {each.made} pages of {each.budget}")
        total = each.used if exact else each.used + each.reserved
        if total < each.made or (exact and total > each.made):
            lines.append(f"P5 {each.caller}: {each.used} used, {each.reserved} reserved, {each.made} made")
    return lines
