"""Sites of creates and page budgets: a cloud, callers with budgets, and gateways before it whose times are short."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview.v1.usage_service_pb2 import GetUsageRequest, Usage
from docpreview.v1.usage_service_pb2_grpc import UsageServiceStub
from docpreview_emulator import Emulator
from docpreview_emulator import Settings as EmulatorSettings
from tests.integration.conftest import BUCKET, OTHER_BUCKET, REGION, settings
from tests.integration.identity import Policy, bearer
from tests.unit.rpc.conftest import error_info

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.wiring.gateway import Gateway

LEDGER = {"signature_seconds": 5.0, "fence_slack_seconds": 1.0, "visibility_seconds": 1.0}
FENCE = 5 + 1 + 1 + 3
"""Seconds after which a list proves that a create has made no job, and some for whole seconds and the machine."""

DOCUMENT = "in/a.pdf"
OUTPUT = "previews/${Number}.jpg"
ONE_PAGE = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n\
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 90 90]>>endobj\ntrailer<</Root 1 0 R>>"
CHANGED = ONE_PAGE + b"\n%%EOF"


class Answer(NamedTuple):
    """What a caller was told: a job, or a reason and its text."""

    job_id: str = ""
    reason: str = ""
    text: str = ""


@dataclass
class Caller:
    """A caller with a channel of its own and without retries."""

    name: str
    channel: grpc.aio.Channel
    metadata: tuple[tuple[str, str], ...]

    async def create(
        self,
        document: str = DOCUMENT,
        output: str = OUTPUT,
        *,
        request_id: str = "",
        bucket: str = BUCKET,
        seconds: float = 20.0,
        **options: Any,
    ) -> PreviewJob:
        """Create a job whose `user_data` is the caller's name and the document."""
        request = CreatePreviewJobRequest(
            bucket=bucket,
            input_object=document,
            output=ObjectLocation(object=output),
            request_id=request_id,
            user_data=f"{self.name}:{request_id or document}",
        )
        for name, value in options.items():
            setattr(request.options, name, value)
        return await self.send(request, seconds)

    async def send(self, request: CreatePreviewJobRequest, seconds: float = 20.0) -> PreviewJob:
        stub: Any = PreviewJobServiceStub(self.channel)
        job: PreviewJob = await stub.CreatePreviewJob(request, metadata=self.metadata, timeout=seconds)
        return job

    async def answer(self, *arguments: Any, **named: Any) -> Answer:
        """What a create is answered."""
        try:
            return Answer((await self.create(*arguments, **named)).job_id)
        except grpc.aio.AioRpcError as error:
            if error.trailing_metadata() and any(
                key == "grpc-status-details-bin" for key, _ in error.trailing_metadata()
            ):
                return Answer(reason=str(error_info(error).reason), text=error.details() or "")
            return Answer(reason=error.code().name, text=error.details() or "")

    async def usage(self) -> Usage:
        stub: Any = UsageServiceStub(self.channel)
        usage: Usage = await stub.GetUsage(GetUsageRequest(), metadata=self.metadata, timeout=10)
        return usage

    async def pages(self) -> tuple[int, int]:
        """Used and reserved pages of the day."""
        day = (await self.usage()).day
        return day.used_pages, day.reserved_pages


@dataclass
class Site:
    """A cloud with a document in two buckets, and a policy. Jobs stay Running until they are released."""

    emulator: Emulator
    policy: Policy
    folder: Path

    def settings(self, *, cloud: str = "", **changes: Any) -> Settings:
        """Settings of a gateway; `cloud` is its address of the cloud, if it is not the emulator's own."""
        values: dict[str, Any] = {
            "policy": {"file": self.policy.path},
            "state_dir": self.folder / "state",
            "ledger": LEDGER,
        }
        if cloud:
            values["upstream"] = {"endpoint": cloud}
        values["state_dir"].mkdir(exist_ok=True)
        return settings(self.emulator, **(values | changes))

    @property
    def policed(self) -> dict[str, Any]:
        """Changes of a process's configuration: the policy, and the buckets that it names."""
        buckets = [{"name": name, "region": REGION, "credentials": "main"} for name in (BUCKET, OTHER_BUCKET)]
        return {"policy": {"file": str(self.policy.path)}, "buckets": buckets}

    @asynccontextmanager
    async def caller(self, gateway: Gateway | int, name: str = "one") -> AsyncIterator[Caller]:
        port = gateway if isinstance(gateway, int) else gateway.port
        options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            yield Caller(name, channel, bearer(self.policy.tokens[name]))

    def put(self, data: bytes, document: str = DOCUMENT) -> None:
        """Replace the document."""
        self.emulator.put_object(BUCKET, REGION, document, data)

    def owner(self, job_id: str) -> str:
        """The user data of the create that made a job, as it reached the cloud, without marker."""
        return (self.emulator.job(job_id).spec.user_data or "foreign").split()[0]

    @property
    def made(self) -> Counter[str]:
        """Number of jobs of each owner."""
        return Counter(self.owner(job.job_id) for job in self.emulator.jobs)

    def sent(self, operation: str = "create") -> int:
        """Requests of this operation that reached the cloud."""
        return sum(request.operation == operation for request in self.emulator.requests)


@asynccontextmanager
async def site(
    folder: Path,
    callers: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    *,
    echo: bool = True,
    hold: bool = True,
) -> AsyncIterator[Site]:
    """A site with the callers `one` and `two` without limits, and the given ones."""
    policy = Policy(folder / "policy.yaml")
    without: Mapping[str, Any] = {}
    for name, limits in {"one": without, "two": without, **callers}.items():
        policy.add(name, BUCKET, **limits)
        policy.callers[name]["buckets"].append(
            {"bucket": OTHER_BUCKET, "input_prefixes": [""], "outputs": [{"bucket": OTHER_BUCKET, "prefixes": [""]}]}
        )
    policy.write()
    async with Emulator(settings=EmulatorSettings(echo_user_data=echo)) as emulator:
        for bucket in (BUCKET, OTHER_BUCKET):
            emulator.put_object(bucket, REGION, DOCUMENT, ONE_PAGE)
        if hold:
            emulator.hold_jobs()
        yield Site(emulator, policy, folder)


async def charged(caller: Caller, seconds: float = 30.0) -> int:
    """The caller's used pages once none are reserved."""
    async with asyncio.timeout(seconds):
        while (pages := await caller.pages())[1]:  # noqa: ASYNC110 - the gateway charges in the background
            await asyncio.sleep(0.2)
    return pages[0]
