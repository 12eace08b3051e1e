"""Completion callbacks: the address that creates ask for, and the port that takes them."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from docpreview_gateway.callbacks.hints import Hints
from docpreview_gateway.callbacks.receiver import Receiver
from docpreview_gateway.callbacks.siblings import Siblings
from docpreview_gateway.callbacks.tokens import CallbackTokens
from docpreview_gateway.callbacks.trust import Trust
from docpreview_gateway.settings.loading import StartError
from docpreview_gateway.settings.sections import host_port
from docpreview_gateway.upstream.cloud_clock import elapsed
from docpreview_gateway.wiring.listening import why_not

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.access.bucket_registry import BucketRegistry
    from docpreview_gateway.jobs.watching import Watching
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.telemetry.prometheus_callbacks import PrometheusCallbacks
    from docpreview_gateway.upstream.cloud_clock import CloudTimes
    from docpreview_gateway.upstream.middleware.cached import Cached
    from docpreview_gateway.wiring.gateway import Worker

log = structlog.get_logger()


class Callbacks:
    """The callbacks of a gateway; without `callbacks.listen` there are none. `worker` is its share of the port."""

    def __init__(  # noqa: PLR0913, PLR0917 - collaborators, named by wiring
        self,
        settings: Settings,
        secrets: Sequence[bytes],
        clock: Clock,
        telemetry: PrometheusCallbacks,
        webhooks: Callable[[PreviewJob], None],
        worker: Worker | None = None,
    ) -> None:
        self._settings = settings.callbacks
        self._tokens = CallbackTokens(secrets, settings.shared_state.namespace or "")
        self._clock = clock
        self._telemetry = telemetry
        self._webhooks = webhooks
        self._worker = worker
        # With shared state the workers hear of each other's reads as replicas do.
        admin = Path(worker.admin) if worker is not None and settings.shared_state.url is None else None
        self._siblings = None if admin is None else Siblings(admin.parent, admin.stem)
        self._watching: Watching | None = None
        self.trust = Trust(elapsed, self._telemetry)
        telemetry.settle_by(self.trust.settle)

    def url(self, bucket: Bucket) -> str:
        """What a create of the bucket asks the cloud to call; empty: nothing, so that its queue says whom."""
        if self._settings.public_url is None or self._settings.mode == "queue":
            return ""
        return f"{str(self._settings.public_url).rstrip('/')}/{self._tokens.token(bucket.name, self._clock.now())}"

    def read(self, job: PreviewJob) -> None:
        """A call of this process has read a job: who watches it need not wait for a poll."""
        if self._watching is not None:
            self._watching.saw(job)

    @asynccontextmanager
    async def serving(  # noqa: PLR0913 - what hints are made from
        self,
        read: Cached,
        buckets: BucketRegistry,
        watching: Watching,
        ended: Callable[[str], Awaitable[None]],
        *,
        times: CloudTimes,
        came: Callable[[str, str, str], None],
    ) -> AsyncIterator[int]:
        """Take callbacks while the context is open. Yields the port, 0 without one. StartError when it is taken.

        `ended`, `times` and `came` are those of `Hints`.
        """
        self._watching = watching
        if self._settings.listen is None:
            yield 0
            return
        told = self._telling(watching)
        hints = Hints(read, self._telemetry, told, self.trust, ended, follows=watching.follows, times=times, came=came)

        def bucket_of(token: str) -> Bucket | None:
            name = self._tokens.bucket(token, (each.name for each in buckets.all()), self._clock.now())
            return None if name is None else buckets.find(name)

        def proof(token: str) -> Callable[[str], str] | None:
            return self._tokens.proof if self._tokens.is_probe(token, self._clock.now()) else None

        def heard(name: str, job_id: str) -> None:
            bucket = buckets.find(name)
            if bucket is not None and watching.follows(name, job_id):
                hints.take(bucket, job_id, heard=True)

        self._telemetry.address(str(self._settings.public_url))
        listen = self._settings.listen if self._worker is None else self._worker.callbacks
        tell = None if self._siblings is None else self._siblings.tell
        receiver = Receiver(hints, self._telemetry, bucket_of, tell, proof=proof)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(hints.drained)
            if self._siblings is not None:
                await stack.enter_async_context(self._siblings.listening(heard))
            try:
                port = await stack.enter_async_context(
                    receiver.serving(*host_port(listen), shared=self._worker is not None)
                )
            except OSError as error:
                raise StartError(why_not("callbacks.listen", self._settings.listen)) from error
            log.info("callbacks are taken", address=str(self._settings.public_url), port=port)
            yield port

    def _telling(self, watching: Watching) -> Callable[[Bucket, PreviewJob], bool]:
        def told(bucket: Bucket, job: PreviewJob) -> bool:
            self._webhooks(job)
            return watching.told(bucket, job)

        return told
