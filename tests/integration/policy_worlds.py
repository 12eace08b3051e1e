"""Worlds for the oracle of the policy: random callers, jobs and outputs, a running gateway, and answers to compare."""

from __future__ import annotations

import posixpath
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from docpreview.v1 import preview_job_service_pb2 as pb
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview.v1.usage_service_pb2 import GetUsageRequest
from docpreview.v1.usage_service_pb2_grpc import UsageServiceStub
from docpreview_gateway.settings.access import PolicySettings
from docpreview_gateway.settings.upstream import CacheSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.fakes.job_cloud import CloudJob, JobCloud
from tests.integration.conftest import BUCKET, OTHER_BUCKET, REGION, settings
from tests.integration.identity import Policy, bearer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path
    from random import Random

BUCKETS = (BUCKET, OTHER_BUCKET)
INPUTS = ("in/a.pdf", "in/b/c.pdf", "x/a.pdf", "top.pdf", "in/../x/a.pdf", "in//a.pdf", "in/%2e%2e/x.pdf", "inside.pdf")
INPUT_PREFIXES = ("", "in/", "in/b/", "x/")
TEMPLATES = (
    "p/${Number}.jpg",
    "p/q/${Page}",
    "o/${Number}/${Page}",
    "/p/${Number}",
    "o//${Page}",
    "${Number}.png",
    "p",
)
OUTPUT_PREFIXES = ("", "p/", "p/q/", "o/")
ODD_KEYS = ("", "/", "in/a.pdf", "p/one.jpg", "p/%31.jpg", "p/../o/1.jpg")
STATES = ("Success", "Success", "Success", "Failed", "Running")
METHODS = (
    *("CreatePreviewJob", "GetPreviewJob", "BatchGetPreviewJobs", "ListPreviewJobs", "WaitPreviewJob"),
    *("WatchPreviewJob", "WatchPreviewJobs", "GetUsage"),
)
TTL = Duration(seconds=600)


@dataclass(frozen=True)
class OracleCaller:
    """A caller's part of a policy: `buckets` has input prefixes, outputs and pages by source bucket."""

    methods: tuple[str, ...]
    buckets: dict[str, tuple[Sequence[str], dict[str, Sequence[str]], dict[str, Sequence[str]]]]
    page_urls: bool = True

    def entry(self) -> dict[str, Any]:
        """As a policy file has it."""

        def places(found: dict[str, Sequence[str]]) -> list[dict[str, Any]]:
            return [{"bucket": bucket, "prefixes": list(prefixes)} for bucket, prefixes in found.items()]

        buckets = [
            {"bucket": bucket, "input_prefixes": list(inputs), "outputs": places(outputs), "pages": places(pages)}
            for bucket, (inputs, outputs, pages) in self.buckets.items()
        ]
        more = {} if self.page_urls else {"page_urls": False}
        return {"methods": list(self.methods), "buckets": buckets, "budget": {"per_month": 10**6}} | more

    # The reference: what docs/security.md promises, in ten lines and with none of the gateway's code.

    def may_call(self, method: str, bucket: str) -> bool:
        return bool({"*", method} & set(self.methods)) and bucket in self.buckets

    def may_create(self, bucket: str, key: str, output: str, template: str) -> bool:
        inputs, outputs, _ = self.buckets[bucket]
        return under(key, inputs) and under(template, outputs.get(output, ()))

    def sees(self, job: CloudJob) -> bool:
        return under(job.input_object, self.buckets[job.bucket][0])

    def gets(self, job: CloudJob, key: str) -> bool:
        _, outputs, pages = self.buckets[job.bucket]
        places = (*outputs.get(job.output[0], ()), *pages.get(job.output[0], ()))
        return self.page_urls and key in made_by(job) and under(key, places)


def under(key: str, prefixes: Sequence[str]) -> bool:
    """Whether a key is under a prefix, and still is when its encoding and its path are resolved."""
    plain = posixpath.normpath(unquote(key)) == unquote(key)
    return any(not prefix or (key.startswith(prefix) and plain) for prefix in prefixes)


def made_by(job: CloudJob) -> set[str]:
    """The keys that the job can have made, for numbers below ten."""
    numbers = range(10)
    template = job.output[2].removeprefix("/")
    return {
        template.replace("${Number}", str(number)).replace("${Page}", str(page))
        for number in numbers
        for page in numbers
    }


