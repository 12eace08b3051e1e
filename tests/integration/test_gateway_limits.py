"""Rate limits and page budgets of a real gateway, as its callers see them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_client import BudgetExhausted, DocPreviewClient, Throttled, Unavailable
from docpreview_emulator import Emulator
from docpreview_gateway.settings.sections import LimitSettings, SharedStateSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import BUCKET, ONCE, REGION, settings
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import Mapping

    from docpreview.v1.usage_service_pb2 import Usage
    from docpreview_gateway.settings.loading import Settings

DOCUMENT = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"
TIMEOUT = 20.0


def limited(emulator: Emulator, anonymous: Mapping[str, object], **more: object) -> Settings:
    return settings(emulator, limits=LimitSettings.model_validate({"anonymous": anonymous}), **more)


def client_of(gateway: Gateway) -> DocPreviewClient:
    return DocPreviewClient(f"127.0.0.1:{gateway.port}", options=ONCE)


async def charged(client: DocPreviewClient) -> Usage:
    """The usage once no pages are reserved."""
    async with asyncio.timeout(TIMEOUT):
        while (usage := await client.usage()).day.reserved_pages:  # noqa: ASYNC110 - the gateway charges in the background
            await asyncio.sleep(0.2)
    return usage


def sample(gateway: Gateway, name: str, **labels: str) -> float | None:
    return gateway.registry.get_sample_value(name, {"caller": "anonymous", **labels})


async def first_sample(gateway: Gateway, name: str, **labels: str) -> float:
    async with asyncio.timeout(TIMEOUT):
        while (value := sample(gateway, name, **labels)) is None:  # noqa: ASYNC110 - the gateway reads in the background
            await asyncio.sleep(0.05)
    return value


async def test_a_call_beyond_the_rate_is_throttled_with_the_limits_name_and_the_wait() -> None:
    """Metrics count admitted and refused calls."""
    rates = {"GetUsage": {"per_second": 0.01, "burst": 2}}
    async with (
        Emulator() as emulator,
        Gateway(limited(emulator, {"method_rates": rates})) as gateway,
        client_of(gateway) as client,
    ):
        for _ in range(2):
            await client.usage()
        with pytest.raises(Throttled) as caught:
            await client.usage()
        assert caught.value.reason == "RATE_LIMITED"
        ((subject, _),) = caught.value.quota
        assert subject == "caller:anonymous:GetUsage"
        assert caught.value.retry_delay is not None
        assert 90 < caught.value.retry_delay.total_seconds() <= 100
        counted = [
            sample(gateway, "docpreview_limit_decisions_total", limit="method_rate", outcome=outcome)
            for outcome in ("allowed", "refused")
        ]
        assert counted == [2, 1]


async def test_a_page_budget_survives_a_restart() -> None:
    """The next process charges the pages of a job that had no watcher."""
    async with Emulator() as emulator:
        emulator.put_object(BUCKET, REGION, "a.pdf", DOCUMENT.read_bytes())
        values = limited(emulator, {"budget": {"per_day": 57, "estimate": 50}})
        async with Gateway(values) as gateway, client_of(gateway) as client:
            job = await client.create(BUCKET, "a.pdf", output_object="p-${Page}.jpg")
            usage = await client.usage()
            assert (usage.day.used_pages + usage.day.reserved_pages) in {50, 7}
        async with Gateway(values) as gateway, client_of(gateway) as client:
            # Metrics are those of the store, before this process has made a create.
            assert await first_sample(gateway, "docpreview_pages_left", period="day") in {7, 50}
            usage = await charged(client)
            assert (usage.caller, usage.day.used_pages, usage.day.left_pages) == ("anonymous", 7, 50)
            assert not usage.month.HasField("budget_pages")
            assert (await client.get(BUCKET, job.job_id)).state == PreviewJob.STATE_SUCCESS
            await client.create(BUCKET, "a.pdf", output_object="q-${Page}.jpg")
            with pytest.raises(BudgetExhausted) as caught:
                await client.create(BUCKET, "a.pdf", output_object="r-${Page}.jpg")
            ((subject, _),) = caught.value.quota
            assert subject == "caller:anonymous:pages_per_day"


async def test_a_page_budget_is_shared_by_replicas_and_is_not_spent_uncounted_while_redis_is_down(
    tmp_path: Path,
) -> None:
    """A create whose pages cannot be counted is not sent: counts of each replica's own would give the budget again."""
    with running_redis(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        state = SharedStateSettings.model_validate({"url": server.url, "ledger_timeout_seconds": 2})
        budget = {"budget": {"per_day": 21, "estimate": 7}}
        async with Emulator() as emulator:
            emulator.put_object(BUCKET, REGION, "a.pdf", DOCUMENT.read_bytes())
            async with (
                Gateway(limited(emulator, budget, shared_state=state)) as one,
                Gateway(limited(emulator, budget, shared_state=state)) as other,
                client_of(one) as first,
                client_of(other) as second,
            ):
                await first.create(BUCKET, "a.pdf", output_object="p-${Page}.jpg")
                await second.create(BUCKET, "a.pdf", output_object="q-${Page}.jpg")
                assert (await charged(first)).day.used_pages == (await charged(second)).day.used_pages == 14
                server.kill()
                with pytest.raises(Unavailable) as refused:
                    await second.create(BUCKET, "a.pdf", output_object="r-${Page}.jpg", timeout=timedelta(seconds=3))
                assert refused.value.reason == "LIMITER_UNAVAILABLE"
                assert emulator.accepted_jobs == 2
                server.start()
                await created(second, "r-${Page}.jpg")
                assert (await charged(first)).day.used_pages == 21
                with pytest.raises(BudgetExhausted):
                    await first.create(BUCKET, "a.pdf", output_object="s-${Page}.jpg")


async def created(client: DocPreviewClient, output: str) -> PreviewJob:
    """The job of a create that is repeated until the budget can be counted again."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            with suppress(Unavailable):
                return await client.create(BUCKET, "a.pdf", output_object=output)
            await asyncio.sleep(0.2)
