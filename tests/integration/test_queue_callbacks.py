"""Callbacks of queues: jobs that other tools have created are told too, once an operator has configured the queue."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import pytest
from qcloud_cos import CosConfig, CosS3Client

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_client import DocPreviewClient
from docpreview_emulator import Emulator
from docpreview_gateway.callbacks.trust import LEAST
from docpreview_gateway.doctor.checks import queue_callbacks
from docpreview_gateway.doctor.queue_callbacks import queue_addresses
from docpreview_gateway.settings.sections import CallbackSettings, LedgerSettings, SharedStateSettings, WatchSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.edge_process import free_port
from tests.integration.callback_worlds import address_in, outcomes, reads, running_job
from tests.integration.conftest import BUCKET, OTHER_BUCKET, REGION, settings, until
from tests.integration.money import ONE_PAGE
from tests.redis_server import running_redis
from tests.unit.emulator.cloud_client import XML, Cloud, create_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview_gateway.settings.loading import Settings

SELDOM = WatchSettings(poll_floor_seconds=60, poll_cap_seconds=60)
OFTEN = WatchSettings(poll_floor_seconds=0.05, poll_cap_seconds=0.2)
OLD, NEW = "o" * 40, "n" * 40


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as found:
        for bucket in (BUCKET, OTHER_BUCKET):
            found.put_object(bucket, REGION, "a.pdf", ONE_PAGE)
        found.hold_jobs()
        yield found


def deployment(
    emulator: Emulator,
    folder: Path,
    *secrets: str,
    port: int = 0,
    mode: Literal["job", "queue"] = "queue",
    **changes: object,
) -> Settings:
    """Settings of a gateway with these secrets, the first of them the current one."""
    key = folder / "ledger.key"
    key.write_text("\n".join(secrets or (NEW,)))
    port = port or free_port()
    callbacks = CallbackSettings(public_url=f"http://127.0.0.1:{port}/cb", listen=f"127.0.0.1:{port}", mode=mode)
    given = {"callbacks": callbacks, "watch": SELDOM, "ledger": LedgerSettings(key_file=key)}
    return settings(emulator, **(given | changes))


async def configure(given: Settings) -> None:
    """As `callbacks configure` does it, with the queues of the first bucket."""
    async with queue_callbacks(given) as queues:
        seen = await queues.seen(given.buckets[0].bucket())
        assert isinstance(seen, list)
        for each in seen:
            assert await queues.written(each, queue_addresses(given).wanted(BUCKET)) is None


@asynccontextmanager
async def serving(given: Settings) -> AsyncIterator[tuple[Gateway, DocPreviewClient]]:
    async with (
        Gateway(given) as gateway,
        DocPreviewClient(f"127.0.0.1:{gateway.port}") as client,
        asyncio.timeout(60),
    ):
        yield gateway, client


async def foreign_job(emulator: Emulator, bucket: str = BUCKET) -> str:
    """The id of a job that the vendor's SDK has created at the cloud."""
    key = {"SecretId": "example-secret-id", "SecretKey": "EXAMPLEsecretKEY00000000000000000"}
    sdk = CosS3Client(CosConfig(Region=REGION, Scheme="http", Proxies={"http": emulator.url}, **key), retry=0)
    output = {"OutputBucket": bucket, "OutputRegion": REGION, "OutputObject": "theirs/${Number}.jpg"}
    made: dict[str, Any] = await asyncio.to_thread(sdk.ci_create_doc_job, Bucket=bucket, InputObject="a.pdf", **output)
    return str(made["JobsDetail"]["JobId"])


async def watched(gateway: Gateway, client: DocPreviewClient, emulator: Emulator, job_id: str) -> asyncio.Task[Any]:
    """A wait for the job that has read it for the first time, after which it would poll in a minute."""
    before = reads(emulator)
    waiting = asyncio.create_task(client.wait(BUCKET, job_id))
    await until(lambda: gateway.registry.get_sample_value("docpreview_watchers") == 1 and reads(emulator) > before)
    return waiting


@pytest.mark.parametrize("mode", ["job", "queue"])
async def test_a_job_of_another_tool_ends_for_its_watchers_by_one_read(
    emulator: Emulator, tmp_path: Path, mode: Literal["job", "queue"]
) -> None:
    """Where creates name the address too, the queue helps with all the others."""
    given = deployment(emulator, tmp_path, mode=mode)
    await configure(given)
    async with serving(given) as (gateway, client):
        job_id = await foreign_job(emulator)
        waiting = await watched(gateway, client, emulator, job_id)
        before = reads(emulator)
        emulator.release_jobs()
        assert (await waiting).state == PreviewJob.STATE_SUCCESS
        assert reads(emulator) == before + 1
        await until(lambda: outcomes(gateway) == {"read": 1})