def random_caller(dice: Random) -> OracleCaller:
    def places() -> dict[str, Sequence[str]]:
        return {
            bucket: dice.sample(OUTPUT_PREFIXES, dice.randint(1, 2))
            for bucket in dice.sample(BUCKETS, dice.randint(0, 2))
        }

    page_urls = dice.random() < 0.8
    return OracleCaller(
        ("*",) if dice.random() < 0.6 else tuple(dice.sample(METHODS, dice.randint(1, 6))),
        {
            bucket: (dice.sample(INPUT_PREFIXES, dice.randint(1, 2)), places(), places() if page_urls else {})
            for bucket in dice.sample(BUCKETS, dice.randint(1, 2))
        },
        page_urls,
    )


def random_job(dice: Random, job_id: str, created: int = 0, **more: Any) -> CloudJob:
    template = dice.choice(TEMPLATES)
    key = template.replace("${Number}", "1")
    pages = [key.replace("${Page}", str(number)) for number in range(1, dice.randint(2, 4))]
    output = dice.choice((*BUCKETS, *BUCKETS, "stranger-1250000000", ""))
    values: dict[str, Any] = {
        "bucket": dice.choice(BUCKETS),
        "input_object": dice.choice(INPUTS),
        "state": dice.choice(STATES),
        "output": (output, REGION, template),
        "pages": (*pages, *dice.sample(ODD_KEYS, 2)),
    }
    return CloudJob(job_id, created=created, **values | more)


class Answer(NamedTuple):
    """What a caller can see of a call: its status, reason, messages and all metadata."""

    code: str
    reason: str
    messages: tuple[Any, ...]
    metadata: tuple[tuple[str, Any], ...]
    details: str

    @property
    def shown(self) -> tuple[object, ...]:
        """Everything but the metadata."""
        return (self.code, self.reason, self.messages, self.details)


class ShownJob(NamedTuple):
    """A job as a caller sees it: everything, with the keys of its pages and the addresses without their signature."""

    job_id: str
    keys: tuple[str, ...]
    addresses: tuple[str, ...]
    rest: bytes = b""

    @classmethod
    def of(cls, job: PreviewJob) -> ShownJob:
        pages = job.result.pages
        addresses = tuple(urlsplit(page.url).path.rpartition("/objects/")[2] for page in pages if page.url)
        bare = PreviewJob.FromString(job.SerializeToString())
        for page in bare.result.pages:
            page.url = ""
        keys = tuple(page.object for page in pages)
        return cls(job.job_id, keys, addresses, bare.SerializeToString(deterministic=True))


