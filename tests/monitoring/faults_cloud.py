"""Faults of the cloud and of the way to it."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import httpx
import yaml

from docpreview_client import DocPreviewClient
from docpreview_emulator import Emulator
from tests.edge_process import free_port
from tests.fakes.raw_server import Exchange, RawServer
from tests.integration.conftest import BUCKET, until
from tests.integration.gateway_processes import page
from tests.integration.issuer import AUDIENCE, ISSUER, Issuer
from tests.integration.test_failing_records import PROBE
from tests.integration.test_record_commands import new_id
from tests.monitoring.alert_stage import DOCUMENT, said
from tests.monitoring.faults import BURNS, fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.gateway_processes import Running
    from tests.monitoring.alert_stage import Trial

NO_BREAKER = {"min_calls": 0}
SHORT_LEDGER = {"signature_seconds": 5, "fence_slack_seconds": 1, "visibility_seconds": 1}
FAILING: dict[str, Any] = {"kind": "error", "status": 503, "code": "ServiceUnavailable", "times": None}
KEYS = {"secret_id": "example-secret-id", "secret_key": "EXAMPLEsecretKEY00000000000000000"}


@fault("DocpreviewBreakerOpen", beside=(*BURNS, "DocpreviewUpstreamFailing"))
async def breaker_open(trial: Trial) -> None:
    """The cloud answers everything with 503."""
    async with (
        trial.gateway(breaker={"min_calls": 5, "open_seconds": 1}) as gateway,
        trial.reads(gateway),
    ):
        await trial.ready(gateway)
        trial.emulator.add_fault(**FAILING)
        await trial.fires("DocpreviewBreakerOpen")
        assert "cloud failing: no bucket of the cloud can be used; " in await trial.unready(gateway)
        assert await page(gateway.admin_port, PROBE) == (200, "ready\n")
        text = said(await trial.shell(gateway).diagnose("breaker-open"))
        assert '"state":"open"' in text
        assert "UPSTREAM_UNAVAILABLE" in text
        trial.emulator.clear_faults()
        await trial.ends("DocpreviewBreakerOpen")
        await trial.ready(gateway)


@fault("DocpreviewUpstreamFailing", *BURNS)
async def cloud_failing(trial: Trial) -> None:
    """The cloud answers everything with 503, and no breaker keeps the calls from it."""
    async with trial.gateway(breaker=NO_BREAKER) as gateway, trial.reads(gateway):
        trial.emulator.add_fault(**FAILING)
        await trial.fires("DocpreviewUpstreamFailing", *BURNS)
        shell = trial.shell(gateway)
        assert "UPSTREAM_UNAVAILABLE" in said(await shell.diagnose("upstream-failing"), but=("doctor",))
        for name in ("error-budget-burns-fast", "error-budget-burns-slowly"):
            assert "GetPreviewJob" in said(await shell.diagnose(name))
        assert "records ok" in said(await shell.mend("error-budget-burns-fast"))
        trial.emulator.clear_faults()
        await trial.ends("DocpreviewUpstreamFailing", *BURNS)


@fault(*BURNS, beside=("DocpreviewUpstreamFailing", "DocpreviewBreakerOpen"))
async def cloud_hangs(trial: Trial) -> None:
    """The cloud answers gets later than callers wait, and all else at once. The runbook's queries show it."""
    async with trial.gateway(breaker=NO_BREAKER) as gateway, trial.reads(gateway, patience=2):
        await trial.scraped("docpreview_upstream_request_duration_seconds_count")
        trial.emulator.add_fault("latency", "get", seconds=20, times=None)
        await trial.fires(*BURNS)
        ran = await trial.shell(gateway).diagnose("error-budget-burns-fast")
        text = said(ran)
        assert 'operation="get", outcome_class="timeout"' in text
        assert re.search("reason=.(DEADLINE_EXCEEDED|UPSTREAM_TIMEOUT)", text)
        (tail,) = (each.output for each in ran if "histogram_quantile(0.99" in each.command)
        assert float(re.findall(r'operation="get"} => ([\d.]+)', tail)[0]) > 1
        (waiting,) = (each.output for each in ran if "docpreview_upstream_in_flight" in each.command)
        assert float(re.findall(r"=> ([\d.]+)", waiting)[0]) >= 1
        trial.emulator.clear_faults()
        await trial.ends("DocpreviewErrorBudgetBurnsFast")


@fault("DocpreviewCredentialsRefused")
async def credentials_refused(trial: Trial) -> None:
    """The key was rotated in the cloud and not here. The runbook's cure: write the new one to the file."""
    file = trial.folder / "cloud-keys.yaml"
    file.write_text(yaml.safe_dump(KEYS | {"secret_key": "OLDsecretKEY"}))
    async with trial.gateway(credentials={"main": {"file": str(file)}}) as gateway:
        assert await trial.create(gateway, new_id()) == "UPSTREAM_CREDENTIALS"
        await trial.fires("DocpreviewCredentialsRefused")
        assert "it refuses the gateway's key or signature" in await trial.unready(gateway)
        text = said(await trial.shell(gateway).diagnose("credentials-refused"), but=("doctor",))
        assert '"reason":"UPSTREAM_CREDENTIALS"' in text
        new = file.with_suffix(".new")
        new.write_text(yaml.safe_dump(KEYS))
        new.replace(file)
        await trial.ready(gateway)
        assert '"event":"reloaded"' in said(await trial.shell(gateway).diagnose("credentials-refused"), but=("doctor",))
        await trial.ends("DocpreviewCredentialsRefused")


