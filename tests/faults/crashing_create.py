"""One create with `request_id` in a process of its own, which kills itself at a named step.

`python -m tests.faults.crashing_create STEP EMULATOR_URL STATE_DIR REQUEST_ID`
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.access.bucket_registry import BucketRegistry
from docpreview_gateway.creates.records import Record, Timing
from docpreview_gateway.creates.sqlite_creates import SqliteCreates
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.upstream.builtin_transport import BuiltinTransport
from docpreview_gateway.upstream.client import CloudClient
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from docpreview_gateway.upstream.wire.signing import Credentials
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.fakes.recorded import KEYS, Recorded
from tests.fakes.telemetry import FakeTelemetry
from tests.faults.gateway_process import BUCKET, REGION, SECRET_ID, SECRET_KEY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docpreview_gateway.creates.ports import Begun, Change
    from docpreview_gateway.model.callers import PageBudget

TIMING = Timing(signature=2.0, fence_slack=0.5, visibility=0.5)
DOCUMENT = "a.pdf"


class Keys:
    """Implementation of the port `CredentialsSource`."""

    def credentials(self, _name: str) -> Credentials:
        return Credentials(SECRET_ID, SECRET_KEY, "")


class CrashPoint:
    """Kills this process when its step is reached."""

    def __init__(self, step: str) -> None:
        self._step = step

    def at(self, step: str) -> None:
        if step == self._step:
            os.kill(os.getpid(), signal.SIGKILL)


class CrashingStore(SqliteCreates):
    """A store that crashes before or after a step is committed."""

    def __init__(self, path: Path, crash_point: CrashPoint) -> None:
        super().__init__(path, KEYS)
        self._doom = crash_point

    async def begin(
        self,
        record: Record,
        look_at: float,
        budget: PageBudget | None,
        *,
        dedupe_since: float | None,
        alone: bool = False,
    ) -> Begun:
        self._doom.at("before begin")
        begun = await super().begin(record, look_at, budget, dedupe_since=dedupe_since, alone=alone)
        self._doom.at("after begin")
        return begun

    async def change(self, changes: Sequence[Change]) -> list[bool]:
        self._doom.at("before finish")
        made = await super().change(changes)
        self._doom.at("after finish")
        return made


async def create(step: str, url: str, state: Path, request_id: str) -> PreviewJob:
    """One create, until its end or the crash at `step`."""
    async with (
        BuiltinTransport(base_url=url, connect_seconds=3, read_seconds=20) as transport,
        CrashingStore(state / "creates.db", CrashPoint(step)) as store,
    ):
        times, telemetry = CloudTimes(SystemClock()), FakeTelemetry()
        cloud = CloudClient(transport, Keys(), times, telemetry=telemetry, timeout_seconds=20)
        buckets = BucketRegistry([Bucket(BUCKET, REGION, "main")])
        recorded = Recorded(cloud, buckets, times, telemetry, timing=TIMING, store=store)
        request = CreatePreviewJobRequest(
            bucket=BUCKET,
            input_object=DOCUMENT,
            output=ObjectLocation(object="out/p-${Page}.jpg"),
            request_id=request_id,
        )
        deadline = asyncio.get_running_loop().time() + 20
        return await recorded.creates.create(request, Call("r", deadline))


if __name__ == "__main__":
    print(asyncio.run(create(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4])).job_id)  # noqa: T201
