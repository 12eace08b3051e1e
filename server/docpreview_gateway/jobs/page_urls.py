"""Presigned URLs of result pages, with which callers read pages without cloud keys.

The address of a page is the same for a sixth of the time that is asked for, so that browsers and CDNs that have it need
not read the page again; they may keep it for that time, as the reply's `cache-control`, which is signed, tells them.

A page gets none unless its job can have made it and the policy gives it to the caller: a reply of the cloud is no
reason to sign whatever key it has.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import GATEWAY
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.model.output_templates import result_keys
from docpreview_gateway.model.rules import object_key
from docpreview_gateway.storage.background import loop_time
from docpreview_gateway.upstream.wire.requests import read_object
from docpreview_gateway.upstream.wire.signing import Window, presign

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from google.protobuf.duration_pb2 import Duration

    from docpreview_gateway.access.bucket_registry import BucketRegistry
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.callers import Caller
    from docpreview_gateway.upstream.cloud_clock import CloudTimes
    from docpreview_gateway.upstream.ports import CredentialsSource

_MANY_PAGES = 200
"""Jobs with at least this many pages are signed (about 30 us a page) in a thread."""

_ASK_SECONDS = 2.0
"""Time limit of the question for the object store's time."""


class PageUrls:
    """Presigns page URLs with the keys of the output bucket.

    `base` is the beginning of the URLs, with `{host}` for the bucket's object host; None: `https://{host}`. The
    signature is always for the object host. `ask` is `ObjectStore.now`: it is asked until a reply of the job API has
    told the cloud's time, as a cache may have all the jobs that are asked for, and our own clock may be wrong.
    """

    def __init__(
        self,
        buckets: BucketRegistry,
        credentials: CredentialsSource,
        times: CloudTimes,
        *,
        ask: Callable[[Bucket, str, Call], Awaitable[float]] | None = None,
        base: str | None = None,
    ) -> None:
        self._ask = ask
        self._buckets = buckets
        self._credentials = credentials
        self._times = times
        self._base = (base or "https://{host}").rstrip("/")

    async def fill(self, job: PreviewJob, ttl: Duration | None, caller: Caller) -> PreviewJob:
        """A copy of `job` whose pages, as far as the caller may have it, have a `url` valid for `ttl`.

        `job` itself when there is nothing to sign.
        """
        if ttl is None or not job.result.pages or (bucket := self._output(job)) is None:
            return job
        # Within the window of an address nothing of it changes, or no cache would find it again.
        lifetime = ttl.seconds + bool(ttl.nanos)
        window = Window.shared(await self._now(bucket, job.output.object), lifetime=lifetime)
        if len(job.result.pages) < _MANY_PAGES:
            return self._signed(job, bucket, window, lifetime, caller)
        return await asyncio.to_thread(self._signed, job, bucket, window, lifetime, caller)

    async def fill_all(self, jobs: Iterable[PreviewJob], ttl: Duration | None, caller: Caller) -> list[PreviewJob]:
        """`fill` for each job."""
        return [await self.fill(job, ttl, caller) for job in jobs]

    def _output(self, job: PreviewJob) -> Bucket | None:
        """The bucket of the job's pages; None when no address of them may be given to anyone."""
        bucket = self._buckets.find(job.output.bucket)
        if bucket is None or job.output.region not in {"", bucket.region} or object_key(job.output.object) is not None:
            return None
        return bucket

    async def _now(self, bucket: Bucket, key: str) -> float:
        if self._times.heard(bucket.ci_host) is None and self._ask is not None:
            # When the store does not answer, addresses by our own clock are better than none.
            with suppress(GatewayError):
                return await self._ask(bucket, key, Call("", loop_time() + _ASK_SECONDS, GATEWAY))
        return self._times.now(bucket.ci_host)

    def _signed(self, job: PreviewJob, bucket: Bucket, window: Window, lifetime: int, caller: Caller) -> PreviewJob:
        signed = PreviewJob()
        signed.CopyFrom(job)
        credentials = self._credentials.credentials(bucket.credentials)
        cache_control = f"private, max-age={lifetime}"
        base = self._base.replace("{host}", bucket.object_host)
        keys, rights = result_keys(job.output.object), caller.rights
        for page in signed.result.pages:
            if keys.fullmatch(page.object) is None:
                continue
            if rights is None or rights.of_page(job.bucket, bucket.name, page.object).allowed:
                request = read_object(bucket, page.object, content_type=page.content_type, cache_control=cache_control)
                page.url = base + presign(request, credentials, window).target
        return signed