class LaggingCloud:
    """A proxy before the emulator whose lists lack all jobs while it `lags`."""

    def __init__(self) -> None:
        self.lags = False
        self.emulator: Emulator | None = None
        self.url = ""

    @asynccontextmanager
    async def serving(self, emulator: Emulator) -> AsyncIterator[LaggingCloud]:
        self.emulator = emulator
        async with RawServer(self._forward) as server:
            self.url = server.url
            yield self

    async def _forward(self, exchange: Exchange) -> None:
        assert self.emulator is not None
        method, target, _ = exchange.request_line.split()
        head = exchange.head.decode("latin-1").split("\r\n")[1:]
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in head) if name]
        try:
            async with httpx.AsyncClient(trust_env=False) as client:
                answer = await client.request(
                    method, f"{self.emulator.url}{target}", headers=headers, content=exchange.body
                )
        except httpx.TransportError:
            exchange.reset()
            return
        text = answer.text
        if self.lags and method == "GET" and target.startswith("/doc_jobs?"):
            text = re.sub(r"<JobsDetail>.*?</JobsDetail>", "", text, flags=re.DOTALL)
        kept = ("content-type", "server", "x-ci-request-id", "date")
        lines = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items() if name.lower() in kept)
        await exchange.answer(text.encode(), f"{answer.status_code} {answer.reason_phrase}", lines)


@fault("DocpreviewListLag", beside=("DocpreviewReconciliationStuck",))
async def list_lag(trial: Trial) -> None:
    """The cloud's list lacks a job that it accepted while another create has an unknown outcome."""
    emulator = Emulator()
    async with emulator, LaggingCloud().serving(emulator) as cloud:
        changes: dict[str, Any] = {"cloud": cloud, "ledger": SHORT_LEDGER, "breaker": NO_BREAKER}
        async with trial.gateway(emulator=emulator, **changes) as gateway:
            cloud.lags = True
            emulator.add_fault("drop_after", "create")
            lost = asyncio.create_task(trial.create(gateway, new_id()))
            await until(lambda: emulator.accepted_jobs == 1)
            assert (await trial.create(gateway, new_id())).startswith("d")
            assert not (await lost).startswith("d")
            await trial.fires("DocpreviewListLag")
            text = said(await trial.shell(gateway).diagnose("list-lag"))
            assert "docpreview_list_lag_seconds" in text
            cloud.lags = False
            await trial.ends("DocpreviewListLag")


@fault("DocpreviewIssuerUnreachable")
async def issuer_unreachable(trial: Trial) -> None:
    """The issuer of signed tokens answers 503 from the start of the gateway on."""
    issuer, is_up = Issuer("ec1"), asyncio.Event()

    async def answer(exchange: Exchange) -> None:
        await exchange.answer(issuer.jwks().encode(), "200 OK" if is_up.is_set() else "503 Service Unavailable")

    async with RawServer(answer) as server:
        url = f"{server.url}/jwks"
        jwt = {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": url, "algorithms": ["ES256"]}
        async with trial.gateway(hurried=True, auth={"jwt": [jwt]}, **trial.policed()) as gateway:
            await trial.fires("DocpreviewIssuerUnreachable")
            shell = trial.shell(gateway, JWKS=url)
            text = said(await shell.diagnose("issuer-unreachable"))
            assert "status 503" in text
            assert text.endswith("503\n")
            is_up.set()
            assert said(await shell.diagnose("issuer-unreachable")).endswith("200\n")
            await trial.ends("DocpreviewIssuerUnreachable")


@fault("DocpreviewCallbacksMissing")
async def callbacks_missing(trial: Trial) -> None:
    """Nothing listens where the cloud calls back, and polls find the ends. The cure: the way is opened."""
    published, listens = free_port(), free_port()
    callbacks = {"public_url": f"http://127.0.0.1:{published}/cb", "listen": f"127.0.0.1:{listens}"}
    often = {"poll_floor_seconds": 0.1, "poll_cap_seconds": 0.2}
    async with trial.gateway(callbacks=callbacks, watch=often) as gateway, _ended_jobs(trial, gateway):
        await trial.fires("DocpreviewCallbacksMissing")
        text = said(await trial.shell(gateway).diagnose("callbacks-missing"))
        assert 'found="poll"' in text
        assert "no answer: connection refused" in text
        async with _passing_on(published, listens):
            await trial.ends("DocpreviewCallbacksMissing")
            assert "leads to this deployment" in said(await trial.shell(gateway).diagnose("callbacks-missing"))


@asynccontextmanager
async def _ended_jobs(trial: Trial, gateway: Running) -> AsyncIterator[None]:
    """Jobs that are waited for and end, two a second."""

    async def jobs() -> None:
        async with DocPreviewClient(gateway.address) as client:
            while True:
                trial.emulator.hold_jobs()
                job = await client.create(BUCKET, DOCUMENT, output_object="out/${RequestToken}/${Number}.jpg")
                waiting = asyncio.ensure_future(client.wait(BUCKET, job.job_id))
                await asyncio.sleep(0.5)
                trial.emulator.release_jobs()
                await waiting

    making = asyncio.create_task(jobs())
    try:
        yield
    finally:
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)


@asynccontextmanager
async def _passing_on(published: int, listens: int) -> AsyncIterator[None]:
    """A load balancer before the port of callbacks."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while data := await reader.read(65536):
                writer.write(data)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", listens)
        await asyncio.gather(copy(reader, outer), copy(inner, writer), return_exceptions=True)

    async with await asyncio.start_server(accept, "127.0.0.1", published):
        yield