@dataclass
class Talk:
    """The calls of one caller. Each has the same request id in every world."""

    channel: grpc.aio.Channel
    token: str
    calls: int = 0
    answers: list[Answer] = field(default_factory=list)

    async def create(self, bucket: str, key: str, output: str, template: str) -> Answer:
        request = pb.CreatePreviewJobRequest(
            bucket=bucket,
            input_object=key,
            output=ObjectLocation(bucket=output, object=template),
            options=PreviewOptions(start_page=1, end_page=1),
        )
        return await self._call("CreatePreviewJob", request)

    async def get(self, bucket: str, job_id: str, *, ttl: bool = True) -> Answer:
        request = pb.GetPreviewJobRequest(bucket=bucket, job_id=job_id, page_url_ttl=TTL if ttl else None)
        return await self._call("GetPreviewJob", request)

    async def batch_get(self, bucket: str, job_ids: Sequence[str]) -> Answer:
        request = pb.BatchGetPreviewJobsRequest(bucket=bucket, job_ids=job_ids, page_url_ttl=TTL)
        answer = await self._call("BatchGetPreviewJobs", request)
        batches = tuple(
            (tuple(map(ShownJob.of, reply.jobs)), tuple(reply.missing_job_ids)) for reply in answer.messages
        )
        self.answers[-1] = answer = answer._replace(messages=batches)
        return answer

    async def wait(self, bucket: str, job_id: str, *, seconds: int = 0) -> Answer:
        timeout = Duration(seconds=seconds)
        request = pb.WaitPreviewJobRequest(bucket=bucket, job_id=job_id, page_url_ttl=TTL, timeout=timeout)
        return await self._call("WaitPreviewJob", request)

    async def watch(self, bucket: str, job_id: str) -> Answer:
        """The first state; of a job that has not ended the rest is not waited for."""
        request = pb.WatchPreviewJobRequest(bucket=bucket, job_id=job_id, page_url_ttl=TTL)
        return await self._call("WatchPreviewJob", request)

    async def watch_many(self, bucket: str, job_ids: Sequence[str]) -> Answer:
        """One message: the first state of each job, and the ids with an error; the rest is not waited for."""
        self.calls += 1
        metadata = (*bearer(self.token), ("x-request-id", f"call-{self.calls}"))
        request = pb.WatchPreviewJobsRequest(bucket=bucket, job_ids=job_ids, page_url_ttl=TTL)
        stub: Any = PreviewJobServiceStub(self.channel)
        call = stub.WatchPreviewJobs(request, metadata=metadata, timeout=30)
        jobs: dict[str, ShownJob] = {}
        errors: dict[str, int] = {}
        try:
            async for event in call:
                if event.HasField("error"):
                    errors[event.error.job_id] = event.error.reason
                elif event.HasField("job"):
                    jobs.setdefault(event.job.job_id, ShownJob.of(event.job))
                if len(jobs) + len(errors) == len(job_ids):
                    break
        except grpc.aio.AioRpcError as error:
            details = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
            assert isinstance(details, bytes)
            return self._keep(Answer(error.code().name, reason_in(details), (), tuple(error.trailing_metadata()), ""))
        call.cancel()
        return self._keep(Answer("OK", "", ((jobs, errors),), tuple(await call.initial_metadata()), ""))

    async def usage(self) -> Answer:
        return await self._call("GetUsage", GetUsageRequest())

    async def walk(self, bucket: str, size: int, **filters: Any) -> list[Answer]:
        """Every page of a list; the metadata of a page has the length of its token."""
        request = pb.ListPreviewJobsRequest(bucket=bucket, page_size=size, include_pages=True, **filters)
        pages: list[Answer] = []
        while not pages or request.page_token:
            answer = await self._call("ListPreviewJobs", request)
            token = answer.messages[0].next_page_token if answer.messages else ""
            jobs = tuple(map(ShownJob.of, answer.messages[0].jobs)) if answer.messages else ()
            pages.append(
                answer._replace(messages=jobs, metadata=(*answer.metadata, ("length of the token", len(token))))
            )
            self.answers[-1] = pages[-1]
            request.page_token = token
            assert len(pages) < 1000
        return pages

    async def _call(self, method: str, request: Any) -> Answer:
        self.calls += 1
        stub: Any = (UsageServiceStub if method == "GetUsage" else PreviewJobServiceStub)(self.channel)
        metadata = (*bearer(self.token), ("x-request-id", f"call-{self.calls}"))
        call = getattr(stub, method)(request, metadata=metadata, timeout=30)
        messages: list[Any] = []
        try:
            if method == "WatchPreviewJob":
                message = await call.read()
                if message is not grpc.aio.EOF:
                    messages.append(ShownJob.of(message.job))
                if message is not grpc.aio.EOF and message.job.state == PreviewJob.STATE_RUNNING:
                    call.cancel()
                    return self._keep(Answer("OK", "", tuple(messages), await call.initial_metadata(), ""))
                assert await call.read() is grpc.aio.EOF
            else:
                message = await call
                messages.append(ShownJob.of(message) if isinstance(message, PreviewJob) else message)
        except grpc.aio.AioRpcError:
            pass
        # Each once: of a stream that ends at once grpc.aio's client may keep no initial metadata, which say the same.
        sent = tuple(dict.fromkeys((*await call.initial_metadata(), *await call.trailing_metadata())))
        reason = next((reason_in(value) for key, value in sent if key == "grpc-status-details-bin"), "")
        code = (await call.code()).name
        return self._keep(Answer(code, reason, tuple(messages), sent, await call.details() or ""))

    def _keep(self, answer: Answer) -> Answer:
        self.answers.append(answer)
        return answer


def reason_in(details: bytes) -> str:
    info = error_details_pb2.ErrorInfo()
    return next((info.reason for part in status_pb2.Status.FromString(details).details if part.Unpack(info)), "")


@dataclass
class OracleWorld:
    """A cloud and a gateway with a policy."""

    cloud: JobCloud
    gateway: Gateway
    channel: grpc.aio.Channel
    policy: Policy

    def talk(self, name: str) -> Talk:
        return Talk(self.channel, self.policy.tokens[name])


@asynccontextmanager
async def oracle_world(
    folder: Path, callers: dict[str, OracleCaller], jobs: Sequence[CloudJob], *, cached: bool = False
) -> AsyncIterator[OracleWorld]:
    """A gateway in this process with these callers, before a cloud with these jobs."""
    policy = Policy(folder / f"policy-{len(jobs)}.yaml")
    for name, found in callers.items():
        policy.add(name, **found.entry())
    policy.write()
    changes: dict[str, Any] = {"cache": CacheSettings()} if cached else {}
    async with JobCloud() as cloud:
        cloud.add(*jobs)
        # Settings of an emulator fit every cloud with an address.
        made = settings(cloud, policy=PolicySettings(file=policy.path), **changes)  # type: ignore[arg-type]
        async with (
            Gateway(made) as gateway,
            grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel,
        ):
            yield OracleWorld(cloud, gateway, channel, policy)
