"""What brings deliveries to their targets: looks for the ends of jobs, and attempts with longer and longer pauses."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import structlog

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import GATEWAY
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.model.job_states import TERMINAL
from docpreview_gateway.storage.background import BackgroundTasks, loop_time
from docpreview_gateway.upstream.operations import GetJob
from docpreview_gateway.webhooks.deliveries import Delivery, Unreadable
from docpreview_gateway.webhooks.events import event_id, job_ended
from docpreview_gateway.webhooks.sender import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.access.bucket_registry import BucketRegistry
    from docpreview_gateway.creates.ports import CallbackTrust
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.model.webhooks import WebhookTarget
    from docpreview_gateway.upstream.operations import Upstream
    from docpreview_gateway.webhooks.deliveries import DeliveryQueue, Depth

log = structlog.get_logger("docpreview_gateway.webhooks")

LEASE_SECONDS = 60.0
"""How long a process may take for a look or an attempt, which have limits of 10 and 15 s."""

LOOK_SECONDS = 10.0
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 2.0, 60.0
"""Least and most seconds between two looks whether a job has ended."""

MOST_AT_ONCE, MOST_PER_TARGET = 32, 4
"""Deliveries in hand of a process, and attempts in flight for one target."""

PATIENCE_SECONDS = 1.0
"""How long a delivery in hand waits for its turn at its target, before it makes room for those of others."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 3600.0
DAY_SECONDS = 86400.0
"""How long attempts go on after the end of a job."""

NEVER_SECONDS = 7 * DAY_SECONDS
"""Age at which a job that has not ended is given up."""

LONGEST_LIFE_SECONDS = NEVER_SECONDS + DAY_SECONDS
"""Age at which a delivery that cannot be read is given up: no other lives longer."""

UNREADABLE_SECONDS = 600.0
"""Between two looks at one that cannot be read: its secret, or a newer version, may come back."""

HOUR_SECONDS = 3600.0
DEPTH_SECONDS = 10.0
IDLE_SECONDS = 60.0
"""Between two rounds while the policy has no targets."""


class EventSender(Protocol):
    """Sends events."""

    async def send(self, target: WebhookTarget, event_id: str, body: bytes) -> Answer:
        """One attempt."""
        ...


class WebhookTelemetry(Protocol):
    """Counts deliveries."""

    def webhook(self, target: str, outcome: str) -> None:
        """Count an attempt by its `Outcome`, or a delivery that is given up.

        It is `expired`, `lost` without its job, or `unreadable`, and then of no known target.
        """
        ...

    def webhook_queue(self, waiting: int, undelivered: int, oldest_seconds: float) -> None:
        """Records what the queue holds, and the age of the oldest undelivered."""
        ...


