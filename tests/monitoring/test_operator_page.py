"""The operator page: what it shows of a serving gateway, and how it looks in a real browser."""

from __future__ import annotations

import asyncio
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from prometheus_client import CollectorRegistry, Gauge

from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_client import DocPreviewClient, DocPreviewError
from docpreview_emulator import Emulator
from docpreview_gateway.creates.pages import CallerPages
from docpreview_gateway.model.call import Call, Method, ResponseInfo
from docpreview_gateway.model.callers import Caller, PageBudget, Rate
from docpreview_gateway.settings.upstream import BreakerSettings
from docpreview_gateway.telemetry.admin_server import admin_server
from docpreview_gateway.telemetry.operator_page import SAMPLES, OperatorPage
from docpreview_gateway.telemetry.prometheus_creates import PrometheusCreates
from docpreview_gateway.telemetry.prometheus_limits import PrometheusLimits
from docpreview_gateway.telemetry.prometheus_rpc import PrometheusRpc
from docpreview_gateway.telemetry.prometheus_upstream import PrometheusUpstream
from docpreview_gateway.telemetry.readiness import Dependency
from docpreview_gateway.telemetry.recent_calls import RecentCalls
from docpreview_gateway.upstream.ports import HostLoad
from docpreview_gateway.wiring.gateway import Gateway
from tests.chromium import Browser, check_looks, chromium
from tests.fakes.clock import FakeClock
from tests.integration.conftest import BUCKET, ONCE, OTHER_BUCKET, REGION, World, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceAsyncStub

PDF = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"
METHOD = Method("docpreview.v1.PreviewJobService", "GetPreviewJob", "unary")
KEY = "contract-of-shop.pdf"
CALLS = 60
"""Enough failing ones for the breaker to open."""


async def get(port: int, path: str = "/") -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(f"http://127.0.0.1:{port}{path}")


class _Text(HTMLParser):
    """Parser of the visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def words(html: str | None) -> str:
    assert html is not None
    reader = _Text()
    reader.feed(re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL))
    return " ".join(" ".join(reader.words).split())


class Page(OperatorPage):
    """The page over a registry and a clock of its own, for tests without a gateway."""

    def __init__(self, *, unready: str | None = None, dependencies: dict[str, Dependency] | None = None) -> None:
        self.registry, self.clock = CollectorRegistry(), FakeClock(1000.0)
        self.calls = PrometheusRpc(self.registry)
        self.recent = RecentCalls(self.clock)
        found = dependencies or {}
        super().__init__(
            self.registry, self.clock, unready=lambda: unready, dependencies=lambda: found, recent=self.recent
        )

    async def words(self, path: str = "/", **query: str) -> str:
        return words(await self.html(path, query))


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tmp_path) as found:
        yield found


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A gateway with a circuit breaker that opens after ten failures."""
    async with (
        Emulator() as emulator,
        Gateway(settings(emulator, breaker=BreakerSettings(min_calls=10))) as gateway,
        DocPreviewClient(f"127.0.0.1:{gateway.port}", options=ONCE) as client,
    ):
        yield World(emulator, gateway, client)


async def serve_well(world: World) -> str:
    """A job, made, watched and read, and a job that does not exist. The id of the first."""
    await world.upload(KEY, PDF.read_bytes())
    job = await world.client.create(BUCKET, KEY, output_object="p/${Number}.jpg")
    async for _ in world.client.watch(BUCKET, job.job_id):
        pass
    for _ in range(20):
        await world.client.get(BUCKET, job.job_id)
    with pytest.raises(DocPreviewError):
        await world.client.get(BUCKET, "d" + "0" * 32)
    return job.job_id


