"""Memory test of the cache with distinct jobs, as a process: `python -m tests.faults.many_jobs JOBS MAX_BYTES`.

Prints the growth of its resident memory in bytes since the cache was empty.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.upstream.memory_cache import LruMemoryCache
from docpreview_gateway.upstream.middleware.cached import Cached
from docpreview_gateway.upstream.operations import GetJob
from docpreview_gateway.upstream.policies.freshness import Freshness
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.fakes.telemetry import FakeTelemetry
from tests.fakes.upstream import FakeUpstream

BUCKET = Bucket("docs-1250000000", "ap-chongqing", "main")


class Cloud(FakeUpstream):
    """A cloud in which every job exists, has succeeded and has two pages; it stores nothing."""

    async def get(self, operation: GetJob, _call: Call) -> PreviewJob:
        job_id = operation.job_id
        job = PreviewJob(job_id=job_id, bucket=operation.bucket.name, state=PreviewJob.STATE_SUCCESS)
        job.create_time.GetCurrentTime()
        for number in (1, 2):
            job.result.pages.add(page_number=number, object=f"out/{job_id}/p-{number}.jpg")
        return job


class DiscardingTelemetry(FakeTelemetry):
    """Telemetry that discards cache look-ups: a list of them would be what grows."""

    def cache_lookup(self, tier: str, outcome: str, count: int = 1) -> None:
        pass


def resident() -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return 1024 * int(found[1])


async def main(jobs: int, max_bytes: int) -> int:
    memory = LruMemoryCache(max_bytes)
    freshness = Freshness(active=1, missing=2, listing=1, stale=60)
    cached = Cached(Cloud(), memory, None, freshness=freshness, clock=SystemClock(), telemetry=DiscardingTelemetry())
    await cached(GetJob(BUCKET, "d" + "0" * 32), Call("r", 0.0))
    before, most = resident(), 0
    for number in range(1, jobs + 1):
        await cached(GetJob(BUCKET, f"d{number:032x}"), Call("r", 0.0))
        if number % 10_000 == 0:
            most = max(most, resident())
    return most - before


if __name__ == "__main__":
    print(asyncio.run(main(*map(int, sys.argv[1:]))))  # noqa: T201