class Webhooks:
    """The port `creates.ports.Webhooks`, and the rounds that deliver. `targets` are those of the present policy.

    `last_seen` has a job as the caches do, without a read. `trust` is in callbacks; None: there are none.
    """

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self,
        queue: DeliveryQueue,
        upstream: Upstream,
        buckets: BucketRegistry,
        sender: EventSender,
        telemetry: WebhookTelemetry,
        *,
        clock: Clock,
        targets: Callable[[], Mapping[str, WebhookTarget]],
        last_seen: Callable[[Bucket, str], Awaitable[PreviewJob | None]],
        trust: CallbackTrust | None,
        jitter: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._upstream = upstream
        self._buckets = buckets
        self._sender = sender
        self._telemetry = telemetry
        self._clock = clock
        self._targets = targets
        self._last_seen = last_seen
        self._trust = trust
        self._jitter = jitter
        self._tasks = BackgroundTasks()
        self._hastening = BackgroundTasks()
        self._in_hand = 0
        self._looking: set[str] = set()
        self._is_failing = False
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._depth_at = -DEPTH_SECONDS
        self._idle_until = clock.now() + IDLE_SECONDS
        self._unreadable_told_at = -HOUR_SECONDS

    async def promise(self, caller: str, target: str, job: PreviewJob) -> None:
        """Keep that the target is to be told of the job's end. StoreError."""
        name = event_id(target, job.bucket, job.job_id)
        delivery = Delivery(name, target, caller, job.bucket, job.job_id, self._clock.now())
        has_ended, is_called_back = job.state in TERMINAL, self._is_called_back(job)
        first = LONGEST_LOOK_SECONDS if is_called_back else FIRST_LOOK_SECONDS
        await self._queue.put(delivery, 0.0 if has_ended else first)
        bucket = self._buckets.find(job.bucket)
        if is_called_back and not has_ended and bucket is not None:
            # The callback may have come before there was a delivery to hasten.
            seen = await self._last_seen(bucket, job.job_id)
            if seen is not None and seen.state in TERMINAL:
                await self._hasten([name])

    def told(self, job: PreviewJob) -> None:
        """A job was read: if it has ended, its deliveries are due now, at whichever replica."""
        targets = self._targets()
        if targets and job.state in TERMINAL:
            every = (event_id(target, job.bucket, job.job_id) for target in targets)
            names = [name for name in every if name not in self._looking]
            if names:
                _ = self._hastening.start(self._hasten(names), "hastening of webhook deliveries")

    async def round(self) -> None:
        """Take up what is due. A store that fails ends only the round."""
        if not self._targets():
            # What is in the queue waits for its target, but no longer than with others.
            if (now := self._clock.now()) < self._idle_until:
                return
            self._idle_until = now + IDLE_SECONDS
        try:
            unreadable = []
            for delivery in await self._queue.take(MOST_AT_ONCE - self._in_hand, LEASE_SECONDS):
                if isinstance(delivery, Unreadable):
                    unreadable.append(delivery)
                    continue
                self._in_hand += 1
                _ = self._tasks.start(self._advance(delivery), "webhook delivery")
            await self._set_aside(unreadable)
            if time.monotonic() - self._depth_at >= DEPTH_SECONDS:
                self._depth_at = time.monotonic()
                self._report(await self._queue.depth())
            self._is_failing = False
        except StoreError as error:
            # Once, not every second of an outage.
            if not self._is_failing:
                log.warning("the webhook queue cannot be used", error=str(error))
            self._is_failing = True

    async def _set_aside(self, unreadable: Sequence[Unreadable]) -> None:
        now = self._clock.now()
        for each in unreadable:
            if now - each.promised_at > LONGEST_LIFE_SECONDS:
                await self._give_up(each, "unreadable")
            else:
                await self._queue.put_off(each, UNREADABLE_SECONDS)
        if unreadable and now - self._unreadable_told_at >= HOUR_SECONDS:
            self._unreadable_told_at = now
            first = unreadable[0]
            log.error("stored webhook deliveries cannot be read", id=first.id, error=first.why, count=len(unreadable))

    def _report(self, depth: Depth) -> None:
        oldest = 0.0 if depth.oldest_ended_at is None else max(0.0, self._clock.now() - depth.oldest_ended_at)
        self._telemetry.webhook_queue(depth.waiting, depth.undelivered, oldest)

    async def drained(self) -> None:
        """Wait until nothing is in hand."""
        await self._hastening.drain()
        await self._tasks.drain()

    async def close(self) -> None:
        """End what is in hand: it is taken up again when its lease ends, by any process."""
        await self._hastening.cancel()
        await self._tasks.cancel()

    async def _hasten(self, names: list[str]) -> None:
        with suppress(StoreError):  # a look finds its end later
            await self._queue.hasten(names)

    async def _advance(self, delivery: Delivery) -> None:
        try:
            if not delivery.body:
                self._looking.add(delivery.id)
                ended = await self._looked_at(delivery)
                # With the body, the lease begins anew: who looked at the same time sends nothing.
                if ended is None or not await self._queue.replace(ended, LEASE_SECONDS):
                    return
                delivery = ended
            await self._attempt(delivery)
        except StoreError as error:
            log.warning("a webhook delivery is put off", id=delivery.id, target=delivery.target, error=str(error))
        finally:
            self._in_hand -= 1
            self._looking.discard(delivery.id)

    async def _looked_at(self, delivery: Delivery) -> Delivery | None:
        """The delivery with its body, if its job has ended; else it is due later, or given up."""
        now, bucket = self._clock.now(), self._buckets.find(delivery.bucket)
        age = now - delivery.promised_at
        is_lost = age > NEVER_SECONDS
        is_called_back = False
        if bucket is not None and not is_lost:
            try:
                job = await self._upstream(
                    GetJob(bucket, delivery.job_id), Call("", loop_time() + LOOK_SECONDS, GATEWAY)
                )
            except GatewayError as error:
                is_lost = error.reason == reasons.ERROR_REASON_JOB_NOT_FOUND and age > DAY_SECONDS
            else:
                if job.state in TERMINAL:
                    body = job_ended(delivery.id, job, datetime.fromtimestamp(now, UTC))
                    return replace(delivery, body=body, ended_at=now)
                is_called_back = self._is_called_back(job)
        if is_lost:
            await self._give_up(delivery, "lost")
            return None
        interval = (
            LONGEST_LOOK_SECONDS if is_called_back else min(LONGEST_LOOK_SECONDS, max(FIRST_LOOK_SECONDS, age / 4))
        )
        await self._queue.put_off(delivery, interval)
        return None

    def _is_called_back(self, job: PreviewJob) -> bool:
        return self._trust is not None and self._trust.works(job.bucket, job.queue_id)

    async def _attempt(self, delivery: Delivery) -> None:
        name = delivery.target
        turn = self._turns.setdefault(name, asyncio.Semaphore(MOST_PER_TARGET))
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await turn.acquire()
        except TimeoutError:
            # A slow target keeps nobody else waiting.
            await self._queue.put_off(delivery, 1 + self._jitter())
            return
        try:
            target = self._targets().get(name)
            body = delivery.body.encode()
            answer = await self._sender.send(target, delivery.id, body) if target else Answer("unknown")
        finally:
            turn.release()
        self._telemetry.webhook(name, answer.outcome)
        if answer.outcome in {"delivered", "gone"}:
            await self._queue.remove(delivery)
        elif self._clock.now() - delivery.ended_at > DAY_SECONDS:
            await self._give_up(delivery, "expired")
        else:
            failed = replace(delivery, attempts=delivery.attempts + 1)
            await self._queue.replace(failed, self._pause(failed.attempts))
        log.info(
            "webhook",
            target=name,
            id=delivery.id,
            job_id=delivery.job_id,
            outcome=answer.outcome,
            detail=answer.detail,
            attempt=delivery.attempts + 1,
        )

    async def _give_up(self, delivery: Delivery | Unreadable, outcome: str) -> None:
        if not await self._queue.remove(delivery):
            return
        if isinstance(delivery, Unreadable):
            target = ""
            fields: dict[str, object] = {"error": delivery.why}
        else:
            target = delivery.target
            fields = {
                "target": target,
                "bucket": delivery.bucket,
                "job_id": delivery.job_id,
                "attempts": delivery.attempts,
            }
        self._telemetry.webhook(target, outcome)
        log.error("a webhook delivery is given up", id=delivery.id, outcome=outcome, **fields)

    def _pause(self, attempts: int) -> float:
        """Seconds before the next attempt after so many: doubled each time, by half of it at random."""
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(attempts - 1, 12))
        return longest * (1 + self._jitter()) / 2
