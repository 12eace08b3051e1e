"""Creates: at most one job for a `request_id`, the same job for equal documents, and page budgets, by one record each.

A create is admitted once. If it needs a record, that is begun in one round trip before the first byte of the request is
sent; what the cloud answers is recorded in another. Creates that need none carry a marker all the same.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from docpreview_gateway.creates import pages, refusals
from docpreview_gateway.creates.attempts import ATTEMPT_SECONDS, Decided, Work
from docpreview_gateway.creates.drafts import has_promise
from docpreview_gateway.creates.keys import UNRECORDED, random_key, same_body
from docpreview_gateway.creates.pages import PageCount
from docpreview_gateway.creates.ports import Begun, Change, StoreError
from docpreview_gateway.creates.records import State
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.storage.background import BackgroundTasks, loop_time
from docpreview_gateway.upstream.operations import CreateJob
from docpreview_gateway.upstream.wire.user_data import TOKEN_PLACEHOLDER, marked

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.access.bucket_registry import Admitted, BucketRegistry
    from docpreview_gateway.creates.attempts import Attempts
    from docpreview_gateway.creates.days import Days
    from docpreview_gateway.creates.drafts import Drafts
    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.creates.leases import PageLeases
    from docpreview_gateway.creates.lists import JobHistory
    from docpreview_gateway.creates.outcomes import Outcomes
    from docpreview_gateway.creates.ports import CreatesTelemetry, CreateStore
    from docpreview_gateway.creates.records import Record
    from docpreview_gateway.creates.rendered import RenderedJobs
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.upstream.cloud_clock import CloudTimes
    from docpreview_gateway.upstream.operations import Upstream

log = structlog.get_logger("docpreview_gateway.creates")

STALE_DATE_SECONDS = 60.0
"""Age of the last `Date` beyond which the cloud is asked for another before a period's budget refuses a create."""

WAIT_SHARE = 0.5
"""Share of the time until the caller's deadline for which a create waits for an equal one in this process."""

OCCUPIED_SECONDS = 0.5
"""Between two looks whether another create at the same output has ended."""

OVERDUE_SECONDS = 60.0
"""After the time at which the outcome of a create can be told, until others at its output go on without waiting."""