async def fail_jobs_and_calls(world: World) -> tuple[str, str]:
    """A damaged document, and a cloud that fails until the breaker opens. Ids of the job and of the last call."""
    world.emulator.put_object(BUCKET, REGION, "noise.pdf", b"no pdf at all")
    job = await world.client.create(BUCKET, "noise.pdf", output_object="q/${Number}.jpg")
    await world.client.wait(BUCKET, job.job_id)
    world.emulator.add_fault("error", "*", status=503, code="ServiceUnavailable", times=None)
    request_id = ""
    options = (("grpc.enable_retries", 0),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{world.gateway.port}", options=options) as channel:
        stub: PreviewJobServiceAsyncStub = PreviewJobServiceStub(channel)
        for number in range(CALLS):
            request_id = f"call-{number}"
            request = GetPreviewJobRequest(bucket=BUCKET, job_id=f"e{number:032x}")
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.GetPreviewJob(request, metadata=(("x-request-id", request_id),))
    return job.job_id, request_id


async def test_a_healthy_gateway_is_green_and_can_be_read_at_every_width_by_day_and_night(
    world: World, browser: Browser, tmp_path: Path
) -> None:
    """The browser reports no violation of the Content-Security-Policy, and nothing scrolls sideways on a phone."""
    await serve_well(world)
    url = f"http://127.0.0.1:{world.gateway.admin_port}/"
    await check_looks(browser, url, tmp_path)
    shown = await browser.text()
    for expected in ("docpreview-gateway healthy", BUCKET, "closed", "anonymous", "JOB_NOT_FOUND", "GetPreviewJob"):
        assert expected in shown
    assert "runbook " not in shown
    state, breaker = (f"getComputedStyle(document.querySelector('{name}')).color" for name in (".state", "td .state"))
    assert await browser.value(f"{state} == {breaker}") is True
    assert await browser.value("document.title") == "docpreview-gateway: healthy"
    assert KEY not in shown


async def test_failing_calls_turn_the_page_red_while_readyz_is_green(
    world: World, browser: Browser, tmp_path: Path
) -> None:
    """With how many calls failed, the breaker that is open, the failed job, and the runbooks to open.

    Another bucket works as far as anybody knows, so creates can succeed.
    """
    await serve_well(world)
    await world.client.list_page(OTHER_BUCKET)
    await fail_jobs_and_calls(world)
    assert (await get(world.gateway.admin_port, "/readyz")).status_code == 200
    await check_looks(browser, f"http://127.0.0.1:{world.gateway.admin_port}/", tmp_path)
    shown = await browser.text()
    assert "docpreview-gateway failing" in shown
    assert re.search(rf"{CALLS} of {CALLS + 21} calls of GetPreviewJob failed runbook error-budget-burns-fast", shown)
    assert f"the circuit breaker of {BUCKET} is open runbook breaker-open" in shown
    assert re.search(r"anonymous DAMAGED 1 \d+ s ago", shown)
    assert re.search(r"anonymous GetPreviewJob UPSTREAM_BREAKER_OPEN \d+ \d+ s ago call-", shown)


async def test_a_warning_is_no_failure_and_limits_certificates_and_long_names_fit_a_phone(
    browser: Browser, tmp_path: Path
) -> None:
    """A policy that is refused, a certificate of four days, and a caller near all its limits."""
    page, name = Page(), "an-archive-of-the-department-with-a-very-long-name" * 2
    caller = Caller(name, rate=Rate(10, 10), budget=PageBudget(per_day=1000))
    PrometheusLimits(page.registry).measure_callers(lambda: (caller,))
    page.clock.time = 1_000_000.0
    for _ in range(2900):
        page.calls.call_ended(METHOD, Call("r1", 0, caller), "OK", 0.1)
    gauges = {
        ("docpreview_file_refused", "file"): {"policy": 1.0},
        ("docpreview_certificate_expiry_timestamp_seconds", "certificate"): {"server": 1_000_000.0 + 4 * 86400},
    }
    for (metric, label), values in gauges.items():
        for value, number in values.items():
            Gauge(metric, metric, (label,), registry=page.registry).labels(value).set(number)
    for kind, number in (("used", 940), ("reserved", 10), ("leased", 0)):
        gauge = Gauge(f"docpreview_pages_{kind}", kind, ("caller", "period"), registry=page.registry)
        gauge.labels(caller.name, "day").set(number)
    async with admin_server("127.0.0.1", 0, registry=page.registry, unready=lambda: None, pages=page) as port:
        await check_looks(browser, f"http://127.0.0.1:{port}/", tmp_path)
    shown = await browser.text()
    assert "docpreview-gateway warning" in shown
    for expected in ("policy is invalid", "expires in 96 h", "950 of 1,000 pages of the day", "server: expires in 4 d"):
        assert expected in shown
    assert await browser.value("document.querySelectorAll('.problem.warn').length") == 3
    assert await browser.value("document.querySelectorAll('.bad').length") == 0


async def test_a_failed_call_is_found_by_its_id_with_the_keyboard_alone(
    world: World, browser: Browser, tmp_path: Path
) -> None:
    """The focus can be seen, and the ids of the answer lead on. Nothing names the document or a signed address."""
    await serve_well(world)
    job_id, request_id = await fail_jobs_and_calls(world)
    url = f"http://127.0.0.1:{world.gateway.admin_port}/?reload=off"
    await browser.open(url)
    for _ in range(10):
        await browser.press("Tab")
        assert await browser.value("getComputedStyle(document.activeElement).outlineStyle") != "none"
        if await browser.value("document.activeElement.id") == "id":
            break
    await browser.write(request_id)
    await browser.press("Enter")
    shown = await browser.text()
    assert f"Calls with {request_id} GetPreviewJob UNAVAILABLE" in shown
    assert "UPSTREAM_BREAKER_OPEN" in shown
    calls = f"http://127.0.0.1:{world.gateway.admin_port}/calls?id={job_id}"
    await check_looks(browser, calls, tmp_path)
    shown = await browser.text()
    assert f"Job {job_id} of anonymous in {BUCKET} failed: DAMAGED" in shown
    assert shown.index("WaitPreviewJob OK") < shown.index("CreatePreviewJob OK")
    html = (await get(world.gateway.admin_port, f"/calls?id={job_id}")).text
    assert not re.search(r"noise\.pdf|q-sign|q/|secret", html)


async def test_every_runbook_that_the_page_links_can_be_read_on_a_phone(
    world: World, browser: Browser, tmp_path: Path
) -> None:
    """They are part of the process."""
    await fail_jobs_and_calls(world)
    port = world.gateway.admin_port
    await browser.open(f"http://127.0.0.1:{port}/")
    links = await browser.value("[...document.querySelectorAll('.problem a')].map(link => link.href)")
    assert {link.rpartition("/")[2] for link in links} >= {"breaker-open.md", "error-budget-burns-fast.md"}
    for link in (*links, f"http://127.0.0.1:{port}/runbooks/"):
        await check_looks(browser, link, tmp_path)
    inner = await browser.value("[...document.querySelectorAll('main a')].map(link => link.href)")
    assert len(inner) > 15
    async with httpx.AsyncClient(trust_env=False) as client:
        answers = await asyncio.gather(*(client.get(link) for link in inner))
    assert {answer.status_code for answer in answers} == {200}
    assert (await get(port, "/runbooks/no-such.md")).status_code == 404


@pytest.mark.parametrize("path", ["/", "/calls", "/calls?id=d1", "/runbooks/", "/runbooks/breaker-open.md"])
async def test_no_page_is_cached_or_may_load_or_send_anything_elsewhere(world: World, path: str) -> None:
    """No scripts, frames or pictures; the form goes to the gateway itself."""
    answer = await get(world.gateway.admin_port, path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "form-action 'self'" in policy
    assert "unsafe" not in policy
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")
    assert not re.search(r"<(script|img|link|iframe)|style=|(href|action|src)=\"https?://", answer.text)


async def test_the_page_reloads_until_it_is_told_not_to() -> None:
    """A reload would take away what someone is reading or writing."""
    page, refresh = Page(), 'http-equiv="refresh"'
    assert refresh in str(await page.html("/", {}))
    assert refresh not in str(await page.html("/", {"reload": "off"}))
    assert refresh not in str(await page.html("/calls", {"id": "d1"}))


async def test_hostile_names_and_ids_are_escaped() -> None:
    """What has markup is shown as text."""
    page, evil = Page(unready='"><script>alert(1)</script>{{ 7 * 7 }}'), '"><script>alert(1)</script>{{ 7 * 7 }}'
    call = Call(evil, 0, Caller(evil, rate=Rate(1, 1)), response=ResponseInfo(reason=evil, job_ids=(evil,)))
    page.calls.call_ended(METHOD, call, "INTERNAL", 0.1)
    page.recent.call_ended(METHOD, call, "INTERNAL", 0.1)
    page.recent.job_failed(evil, evil, evil, evil)
    PrometheusUpstream(page.registry).measure_host(evil, lambda: HostLoad(1, 2, 3))
    for path, count in (("/", 11), ("/calls", 8)):
        html = await page.html(path, {"id": evil})
        assert "<script" not in str(html)
        assert words(html).count(evil) >= count


async def test_a_search_that_finds_nothing_says_what_was_searched() -> None:
    page = Page()
    page.recent.call_ended(METHOD, Call("r1", 0), "OK", 0.1)
    shown = await page.words("/calls", id="r2")
    assert "No call with this id. In memory is 1 call that ended: all since 1970-01-01 00:16:40 UTC" in shown
    assert "r1" not in shown


async def test_a_gateway_that_is_not_ready_says_why_at_the_top() -> None:
    """The reason is that of `/readyz`."""
    page = Page(unready="stopping")
    async with admin_server("127.0.0.1", 0, registry=CollectorRegistry(), unready=lambda: None, pages=page) as port:
        assert "failing Overview" in (shown := words((await get(port)).text))
        assert "not ready: stopping" in shown


@pytest.mark.parametrize("is_lost", [False, True])
async def test_records_that_are_failing_are_a_problem_with_the_text_of_readyz_and_their_runbook(
    *, is_lost: bool
) -> None:
    """A process that cannot record creates is ready all the same."""
    records = {"records": Dependency("creates.db: <disk> is full")}
    page = Page(dependencies=records)
    creates = PrometheusCreates(page.registry, PrometheusLimits(page.registry))
    creates.measure_store(is_failing=lambda: True, is_lost=lambda: is_lost)
    runbook = "store-lost" if is_lost else "records-failing"
    assert f"records failing: creates.db: <disk> is full runbook {runbook}" in await page.words()
    records["records"] = Dependency()
    assert "records failing" not in await page.words()


async def test_pages_are_shown_against_the_budget_and_say_that_reserved_and_leased_ones_are_among_them() -> None:
    """Also against one that was lowered below what is used."""
    page, caller = Page(), Caller("archive", budget=PageBudget(per_day=20))
    limits = PrometheusLimits(page.registry)
    limits.measure_callers(lambda: (caller,))
    creates = PrometheusCreates(page.registry, limits)
    creates.pages([CallerPages("archive", "day", 300, 26, 20, 0), CallerPages("archive", "month", 300, 26, 20, None)])
    page.calls.call_ended(METHOD, Call("r1", 0, caller), "OK", 0.1)
    shown = await page.words()
    assert "archive has used 346 of 20 pages of the day runbook budget-nearly-used" in shown
    assert "Pages of the day and month, with reserved and leased ones, of the budget." in shown
    assert re.search(r"archive \S+ - 0 346 of 20 - ", shown)


@pytest.mark.parametrize(("count", "shown"), [(0, "0 creates of"), (1, "1 create of"), (2, "2 creates of")])
async def test_one_create_of_unknown_outcome_is_counted_in_the_singular(count: int, shown: str) -> None:
    page = Page()
    PrometheusCreates(page.registry, PrometheusLimits(page.registry)).unreconciled(count, None, 1000.0)
    assert f"{shown} unknown outcome" in await page.words()


async def test_figures_cover_the_last_minutes_only() -> None:
    """Calls before the oldest stored sample do not count: failed ones neither."""
    page = Page()
    for _ in range(600):
        page.calls.call_ended(METHOD, Call("r1", 0), "INTERNAL", 0.1)
    assert "600 of 600 calls of GetPreviewJob failed" in await page.words()
    for _ in range(SAMPLES + 1):
        page.clock.time += 15
        await page.sample()
    shown = await page.words()
    assert "figures of the last 5 min" in shown
    assert "healthy" in shown
    assert "0 calls a second" in shown
    page.clock.time += 10
    for _ in range(62):
        page.calls.call_ended(METHOD, Call("r1", 0), "OK", 0.04)
    shown = await page.words()
    assert "0.2 calls a second" in shown
    assert re.search(r"GetPreviewJob 0\.2 0 of 62 37\.5 ms 49\.8 ms", shown)


async def test_a_workers_admin_socket_has_no_page() -> None:
    """It has metrics and health only, and what its supervisor asks for."""
    async with admin_server("127.0.0.1", 0, registry=CollectorRegistry(), unready=lambda: None) as port:
        assert (await get(port)).status_code == 404
