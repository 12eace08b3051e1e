"""`docpreview-gateway reconcile` and `store`, against an emulated cloud, beside a gateway that runs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from base64 import b64encode
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview.v1.usage_service_pb2 import GetUsageRequest
from docpreview.v1.usage_service_pb2_grpc import UsageServiceStub
from docpreview_emulator import Emulator
from docpreview_gateway.creates.keys import CreateKeys, new_nonce
from docpreview_gateway.creates.ports import Change
from docpreview_gateway.creates.records import Record, State
from docpreview_gateway.creates.sqlite_creates import SqliteCreates
from docpreview_gateway.limits.call_limits import Counting
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import GATEWAY
from docpreview_gateway.settings.loading import load
from docpreview_gateway.storage.background import loop_time
from docpreview_gateway.storage.key_file import read_secrets
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from docpreview_gateway.upstream.operations import CreateJob
from docpreview_gateway.upstream.wire.user_data import marked
from docpreview_gateway.wiring.access import Access
from docpreview_gateway.wiring.observability import Observability
from docpreview_gateway.wiring.system_clock import SystemClock
from docpreview_gateway.wiring.upstream import cloud_parts
from tests.integration.conftest import BUCKET, REGION, eventually
from tests.integration.gateway_processes import configuration, running
from tests.integration.identity import Policy, bearer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.gateway_processes import Running

PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n\
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 90 90]>>endobj\ntrailer<</Root 1 0 R>>"
SINCE = "2020-01-01"


@dataclass
class World:
    """A cloud, the configuration of a gateway, and its only caller, `one`."""

    emulator: Emulator
    folder: Path
    policy: Policy
    config: Path

    @property
    def keys(self) -> CreateKeys:
        return CreateKeys("", read_secrets(self.folder / "ledger.key"))

    async def create(self, gateway: Running, request_id: str = "") -> PreviewJob:
        request = CreatePreviewJobRequest(
            bucket=BUCKET,
            input_object="in/a.pdf",
            output=ObjectLocation(object="previews/${Number}.jpg"),
            request_id=request_id,
        )
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            stub: Any = PreviewJobServiceStub(channel)
            job: PreviewJob = await stub.CreatePreviewJob(
                request, metadata=bearer(self.policy.tokens["one"]), timeout=20
            )
        return job

    async def used(self, gateway: Running) -> int:
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            stub: Any = UsageServiceStub(channel)
            usage = await stub.GetUsage(GetUsageRequest(), metadata=bearer(self.policy.tokens["one"]), timeout=10)
        return int(usage.day.used_pages)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[SqliteCreates]:
        """The gateway's store, from outside."""
        async with SqliteCreates(self.folder / "creates.db", self.keys) as store:
            yield store

    async def record(self, request_id: str) -> Record:
        async with self.store() as store:
            (record,) = await store.find(self.keys.record_keys("one", BUCKET, request_id)[:1])
        assert record is not None
        return record

    async def charged(self, request_id: str) -> Record:
        """The record, when the pages of its job are counted."""

        async def is_charged() -> bool:
            return (await self.record(request_id)).state is State.CHARGED

        await eventually(is_charged)
        return await self.record(request_id)

    async def change(self, old: Record, new: Record | None) -> None:
        async with self.store() as store:
            assert await store.change([Change(old, new, old.expires_at)]) == [True]

    async def submit_again(self, record: Record) -> str:
        """A second job for the create of a record, as a fault would make it."""
        settings, clock = load(self.config), SystemClock()
        observed, times = Observability(settings, clock), CloudTimes(clock)
        credentials = Access(settings, clock, observed.access).cloud_credentials()
        marker = self.keys.marker(record.key, record.body, record.caller, new_nonce())
        request = marked(record.read_request(), marker, "")
        async with cloud_parts(settings, credentials, times, rates=Counting(), observed=observed) as cloud:
            bucket = Bucket(BUCKET, REGION, "main")
            operation = CreateJob(request, bucket, bucket)
            job = await cloud.jobs(operation, Call("", loop_time() + 10, GATEWAY))
        return str(job.job_id)

    async def command(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output of a command."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "docpreview_gateway", *arguments, "--config", str(self.config)),
            env={name: value for name, value in os.environ.items() if not name.startswith("DOCPREVIEW_")},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def findings(self, *arguments: str) -> tuple[int, dict[str, list[str]]]:
        """Exit code of `reconcile`, and the ids of jobs by kind of finding."""
        code, output = await self.command("reconcile", "--since", SINCE, "--json", *arguments)
        found: dict[str, list[str]] = {}
        for line in map(json.loads, filter(lambda text: text.startswith("{"), output.splitlines())):
            if line["job_id"]:
                found.setdefault(line["kind"], []).append(line["job_id"])
        return code, found


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    policy = Policy(tmp_path / "policy.yaml")
    policy.add("one", BUCKET, budget={"per_day": 10_000, "estimate": 1})
    policy.write()
    async with Emulator() as emulator:
        emulator.put_object(BUCKET, REGION, "in/a.pdf", PDF)
        config = configuration(emulator, tmp_path, policy={"file": str(policy.path)})
        yield World(emulator, tmp_path, policy, config)


def new_id() -> str:
    return str(uuid.uuid4())


async def test_records_that_agree_with_the_cloud_are_told_as_such(world: World) -> None:
    """Creates with and without an id. The exit code is 0."""
    async with running(world.config) as gateway:
        request_id = new_id()
        await world.create(gateway, request_id)
        await world.create(gateway)
        await world.charged(request_id)
        code, output = await world.command("reconcile", "--since", SINCE)
        assert (code, "2 jobs of this deployment" in output, "FOUND" in output) == (0, True, False), output


async def test_an_orphan_a_second_job_and_wrong_pages_are_found_and_charge_takes_the_orphan_in(world: World) -> None:
    """Only --charge changes anything, and only once: afterwards the orphan counts, and its id has its job again."""
    ids = [new_id() for _ in range(3)]
    async with running(world.config) as gateway:
        jobs = [(await world.create(gateway, request_id)).job_id for request_id in ids]
        records = [await world.charged(request_id) for request_id in ids]
        second = await world.submit_again(records[1])
        await world.change(records[2], records[2].charged(7))
        await world.change(records[0], None)
        # What was used stays counted when a create is forgotten: 1 of the orphan, 1, and 7.
        assert await world.used(gateway) == 9
        wrong = {"orphan": [jobs[0]], "doubled": [second], "miscounted": [jobs[2]]}
        assert await world.findings() == (1, wrong)
        assert await world.findings() == (1, wrong)
        code, found = await world.findings("--charge")
        assert (code, found["taken_in"], "orphan" in found) == (1, [jobs[0]], False)
        assert await world.findings() == (1, {"doubled": [second], "miscounted": [jobs[2]]})
        assert await world.used(gateway) == 10
        assert (await world.create(gateway, ids[0])).job_id == jobs[0]
        assert world.emulator.accepted_jobs == 4
        text = (await world.command("reconcile", "--since", SINCE))[1]
        # The orphan's page was counted before its record was deleted, and is counted again.
        assert text.count("to do:") == 3
        assert "has 10 used and 0 reserved pages" in text
        assert "its records 9 and 0" in text


async def test_a_second_job_of_an_id_is_found_ten_minutes_after_the_first_and_its_pages_are_told(world: World) -> None:
    """The first one's record was lost."""
    request_id = new_id()
    world.emulator.clock.offset_seconds = -600
    async with running(world.config) as gateway:
        first = (await world.create(gateway, request_id)).job_id
        await world.change(await world.charged(request_id), None)
    world.emulator.clock.offset_seconds = 0
    async with running(world.config) as gateway:
        assert (await world.create(gateway, request_id)).job_id != first
        await world.charged(request_id)
        assert await world.findings() == (1, {"doubled": [first]})
        text = (await world.command("reconcile", "--since", SINCE))[1]
        assert "0 are older than ledger.retention_seconds" in text
        assert "2 pages made, 1 counted, 1 not: 1 of jobs without a record and second jobs" in text


async def test_an_id_keeps_its_second_job_when_the_first_of_another_secret_is_taken_in(world: World) -> None:
    """At replicas with the one secret or the other in the first line, as they are in the middle of a rotation."""
    request_id, file = new_id(), world.folder / "ledger.key"
    async with running(world.config) as gateway:
        first = (await world.create(gateway, request_id)).job_id
        await world.change(await world.charged(request_id), None)
    old = file.read_text().strip()
    new = b64encode(bytes(range(32))).decode()
    file.write_text(f"{new}\n{old}\n")
    async with running(world.config) as gateway:
        second = (await world.create(gateway, request_id)).job_id
        assert second != first
        assert (await world.findings("--charge"))[1] == {"taken_in": [first]}
        assert (await world.create(gateway, request_id)).job_id == second
    file.write_text(f"{old}\n{new}\n")
    async with running(world.config) as gateway:
        assert (await world.create(gateway, request_id)).job_id == second
    assert world.emulator.accepted_jobs == 2


async def test_what_cannot_be_compared_has_an_exit_code_of_its_own(world: World) -> None:
    """No records at all, a cloud that refuses its list; and a day that is none is a mistake of usage."""
    code, output = await world.command("reconcile", "--since", SINCE)
    assert (code, "creates.db" in output or "ledger.key" in output) == (3, True), output
    async with running(world.config) as gateway:
        await world.create(gateway, new_id())
        world.emulator.add_fault("error", "list", status=403, code="AccessDenied", times=100)
        code, output = await world.command("reconcile", "--since", SINCE)
        assert (code, "cannot be read" in output, "to do:" in output) == (3, True, True), output
    for since, why in (("yesterday", "is no day such as"), ("2999-01-01", "is in the future")):
        code, output = await world.command("reconcile", "--since", since)
        assert (code, output.startswith(f"error: --since {since}: {why}")) == (2, True), output


async def test_an_operator_ends_a_loss_and_a_gateway_that_runs_goes_on(world: World) -> None:
    """`store status` says that the records are lost, `accept-loss` ends it; a restart does not note it again."""
    values = json.loads(world.config.read_text())
    world.config.write_text(json.dumps(values | {"ledger": {"on_loss": "refuse"}}))
    async with running(world.config) as gateway:
        await world.create(gateway, new_id())
        assert (await world.command("store", "status"))[0] == 0
        async with world.store() as store:
            lost = await store.begin_rebuild(SystemClock().now())
        assert lost.lost_since

        async def is_refused() -> bool:
            try:
                await world.create(gateway, new_id())
            except grpc.aio.AioRpcError as error:
                return error.code() == grpc.StatusCode.UNAVAILABLE
            return False

        await eventually(is_refused)
        code, output = await world.command("store", "status")
        assert (code, "accept-loss" in output) == (1, True), output
        assert (await world.command("reconcile", "--since", SINCE))[0] == 3
        assert (await world.command("store", "accept-loss"))[0] == 0
        await eventually(is_refused, expected=False)
        code, output = await world.command("store", "accept-loss")
        assert (code, "nothing is noted" in output) == (0, True), output
    async with running(world.config) as gateway:
        await world.create(gateway, new_id())