class RecordedCreates:
    """The port `Creates`. `unsafe` says why creates with `request_id` are refused; empty: they are not."""

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        upstream: Upstream,
        buckets: BucketRegistry,
        store: CreateStore,
        attempts: Attempts,
        *,
        outcomes: Outcomes,
        drafts: Drafts,
        rendered: RenderedJobs,
        history: JobHistory,
        leases: PageLeases,
        days: Days,
        keys: CreateKeys,
        times: CloudTimes,
        telemetry: CreatesTelemetry,
        unsafe: Callable[[], str] = str,
    ) -> None:
        self._upstream = upstream
        self._buckets = buckets
        self._store = store
        self._attempts = attempts
        self._outcomes = outcomes
        self._drafts = drafts
        self._rendered = rendered
        self._history = history
        self._leases = leases
        self._days = days
        self._keys = keys
        self._times = times
        self._telemetry = telemetry
        self._unsafe = unsafe
        self._background = BackgroundTasks()
        self._running: dict[str, _Running] = {}
        self._at_place: dict[str, asyncio.Task[PreviewJob]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def create(self, request: CreatePreviewJobRequest, call: Call) -> PreviewJob:
        """Submit a job, or return the one that an equal create has submitted: of its id, or of its document's content.

        CREATE_OUTCOME_UNKNOWN when it may have been accepted; PAGE_BUDGET_EXHAUSTED and PAGE_BUDGET_TOO_SMALL when the
        caller's budget has too few pages left, or has too few at all.
        """
        admitted = self._buckets.admit_create(request, call.caller)
        if not self._needs_record(request, admitted.bucket, call):
            return await self._send_unrecorded(admitted, call)
        await self._hear(admitted.bucket, call)
        record = self._drafts.record(request, admitted, call.caller, self._days.current(admitted.bucket.ci_host))
        running = self._running.get(record.key) or self._start(Work(request, admitted, call, record))
        if running.body != record.body:
            raise refusals.reused()
        return await self._result(running, call)

    async def drained(self) -> None:
        """Wait until no recorded create is in flight in this process."""
        await self._background.drain()
        await self._attempts.drained()

    def _needs_record(self, request: CreatePreviewJobRequest, bucket: Bucket, call: Call) -> bool:
        caller = call.caller
        counted = caller.budget is not None or caller.dedupe_seconds > 0
        # Without an echo of user data an unmarked job may be anybody's: all of ours are recorded then.
        return has_promise(request) or counted or not self._history.echoes(bucket)

    async def _send_unrecorded(self, admitted: Admitted, call: Call) -> PreviewJob:
        request, bucket, output = admitted
        key = random_key()
        marker = self._keys.marker(key, self._keys.body(request), call.caller.name, UNRECORDED)
        sent = marked(request, marker, self._keys.path_token(key))
        return await self._upstream(CreateJob(sent, bucket, output), call)

    async def _hear(self, bucket: Bucket, call: Call) -> None:
        """Nothing is signed for a record before the cloud's time is known: our own clock may be hours ahead."""
        host = bucket.ci_host
        if self._times.heard(host) is not None:
            return
        task = self._asking.get(host)
        if task is None:
            task = self._asking[host] = self._background.start(self._history.hear(bucket), "ask for the cloud's time")
            task.add_done_callback(lambda _task: self._asking.pop(host, None))
        await asyncio.wait((task,), timeout=call.answer_by - loop_time())
        if not task.done():
            raise refusals.not_sent()
        # A refusal has a `Date` too. It is not the create's: that may have a job already.
        if self._times.heard(host) is None and (error := task.exception()) is not None:
            raise error.with_traceback(None)

    def _start(self, work: Work) -> _Running:
        key = work.record.key
        task = self._background.start(self._run(work), "recorded create")
        running = self._running[key] = _Running(task, work)
        task.add_done_callback(lambda _task: self._running.pop(key))
        return running

    async def _result(self, running: _Running, call: Call) -> PreviewJob:
        """What the task of a create comes to, within the call.

        When nobody waits any more and nothing has been sent, the task ends. After the first byte it goes on, because
        its outcome would be unknown otherwise.
        """
        running.waiting += 1
        try:
            await asyncio.wait((running.task,), timeout=call.answer_by - loop_time())
            if running.task.done():
                if running.task.cancelled():
                    raise refusals.not_sent()
                if (error := running.task.exception()) is not None:
                    raise error.with_traceback(None)
                return running.task.result()
            if not running.work.has_begun:
                raise refusals.not_sent()
            if running.work.unseen is None and running.work.original.request_id:
                raise refusals.in_progress()
            raise self._attempts.unknown(running.work.unseen or running.work.record, running.work)
        finally:
            call.response.upstream_request_id = running.work.call.response.upstream_request_id
            running.waiting -= 1
            if not running.waiting and not running.work.has_begun:
                running.task.cancel()

    async def _run(self, work: Work) -> PreviewJob:
        await self._wait_for_equal(work)
        place, task = work.record.place, asyncio.current_task()
        if work.call.caller.dedupe_seconds > 0 and task is not None:
            self._at_place[place] = task
        try:
            return await self._complete(work)
        finally:
            if self._at_place.get(place) is task:
                del self._at_place[place]

    async def _wait_for_equal(self, work: Work) -> None:
        """Wait for a create in flight in this process at the same output place, if its job may answer this one."""
        if (other := self._at_place.get(work.record.place)) is not None and work.call.caller.dedupe_seconds > 0:
            left = work.call.deadline - loop_time()
            await asyncio.wait((other,), timeout=WAIT_SHARE * left)

    async def _complete(self, work: Work) -> PreviewJob:
        """Begin the record, and do what follows from what stands."""
        until = loop_time() + ATTEMPT_SECONDS
        work.record = await self._as_recorded(work)
        work.record = await self._rendered.with_content(work)
        dedupe = bool(work.record.render) and not work.call.no_cache
        has_token = TOKEN_PLACEHOLDER in work.admitted.request.output.object
        work.alone = self._is_told_by_place(work.admitted.bucket) and not has_token
        while True:
            begun_at = self._times.elapsed()
            begun = await self._begin(work, dedupe=dedupe)
            if begun is None:
                return await self._attempts.send(work, begun_at)
            try:
                job, dedupe = await self._follow(begun, work, begun_at, dedupe=dedupe)
            except Decided:
                job = None
            if job is not None:
                return job
            if loop_time() > until:
                raise refusals.occupied() if begun.outcome == "occupied" else refusals.in_progress()

    async def _as_recorded(self, work: Work) -> Record:
        """The work's record; with the key of another secret if its id goes by its record under that one."""
        keys = self._drafts.all_keys(work.original, work.call.caller)
        if not keys:
            return work.record
        try:
            found = await self._store.find(keys)
        except StoreError as error:
            raise refusals.not_recordable(error) from None
        standing = self._drafts.standing(found)
        return work.record if standing is None else self._drafts.as_recorded(work.record, standing, work.original)

    async def _follow(
        self, begun: Begun, work: Work, begun_at: float, *, dedupe: bool
    ) -> tuple[PreviewJob | None, bool]:
        """The job that follows from what `begin` found, and whether to deduplicate if there is none yet."""
        standing = begun.record
        if begun.outcome == "new":
            return await self._attempts.send(work, begun_at), dedupe
        if standing is None or begun.outcome == "occupied":
            await self._make_room(begun, work)
            return None, dedupe
        if begun.outcome == "duplicate":
            return await self._reuse(standing, work), False
        if not same_body(standing.body, self._drafts.body_under(standing, work)):
            raise refusals.reused()
        if standing.state is not State.OPEN:
            return await self._replay(standing, work), dedupe
        return await self._attempts.follow(work, standing), dedupe

    async def _make_room(self, begun: Begun, work: Work) -> None:
        """Do away with what is in the way of the record, as far as that is possible, or raise."""
        if begun.outcome in {"day", "month"}:
            await self._refuse(begun, work)
        elif begun.record is not None:
            await self._give_way(begun.record, work)
        else:
            work.record = self._drafts.on_day(work.record, begun.day, self._times.now(work.admitted.bucket.ci_host))

    async def _give_way(self, standing: Record, work: Work) -> None:
        """Wait for the create that is open at the output place, which another replica may have sent."""
        if self._times.now(work.admitted.bucket.ci_host) > self._attempts.due_at(standing) + OVERDUE_SECONDS:
            # What became of it could not be found out, and perhaps never will be.
            work.alone = False
            return
        if loop_time() + OCCUPIED_SECONDS > work.call.answer_by:
            raise refusals.occupied()
        await asyncio.sleep(OCCUPIED_SECONDS)

    def _is_told_by_place(self, bucket: Bucket) -> bool:
        """Whether a lost job is told by its document and output alone: no other program makes any, and no marker is."""
        return bucket.exclusive and not self._history.echoes(bucket)

    async def _replay(self, standing: Record, work: Work) -> PreviewJob:
        """The job of a create that was repeated."""
        if not standing.job_id:
            # Its job could never be told from others, and what was reserved is charged.
            raise refusals.ambiguous((), work.call.caller)
        self._telemetry.ledger("replayed")
        job = await self._rendered.answer(standing, work)
        await self._promise(work, job)
        return job

    async def _promise(self, work: Work, job: PreviewJob) -> None:
        """Keep that the create's webhook is to be told, of a job that another create has made."""
        try:
            await self._outcomes.promise(work.call.caller.name, work.original.webhook, job)
        except StoreError as error:
            raise refusals.not_recordable(error) from None

    async def _begin(self, work: Work, *, dedupe: bool) -> Begun | None:
        """What the store says; None when the create goes on without it: unrecorded, or paid from a lease."""
        caller, bucket = work.call.caller, work.admitted.bucket
        now = self._times.now(bucket.ci_host)
        # A new window with every try: the record is not in the store yet.
        work.record = self._drafts.opened(work.record, now)
        budget = None if caller.shadow else caller.budget
        since = now - caller.dedupe_seconds if dedupe else None
        if has_promise(work.original) and (why := self._unsafe()):
            raise refusals.not_recordable(StoreError(why))
        try:
            await self._days.move_on(bucket.ci_host)
            if (old_key := self._drafts.old_key(work, now)) and (old := (await self._store.find([old_key]))[0]):
                return Begun("known", old, PageCount(), "")
            look_at = self._attempts.due_at(work.record)
            begun = await self._store.begin(work.record, look_at, budget, dedupe_since=since, alone=work.alone)
        except asyncio.CancelledError:
            self._attempts.release_later(work)
            raise
        except StoreError as error:
            await self._without_store(work, error)
            return None
        self._days.learn(begun.day)
        self._count_decision(begun, work)
        return begun

    async def _without_store(self, work: Work, error: StoreError) -> None:
        """Let the create pass if nothing that it was promised is lost, or raise."""
        caller, bucket = work.call.caller, work.admitted.bucket
        # Where jobs without marker are told by their place, one without a record would be taken for another create's.
        if has_promise(work.original) or self._is_told_by_place(bucket):
            # It may have been begun, and is not sent: nobody should have to wait for its signature to end.
            self._attempts.release_later(work)
            raise refusals.not_recordable(error, has_id=has_promise(work.original)) from None
        work.stored = False
        if caller.budget is None:
            # Its marker says so: a job that no record knows is no loss then.
            work.record = replace(work.record, nonce=UNRECORDED)
        if caller.budget is None or caller.shadow:
            self._telemetry.limit(caller.name, "page_budget", "degraded")
            return
        if not await self._leases.spend(work.record):
            self._telemetry.limit(caller.name, "page_budget", "refused")
            raise refusals.not_countable(error) from None
        self._telemetry.limit(caller.name, "page_budget", "degraded")

    def _count_decision(self, begun: Begun, work: Work) -> None:
        caller = work.call.caller
        if begun.outcome != "new":
            return
        self._leases.spent_with(caller, begun.day)
        if caller.budget is None:
            return
        over = caller.shadow and pages.refusing(0, begun.pages, caller.budget) is not None
        self._telemetry.limit(caller.name, "page_budget", "shadowed" if over else "allowed")

    async def _refuse(self, begun: Begun, work: Work) -> None:
        """Raise the budget's refusal, unless the cloud's time is not fresh: then ask for it, and begin again."""
        bucket, caller = work.admitted.bucket, work.call.caller
        heard = self._times.heard(bucket.ci_host)
        if heard is not None and self._times.elapsed() - heard.at > STALE_DATE_SECONDS:
            try:
                await self._history.hear(bucket)
            except GatewayError as error:
                log.info("the cloud's time is not fresh, and a budget refuses by it", error=error.message)
            else:
                return
        self._telemetry.limit(caller.name, "page_budget", "refused")
        limits = caller.budget
        if limits is None:
            raise AssertionError
        raise refusals.budget(begun, work.record, limits, self._times.now(bucket.ci_host))

    async def _reuse(self, standing: Record, work: Work) -> PreviewJob | None:
        """The job that rendered the same content to the same place; None when it cannot be used any more."""
        job = await self._rendered.usable(standing, work)
        if job is None:
            return None
        await self._promise(work, job)
        if work.original.request_id:
            alias = self._drafts.alias(work.record, job, standing)
            try:
                (made,) = await self._store.change([Change(None, alias, alias.expires_at)])
            except StoreError as error:
                raise refusals.not_recordable(error) from None
            if not made:
                raise Decided
        work.call.response.cache = "hit"
        self._telemetry.deduped(work.call.caller.name)
        return job


class _Running:
    """The task of a create, and how many calls wait for it."""

    def __init__(self, task: asyncio.Task[PreviewJob], work: Work) -> None:
        self.task = task
        self.work = work
        self.body = work.record.body
        self.waiting = 0