async def test_creates_name_no_address_and_are_told_by_their_queue(emulator: Emulator, tmp_path: Path) -> None:
    given = deployment(emulator, tmp_path)
    await configure(given)
    async with serving(given) as (gateway, client):
        job_id = await running_job(client)
        assert address_in(emulator) == ""
        waiting = await watched(gateway, client, emulator, job_id)
        emulator.release_jobs()
        assert (await waiting).state == PreviewJob.STATE_SUCCESS
        await until(lambda: outcomes(gateway) == {"read": 1})


async def test_a_queue_that_was_not_configured_is_polled_as_before_whatever_others_tell(
    emulator: Emulator, tmp_path: Path
) -> None:
    given = deployment(emulator, tmp_path, watch=OFTEN)
    await configure(given)
    async with serving(given) as (gateway, client):
        emulator.release_jobs()
        trust, queue = gateway.callbacks.trust, emulator.queue_id(BUCKET, REGION)
        for number in range(LEAST):
            await foreign_job(emulator)
            await until(lambda: outcomes(gateway).get("read", 0) > number)  # noqa: B023 - awaited here
        await until(lambda: trust.works(BUCKET, queue))
        emulator.hold_jobs()
        job_id = await foreign_job(emulator, OTHER_BUCKET)
        waiting = asyncio.create_task(client.wait(OTHER_BUCKET, job_id))
        before = reads(emulator)
        await until(lambda: reads(emulator) > before + 3)
        emulator.release_jobs()
        assert (await waiting).state == PreviewJob.STATE_SUCCESS
        other = emulator.queue_id(OTHER_BUCKET, REGION)
        assert not trust.works(OTHER_BUCKET, other)
        assert not trust.works(BUCKET, other)


async def test_replicas_rely_upon_the_callbacks_of_a_queue_that_others_have_got(
    emulator: Emulator, tmp_path: Path
) -> None:
    """The load balancer before the port may give all of them to one replica."""
    with running_redis(tmp_path) as server:
        state = SharedStateSettings.model_validate({"url": server.url, "namespace": "docs", "timeout_seconds": 1.0})
        hears, deaf = (deployment(emulator, tmp_path, shared_state=state) for _ in range(2))
        await configure(hears)
        emulator.release_jobs()
        async with serving(hears) as (hearing, _), serving(deaf) as (other, _):
            trust, queue = other.callbacks.trust, emulator.queue_id(BUCKET, REGION)
            # More than LEAST: the replicas may not hear each other from their first moment on.
            while not trust.works(BUCKET, queue):
                await foreign_job(emulator)
                await asyncio.sleep(0.1)
            assert outcomes(other) == {}
            assert not trust.works(BUCKET, "")
            await until(lambda: outcomes(hearing)["read"] >= LEAST)


async def test_a_job_that_tells_nobody_is_found_by_polls(emulator: Emulator, tmp_path: Path) -> None:
    """`CallBack: no`, by which another tool keeps its jobs from the queue's receiver."""
    given = deployment(emulator, tmp_path, watch=OFTEN)
    await configure(given)
    async with serving(given) as (gateway, client):
        job_id = await silent_job(emulator)
        waiting = await watched(gateway, client, emulator, job_id)
        emulator.release_jobs()
        assert (await waiting).state == PreviewJob.STATE_SUCCESS
        assert outcomes(gateway) == {}


async def silent_job(emulator: Emulator) -> str:
    """The id of a job whose end is told nobody."""
    body = create_body("a.pdf").replace(b"</Request>", b"<CallBack>no</CallBack></Request>")
    async with Cloud(emulator.url) as cloud:
        reply = await cloud.send("POST", "/doc_jobs", headers={"content-type": XML}, body=body)
        return reply.text("JobsDetail/JobId")


@pytest.mark.parametrize(("secrets", "outcome"), [((NEW, OLD), "read"), ((NEW,), "foreign")])
async def test_a_queue_tells_by_the_secret_before_while_that_is_in_the_file(
    emulator: Emulator, tmp_path: Path, secrets: tuple[str, ...], outcome: str
) -> None:
    """So a secret is replaced first, the queues are configured then, and the old secret goes last."""
    before = deployment(emulator, tmp_path, OLD)
    await configure(before)
    port = int(str(before.callbacks.listen).rpartition(":")[2])
    async with serving(deployment(emulator, tmp_path, *secrets, port=port)) as (gateway, _):
        emulator.release_jobs()
        await foreign_job(emulator)
        await until(lambda: outcomes(gateway).get(outcome) == 1)
    after = deployment(emulator, tmp_path, *secrets, port=port)
    await configure(after)
    async with serving(after) as (gateway, _):
        await foreign_job(emulator)
        await until(lambda: outcomes(gateway).get("read") == 1)
