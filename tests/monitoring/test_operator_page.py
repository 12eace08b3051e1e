"""The operator page of a serving gateway, in a real browser."""

from __future__ import annotations

import re
import struct
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from docpreview_client import DocPreviewError
from docpreview_gateway.model.call import Call, Method, ResponseInfo
from docpreview_gateway.model.callers import Caller, Rate
from docpreview_gateway.telemetry.admin_server import admin_server
from docpreview_gateway.telemetry.operator_page import SAMPLES, OperatorPage
from docpreview_gateway.telemetry.prometheus_creates import PrometheusCreates
from docpreview_gateway.telemetry.prometheus_limits import PrometheusLimits
from docpreview_gateway.telemetry.prometheus_rpc import PrometheusRpc
from docpreview_gateway.telemetry.prometheus_upstream import PrometheusUpstream
from docpreview_gateway.upstream.ports import HostLoad
from tests.chromium import document, screenshot
from tests.fakes.clock import FakeClock
from tests.integration.conftest import BUCKET, World

PDF = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"
METHOD = Method("docpreview.v1.PreviewJobService", "GetPreviewJob", "unary")


async def get(port: int) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"http://127.0.0.1:{port}/")


class _Text(HTMLParser):
    """Parser of the visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def words(html: str) -> str:
    reader = _Text()
    reader.feed(re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL))
    return " ".join(" ".join(reader.words).split())


async def test_a_serving_gateway_shows_its_calls_without_policy_violations_in_every_size(
    world: World, tmp_path: Path
) -> None:
    """The browser reports no violation of the Content-Security-Policy."""
    await world.upload("a.pdf", PDF.read_bytes())
    job = await world.client.create(BUCKET, "a.pdf", output_object="p/${Number}.jpg")
    async for _ in world.client.watch(BUCKET, job.job_id):
        pass
    with pytest.raises(DocPreviewError):
        await world.client.get(BUCKET, "d" + "0" * 32)
    url = f"http://127.0.0.1:{world.gateway.admin_port}/"
    shown = words(await document(url, tmp_path))
    for expected in ("docpreview-gateway ready", BUCKET, "closed", "anonymous", "JOB_NOT_FOUND", "GetPreviewJob"):
        assert expected in shown
    for name, width, dark in (("light", 1200, False), ("dark", 1200, True), ("narrow", 500, False)):
        picture = await screenshot(url, tmp_path / f"{name}.png", width=width, height=1200, dark=dark)
        assert struct.unpack(">II", picture[16:24]) == (width, 1200)
        assert len(picture) > 20_000


async def test_the_page_is_never_cached_and_may_load_only_its_own_style(world: World) -> None:
    """No scripts, frames, forms or caching."""
    answer = await get(world.gateway.admin_port)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert not re.search(r"<(script|img|link|form|input|iframe)|style=|https?://", answer.text)


async def test_hostile_names_are_escaped() -> None:
    """A name with markup is shown as text."""
    registry, evil = CollectorRegistry(), '"><script>alert(1)</script>{{ 7 * 7 }}'
    calls = PrometheusRpc(registry)
    calls.call_ended(
        METHOD, Call("r1", 0, Caller(evil, rate=Rate(1, 1)), response=ResponseInfo(reason=evil)), "OK", 0.1
    )
    PrometheusUpstream(registry).measure_host(evil, lambda: HostLoad(1, 2, 3))
    page = OperatorPage(registry, FakeClock(), lambda: evil)
    assert "<script" not in page.html()
    assert words(page.html()).count(evil) >= 4


async def test_a_gateway_that_is_not_ready_shows_its_reason_at_the_top() -> None:
    """The reason is that of `/readyz`."""
    page = OperatorPage(CollectorRegistry(), FakeClock(), lambda: "stopping")
    async with admin_server("127.0.0.1", 0, registry=CollectorRegistry(), unready=lambda: None, page=page) as port:
        assert "not ready: stopping" in words((await get(port)).text)


@pytest.mark.parametrize("is_lost", [False, True])
def test_records_that_are_failing_are_a_note_with_the_text_of_readyz_and_their_runbook(*, is_lost: bool) -> None:
    """A process that cannot record creates is ready all the same."""
    registry, problem = CollectorRegistry(), "creates.db: <disk> is full"
    creates = PrometheusCreates(registry, PrometheusLimits(registry))
    creates.measure_store(is_failing=lambda: bool(problem), is_lost=lambda: is_lost)
    page = OperatorPage(registry, FakeClock(), lambda: None, lambda: problem)
    runbook = "store-lost.md" if is_lost else "records-failing.md"
    assert f"records failing: creates.db: <disk> is full. Runbook: docs/runbooks/{runbook}." in words(page.html())
    assert (Path(__file__).parents[2] / "docs" / "runbooks" / runbook).exists()
    problem = ""
    assert "records failing" not in words(page.html())


@pytest.mark.parametrize(("count", "shown"), [(0, "0 creates of"), (1, "1 create of"), (2, "2 creates of")])
def test_one_create_of_unknown_outcome_is_counted_in_the_singular(count: int, shown: str) -> None:
    registry = CollectorRegistry()
    PrometheusCreates(registry, PrometheusLimits(registry)).unreconciled(count, None, 1000.0)
    assert f"{shown} unknown outcome" in words(OperatorPage(registry, FakeClock(), lambda: None).html())


async def test_figures_cover_the_last_minutes_only() -> None:
    """Calls before the oldest stored sample do not count."""
    registry, clock = CollectorRegistry(), FakeClock(1000.0)
    calls, page = PrometheusRpc(registry), OperatorPage(registry, clock, lambda: None)
    for _ in range(600):
        calls.call_ended(METHOD, Call("r1", 0), "OK", 0.1)
    for _ in range(SAMPLES + 1):
        clock.time += 15
        await page.sample()
    assert "figures of the last 5 min 0 calls a second" in words(page.html()).replace("  ", " ")
    clock.time += 10
    for _ in range(62):
        calls.call_ended(METHOD, Call("r1", 0), "OK", 0.1)
    assert "0.2 calls a second" in words(page.html())


async def test_a_workers_admin_socket_has_no_page() -> None:
    """It has metrics and health only."""
    async with admin_server("127.0.0.1", 0, registry=CollectorRegistry(), unready=lambda: None) as port:
        assert (await get(port)).status_code == 404
