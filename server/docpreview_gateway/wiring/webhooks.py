"""Outgoing webhooks: the queue of deliveries, and the rounds that bring them to the targets of the policy."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.storage.background import repeated
from docpreview_gateway.webhooks.delivering import Webhooks
from docpreview_gateway.webhooks.sender import sender
from docpreview_gateway.webhooks.sqlite_queue import SqliteDeliveries
from docpreview_gateway.wiring.state_files import WEBHOOKS_FILE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.access.bucket_registry import BucketRegistry
    from docpreview_gateway.creates.ports import CallbackTrust
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.model.webhooks import WebhookTarget
    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.upstream.middleware.cached import Cached
    from docpreview_gateway.webhooks.deliveries import DeliveryQueue
    from docpreview_gateway.webhooks.delivering import WebhookTelemetry

ROUND_SECONDS, ROUND_SPREAD = 1.0, 0.5
"""Between two looks whether a delivery is due, and by how much of it that varies.

With equal pauses the process that looks first after the others keeps nearly all that a slow target leaves over.
"""


class OutgoingWebhooks:
    """The webhooks of a gateway. `targets` are those of the present policy; while it has none, nothing is sent."""

    def __init__(
        self,
        settings: Settings,
        secrets: Sequence[bytes],
        clock: Clock,
        telemetry: WebhookTelemetry,
        targets: Callable[[], Mapping[str, WebhookTarget]],
    ) -> None:
        self._settings = settings
        self._keys = CreateKeys(settings.shared_state.namespace or "", secrets)
        self._clock = clock
        self._telemetry = telemetry
        self._targets = targets
        self._running: Webhooks | None = None

    def told(self, job: PreviewJob) -> None:
        """A job was read. Nothing before `running`."""
        if self._running is not None:
            self._running.told(job)

    @asynccontextmanager
    async def running(
        self, upstream: Cached, buckets: BucketRegistry, trust: CallbackTrust | None
    ) -> AsyncIterator[Webhooks]:
        """Deliver while the context is open. The queue is opened by the first use of it."""
        async with AsyncExitStack() as stack:
            webhooks = Webhooks(
                await self._queue(stack),
                upstream,
                buckets,
                await stack.enter_async_context(sender(self._clock)),
                self._telemetry,
                clock=self._clock,
                targets=self._targets,
                last_seen=upstream.last_seen,
                trust=trust,
                jitter=random.random,
            )
            stack.push_async_callback(webhooks.close)
            await stack.enter_async_context(repeated(webhooks.round, ROUND_SECONDS, spread=ROUND_SPREAD))
            self._running = webhooks
            yield webhooks

    async def _queue(self, stack: AsyncExitStack) -> DeliveryQueue:
        state = self._settings.shared_state
        if url := state.ledger_url or state.url:
            # Imported only with shared state: redis takes 20 MiB and half a second.
            from docpreview_gateway.storage.redis_connections import redis_commands  # noqa: PLC0415
            from docpreview_gateway.webhooks.redis_queue import RedisDeliveries  # noqa: PLC0415

            send = await stack.enter_async_context(redis_commands(url.get_secret_value()))
            return RedisDeliveries(send, self._keys, seconds=state.ledger_timeout_seconds)
        queue = SqliteDeliveries(self._settings.state_dir / WEBHOOKS_FILE, self._keys, self._clock)
        stack.push_async_callback(queue.close)
        return queue
