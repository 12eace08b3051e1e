"""A Prometheus with the shortened rules, and trials beside each other: the gateway of each is a job of its own."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc

from docpreview.v1.preview_job_pb2 import ObjectLocation
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, GetPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_emulator import Emulator
from tests.integration.conftest import BUCKET, REGION
from tests.integration.gateway_processes import configuration, page, running
from tests.integration.identity import Policy, bearer
from tests.integration.money import ONE_PAGE
from tests.monitoring.runbooks import Ran, Shell
from tests.monitoring.short_rules import alerts, write_short_rules
from tests.prometheus_server import Prometheus, running_prometheus
from tests.unit.rpc.conftest import error_info

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.integration.gateway_processes import Running

DOCUMENT = "in/a.pdf"
SITE = Path(__file__).with_name("hurried_site")
HURRIED = {"PYTHONPATH": os.pathsep.join([str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])])}
"""Environment of a gateway whose own long intervals are shorter, as the rules are."""

PATIENCE = 100.0
"""Seconds until an alert fires or ends, on a machine with much else to do."""

READERS, PAUSE = 6, 0.2
"""Callers that read, and seconds from a call to the next: failing calls take a second, with their retries."""


@dataclass
class Stage:
    """The Prometheus of all trials."""

    prometheus: Prometheus
    targets: Path

    def scrape(self, job: str, name: str, address: str, path: str = "/metrics") -> None:
        """Scrape an address as the job; `name` is that of its file: a second address replaces the first."""
        new = self.targets / f"{job}-{name}.new"
        new.write_text(json.dumps([{"targets": [address], "labels": {"job": job, "__metrics_path__": path}}]))
        new.replace(new.with_suffix(".json"))

    async def alerts(self, job: str) -> set[str]:
        """The names of the alerts that fire for the job now."""
        found = (await self.prometheus.get("/api/v1/alerts") or {"alerts": []})["alerts"]
        return {
            each["labels"]["alertname"]
            for each in found
            if each["state"] == "firing" and each["labels"].get("job") == job
        }


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[Stage]:
    """A Prometheus that evaluates the shortened rules and scrapes what the trials name."""
    targets = folder / "targets"
    targets.mkdir()
    rules = write_short_rules(folder)
    async with running_prometheus(folder, None, rules, targets=targets, patience="1s") as prometheus:
        await prometheus.until(bool, "/api/v1/rules")
        yield Stage(prometheus, targets)


@dataclass
class Trial:
    """One fault, the gateway that has it, and the alerts that come of it."""

    stage: Stage
    folder: Path
    job: str
    fired: set[str] = field(default_factory=set)
    """All alerts of the job that were seen to fire."""
    emulator: Emulator = field(init=False)
    policy: Policy = field(init=False)

    @asynccontextmanager
    async def gateway(
        self,
        *arguments: str,
        emulator: Emulator | None = None,
        cloud: Any = None,
        hurried: bool = False,
        **changes: Any,
    ) -> AsyncIterator[Running]:
        """A cloud with a document whose jobs stay Running, and a gateway before it that Prometheus scrapes.

        `emulator` is one that runs, and `cloud` what the gateway takes for the cloud, if not the emulator itself.
        """
        async with AsyncExitStack() as stack:
            self.emulator = emulator if emulator is not None else await stack.enter_async_context(Emulator())
            self.emulator.put_object(BUCKET, REGION, DOCUMENT, ONE_PAGE)
            path = configuration(cloud or self.emulator, self.folder, **changes)
            gateway = await stack.enter_async_context(running(path, *arguments, variables=HURRIED if hurried else {}))
            self.stage.scrape(self.job, "gateway", f"127.0.0.1:{gateway.admin_port}")
            yield gateway

    def policed(self, **limits: Any) -> dict[str, Any]:
        """Changes of the configuration: a policy with the caller `one`."""
        self.policy = Policy(self.folder / "policy.yaml")
        self.policy.add("one", BUCKET, **limits)
        self.policy.write()
        return {"policy": {"file": str(self.policy.path)}}

    @property
    def log(self) -> str:
        """All that the gateway has logged."""
        return "".join(path.read_text() for path in self.folder.glob("*.log"))

    @property
    def edge(self) -> tuple[Path, Path]:
        """What an Envoy before the gateway is made from: the gateway's configuration, and a folder."""
        return self.folder / "gateway.yaml", self.folder / "edge"

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return bearer(self.policy.tokens["one"]) if hasattr(self, "policy") else ()

    async def create(self, gateway: Running, request_id: str = "", webhook: str = "", **options: Any) -> str:
        """The id of a new job, or the reason of the error."""
        request = CreatePreviewJobRequest(
            bucket=BUCKET,
            input_object=DOCUMENT,
            output=ObjectLocation(object="previews/${Number}.jpg"),
            request_id=request_id,
            webhook=webhook,
        )
        for name, value in options.items():
            setattr(request.options, name, value)
        async with grpc.aio.insecure_channel(gateway.address) as channel:
            stub: Any = PreviewJobServiceStub(channel)
            try:
                job = await stub.CreatePreviewJob(request, metadata=self.metadata, timeout=10)
            except grpc.aio.AioRpcError as error:
                return str(error_info(error).reason)
        return str(job.job_id)

    @asynccontextmanager
    async def reads(
        self, gateway: Running, metadata: tuple[tuple[str, str], ...] = (), patience: float = 5
    ) -> AsyncIterator[None]:
        """Callers that read jobs all the time, past the cache; each call has `patience` as its deadline in seconds."""
        request = GetPreviewJobRequest(bucket=BUCKET, job_id="d" + "0" * 32)
        sent = (("cache-control", "no-cache"), *(metadata or self.metadata))

        async def read() -> None:
            async with grpc.aio.insecure_channel(gateway.address) as channel:
                stub: Any = PreviewJobServiceStub(channel)
                while True:
                    with suppress(grpc.aio.AioRpcError):
                        await stub.GetPreviewJob(request, metadata=sent, timeout=patience)
                    await asyncio.sleep(PAUSE)

        tasks = [asyncio.create_task(read()) for _ in range(READERS)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def fires(self, *names: str) -> None:
        """Wait until all of these alerts fire."""
        await self._until(lambda now: set(names) <= now, f"{', '.join(names)} to fire")

    async def ends(self, *names: str) -> None:
        """Wait until none of these alerts fires."""
        await self._until(lambda now: not set(names) & now, f"{', '.join(names)} to end")

    async def _until(self, condition: Callable[[set[str]], bool], what: str) -> None:
        now: set[str] = set()
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    now = await self.stage.alerts(self.job)
                    self.fired |= now
                    if condition(now):
                        return
                    await asyncio.sleep(0.25)
        except TimeoutError:
            raise AssertionError(f"waited for {what}; what fires: {now or 'nothing'}") from None

    async def scraped(self, metric: str) -> None:
        """Wait until Prometheus has a sample of the metric: what increases afterwards is seen to increase."""
        await self.stage.prometheus.until(
            lambda found: found["result"], "/api/v1/query", query=f'{metric}{{job="{self.job}"}}'
        )

    def shell(self, gateway: Running, *, edge: str = "", **values: str) -> Shell:
        """The shell of the engineer on call; `edge` is the address of Envoy's metrics."""
        usual = {"PROMETHEUS": self.stage.prometheus.url, "BUCKET": BUCKET, "CALLER": "one"}
        ports = {"9464": str(gateway.admin_port), "50051": str(gateway.port)}
        ports |= {"9465": edge.rpartition(":")[2]} if edge else {}
        variables = {"DOCPREVIEW_CONFIG": str(self.folder / "gateway.yaml"), "POD_LOGS": str(self.folder)}
        return Shell(usual | values, ports, variables)

    async def unready(self, gateway: Running) -> str:
        """What `/readyz` says, once it is not ready."""
        async with asyncio.timeout(PATIENCE):
            while (answer := await page(gateway.admin_port, "/readyz"))[0] == HTTPStatus.OK:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.25)
        return answer[1]

    async def ready(self, gateway: Running) -> None:
        """Wait until `/readyz` is ready."""
        async with asyncio.timeout(PATIENCE):
            while await page(gateway.admin_port, "/readyz") != (HTTPStatus.OK, "ready\n"):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.25)


def said(ran: list[Ran], *, but: tuple[str, ...] = ()) -> str:
    """All that the commands printed. Each has succeeded, but for those with a word of `but`."""
    for each in ran:
        assert each.code == 0 or any(word in each.command for word in but), each
    return "".join(each.output for each in ran)


def runbook(alert: str) -> str:
    """The name of the alert's runbook, without its folder."""
    return Path(urlsplit(alerts()[alert]["annotations"]["runbook"]).path).stem
