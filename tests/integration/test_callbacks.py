"""Completion callbacks: the cloud tells that a job has ended, and its watchers hear of it without a poll."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack, suppress
from typing import TYPE_CHECKING

import httpx
import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob, PreviewOptions
from docpreview_client import DocPreviewClient
from docpreview_emulator import Emulator
from docpreview_gateway.callbacks.hints import AGAIN_SECONDS
from docpreview_gateway.callbacks.trust import LEAST
from docpreview_gateway.settings.limits import BudgetWords, CallerLimitSettings
from docpreview_gateway.settings.sections import LimitSettings
from tests.edge_process import free_port
from tests.integration.callback_worlds import address_in, called_back, outcomes, reads, running_job
from tests.integration.conftest import BUCKET, REGION, until
from tests.integration.gateway_processes import Running, configuration, page, running
from tests.integration.money import ONE_PAGE
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as found:
        found.put_object(BUCKET, REGION, "a.pdf", ONE_PAGE)
        found.hold_jobs()
        yield found


async def test_watchers_hear_of_the_end_at_once_by_a_single_read(emulator: Emulator) -> None:
    """The callback is a hint: it makes the gateway read the job, signed, and nothing that it says is believed."""
    async with called_back(emulator) as (gateway, client, _), asyncio.timeout(20):
        job_id = await running_job(client)
        waiting = [asyncio.create_task(client.wait(BUCKET, job_id)) for _ in range(5)]
        await until(lambda: gateway.registry.get_sample_value("docpreview_watchers") == 5)
        before = reads(emulator)
        emulator.release_jobs()
        for done in await asyncio.gather(*waiting):
            assert done.state == PreviewJob.STATE_SUCCESS
        assert reads(emulator) == before + 1
        await until(lambda: outcomes(gateway) == {"read": 1})


async def test_a_callback_that_comes_twice_or_again_later_is_read_once(emulator: Emulator) -> None:
    """What is known to have ended is not read again."""
    emulator.add_fault("twice", "callback")
    async with called_back(emulator) as (gateway, client, _), asyncio.timeout(20):
        job_id = await running_job(client)
        emulator.release_jobs()
        await until(lambda: outcomes(gateway).get("read") == 1 and sum(outcomes(gateway).values()) == 2)
        assert (await client.get(BUCKET, job_id)).state == PreviewJob.STATE_SUCCESS
        before = reads(emulator)
        await asyncio.sleep(AGAIN_SECONDS)
        async with httpx.AsyncClient(trust_env=False) as vendor:
            sent = {"EventName": "TaskFinish", "JobsDetail": [{"JobId": job_id}]}
            assert (await vendor.post(address_in(emulator), json=sent)).status_code == 200
        await until(lambda: outcomes(gateway).get("known", 0) >= 1)
        assert reads(emulator) == before


async def test_what_is_forged_is_answered_alike_and_makes_no_read(emulator: Emulator) -> None:
    """Without a token of ours, of another method, of no form; and not even the token lets one say what is not so."""
    async with called_back(emulator) as (gateway, client, base), asyncio.timeout(20):
        job_id = await running_job(client)
        before, right = reads(emulator), address_in(emulator)
        lie = {"EventName": "TaskFinish", "JobsDetail": [{"JobId": job_id, "State": "Success"}]}
        async with httpx.AsyncClient(trust_env=False) as stranger:
            for method, url, body in (
                ("POST", f"{base}/cb/{'A' * 22}", lie),
                ("POST", f"{base}/", lie),
                ("GET", right, None),
                ("POST", right, {"no": "job"}),
            ):
                answer = await stranger.request(method, url, json=body)
                assert (answer.status_code, answer.content) == (200, b"")
            assert reads(emulator) == before
            await stranger.post(right, json=lie)
        await until(lambda: reads(emulator) == before + 1)
        assert (await client.get(BUCKET, job_id)).state != PreviewJob.STATE_SUCCESS
        await until(lambda: outcomes(gateway) == {"foreign": 3, "malformed": 1, "read": 1})


async def test_polls_become_rare_while_callbacks_come_and_find_what_none_tells(emulator: Emulator) -> None:
    """Learned by the ends of jobs: unlearned when polls find them first."""
    emulator.release_jobs()
    async with called_back(emulator) as (gateway, client, _), asyncio.timeout(60):
        for _ in range(LEAST):
            await client.wait(BUCKET, await running_job(client))
        assert gateway.callbacks.trust.works(BUCKET)
        labels = {"bucket": BUCKET, "queue": emulator.queue_id(BUCKET, REGION)}
        assert gateway.registry.get_sample_value("docpreview_callbacks_working", labels) == 1
        shown = (await page(gateway.admin_port, "/"))[1]
        assert f"to {address_in(emulator).rpartition('/')[0]}</p>" in shown
        assert 'data-label="relied upon">yes</td>' in shown


async def test_the_pages_of_a_job_that_is_called_back_are_charged_at_once(emulator: Emulator) -> None:
    """While callbacks come, its record would be looked at minutes later."""
    limits = LimitSettings(anonymous=CallerLimitSettings(budget=BudgetWords(per_day=100, estimate=9)))
    emulator.release_jobs()
    async with called_back(emulator, limits=limits) as (gateway, client, _), asyncio.timeout(60):
        for number in range(LEAST + 1):
            await client.wait(BUCKET, await running_job(client))
            while (await client.usage()).day.used_pages <= number:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.1)
        assert gateway.callbacks.trust.works(BUCKET)


@pytest.mark.parametrize("shared", [False, True])
async def test_watchers_at_all_workers_hear_whichever_the_kernel_gives_the_callback(
    emulator: Emulator, tmp_path: Path, *, shared: bool
) -> None:
    """The workers share the port, and tell each other; with shared state they hear as replicas do."""
    port = free_port()
    changes: dict[str, object] = {
        "callbacks": {"public_url": f"http://127.0.0.1:{port}/cb", "listen": f"127.0.0.1:{port}"},
        "watch": {"poll_floor_seconds": 60, "poll_cap_seconds": 60},
    }
    with ExitStack() as stack:
        if shared:
            server = stack.enter_context(running_redis(tmp_path))
            changes["shared_state"] = {"url": server.url, "namespace": "docs", "timeout_seconds": 1.0}
        path = configuration(emulator, tmp_path, **changes)
        async with running(path, "--workers", "2") as gateway, asyncio.timeout(60):
            await _end_jobs_watched_at_all_workers(emulator, gateway)


async def _end_jobs_watched_at_all_workers(emulator: Emulator, gateway: Running) -> None:
    async with AsyncExitStack() as stack:
        # As many as make sure that each worker has one: the kernel spreads connections.
        clients = [await stack.enter_async_context(DocPreviewClient(gateway.address)) for _ in range(12)]
        for _ in range(3):
            emulator.hold_jobs()
            job_id = await running_job(clients[0])
            waiting = [asyncio.create_task(client.wait(BUCKET, job_id)) for client in clients]
            while "docpreview_watchers 12.0" not in (await page(gateway.admin_port, "/metrics"))[1]:  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.05)
            emulator.release_jobs()
            async with asyncio.timeout(10):
                assert {job.state for job in await asyncio.gather(*waiting)} == {PreviewJob.STATE_SUCCESS}


def _files(folder: Path) -> bytes:
    return b"".join(each.read_bytes() for each in folder.rglob("*") if each.is_file())


async def test_no_log_metric_or_page_has_a_token_or_a_password_in_clear(emulator: Emulator, tmp_path: Path) -> None:
    """Of callbacks that come, that are forged, of no form or no HTTP, with the log at its most talkative."""
    port = free_port()
    password, wrong = "hunter2-of-the-document", "W" * 22
    changes: dict[str, object] = {
        "callbacks": {"public_url": f"http://127.0.0.1:{port}/cb", "listen": f"127.0.0.1:{port}"},
        "logging": {"level": "DEBUG", "format": "json", "access": "all"},
    }
    path = configuration(emulator, tmp_path, **changes)
    async with running(path) as gateway, DocPreviewClient(gateway.address) as client, asyncio.timeout(60):
        job = await client.create(
            BUCKET, "a.pdf", output_object="out/${Number}.jpg", options=PreviewOptions(password=password)
        )
        address = address_in(emulator)
        token = address.rpartition("/")[2]
        body = {"EventName": "TaskFinish", "JobsDetail": [{"JobId": job.job_id, "DocPassword": password}]}
        async with httpx.AsyncClient(trust_env=False) as vendor:
            for url in (address, f"http://127.0.0.1:{port}/cb/{wrong}", f"{address}/{password}"):
                for sent in (body, [body], {"JobsDetail": password}):
                    assert (await vendor.post(url, json=sent)).status_code == 200
                await vendor.request("PROPFIND", url)
                # What is too long is not read to its end.
                with suppress(httpx.TransportError):
                    await vendor.post(url, json=[password, "x" * 2_000_000])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{token} {password}\r\nno HTTP\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        emulator.release_jobs()
        await client.wait(BUCKET, job.job_id)
        pages = "".join([(await page(gateway.admin_port, each))[1] for each in ("/", "/metrics", "/calls", "/readyz")])
    written = _files(tmp_path) + pages.encode()
    assert b"is no HTTP" in written
    assert b"docpreview_callbacks_total" in written
    for secret in (token, wrong, password):
        assert secret.encode() not in written
