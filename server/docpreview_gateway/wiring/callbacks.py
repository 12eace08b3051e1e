"""Completion callbacks: the address that creates ask for, and the port that takes them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from docpreview_gateway.callbacks.hints import Hints
from docpreview_gateway.callbacks.receiver import Receiver
from docpreview_gateway.callbacks.tokens import CallbackTokens
from docpreview_gateway.callbacks.trust import Trust
from docpreview_gateway.settings.loading import StartError
from docpreview_gateway.settings.sections import host_port
from docpreview_gateway.telemetry.prometheus_callbacks import PrometheusCallbacks
from docpreview_gateway.upstream.cloud_clock import elapsed
from docpreview_gateway.wiring.listening import why_not

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from prometheus_client import CollectorRegistry

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.access.bucket_registry import BucketRegistry
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.upstream.cloud_clock import CloudTimes
    from docpreview_gateway.upstream.middleware.cached import Cached


class Callbacks:
    """The callbacks of a gateway; without `callbacks.listen` there are none."""

    def __init__(self, settings: Settings, secrets: Sequence[bytes], clock: Clock, registry: CollectorRegistry) -> None:
        self._settings = settings.callbacks
        self._tokens = CallbackTokens(secrets, settings.shared_state.namespace or "")
        self._clock = clock
        self._telemetry = PrometheusCallbacks(registry)
        self.trust = Trust(elapsed, self._telemetry.working)

    def url(self, bucket: Bucket) -> str:
        """What a create of the bucket asks the cloud to call; empty: nothing."""
        if self._settings.public_url is None:
            return ""
        return f"{str(self._settings.public_url).rstrip('/')}/{self._tokens.token(bucket.name, self._clock.now())}"

    @asynccontextmanager
    async def serving(  # noqa: PLR0913 - what hints are made from
        self,
        read: Cached,
        buckets: BucketRegistry,
        told: Callable[[Bucket, PreviewJob], bool],
        ended: Callable[[str], Awaitable[None]],
        *,
        times: CloudTimes,
        came: Callable[[str, str], None],
    ) -> AsyncIterator[int]:
        """Take callbacks while the context is open. Yields the port, 0 without one. StartError when it is taken.

        The others are those of `Hints`.
        """
        if self._settings.listen is None:
            yield 0
            return
        hints = Hints(read, self._telemetry, told, self.trust, ended, times=times, came=came)

        def bucket_of(token: str) -> Bucket | None:
            name = self._tokens.bucket(token, (each.name for each in buckets.all()), self._clock.now())
            return None if name is None else buckets.find(name)

        host, port = host_port(self._settings.listen)
        try:
            async with Receiver(hints, self._telemetry, bucket_of).serving(host, port) as taken:
                yield taken
        except OSError as error:
            raise StartError(why_not("callbacks.listen", self._settings.listen)) from error
        finally:
            await hints.drained()
