"""One create with `request_id` in a process of its own, which kills itself at a named step.

`python -m tests.faults.crashing_create STEP EMULATOR_URL STATE_DIR REQUEST_ID`
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.access.bucket_registry import BucketRegistry
from docpreview_gateway.creates.idempotent import IdempotentCreates
from docpreview_gateway.creates.records import Record, Timing
from docpreview_gateway.creates.sqlite_ledger import SqliteLedger
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.upstream.aiohttp_transport import AiohttpTransport
from docpreview_gateway.upstream.client import CloudClient
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from docpreview_gateway.upstream.wire.signing import Credentials
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.fakes.telemetry import FakeTelemetry
from tests.faults.gateway_process import BUCKET, REGION, SECRET_ID, SECRET_KEY

if TYPE_CHECKING:
    from docpreview_gateway.upstream.operations import Upstream

TIMING = Timing(signature=2.0, fence_slack=0.5, visibility=0.5, lease=1.0)
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


class CrashingLedger(SqliteLedger):
    """A ledger that crashes before or after a stage is committed."""

    def __init__(self, path: Path, crash_point: CrashPoint) -> None:
        super().__init__(path)
        self._doom = crash_point

    async def begin(self, record: Record, now: float) -> Record:
        self._doom.at(f"before {record.stage}")
        standing = await super().begin(record, now)
        self._doom.at(f"after {record.stage}")
        return standing

    async def replace(self, old: Record, new: Record) -> bool:
        self._doom.at(f"before {new.stage}")
        done = await super().replace(old, new)
        self._doom.at(f"after {new.stage}")
        return done


def creating(cloud: Upstream, ledger: SqliteLedger) -> IdempotentCreates:
    """The idempotent creates of a new process."""
    return IdempotentCreates(
        cloud,
        BucketRegistry([Bucket(BUCKET, REGION, "main")]),
        ledger,
        clock=SystemClock(),
        telemetry=FakeTelemetry(),
        timing=TIMING,
        owner=secrets.token_hex(8),
    )


async def create(step: str, url: str, state: Path, request_id: str) -> PreviewJob:
    """One create, until its end or the crash at `step`."""
    async with (
        AiohttpTransport(base_url=url, connect_seconds=3, read_seconds=20) as transport,
        CrashingLedger(state / "ledger.db", CrashPoint(step)) as ledger,
    ):
        cloud = CloudClient(transport, Keys(), CloudTimes(SystemClock()), telemetry=FakeTelemetry(), timeout_seconds=20)
        request = CreatePreviewJobRequest(
            bucket=BUCKET,
            input_object=DOCUMENT,
            output=ObjectLocation(object="out/p-${Page}.jpg"),
            request_id=request_id,
        )
        deadline = asyncio.get_running_loop().time() + 20
        return await creating(cloud, ledger).create(request, Call("r", deadline))


if __name__ == "__main__":
    print(asyncio.run(create(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4])).job_id)  # noqa: T201
