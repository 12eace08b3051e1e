"""Addresses of pages from the real command, before a cloud whose replies name any keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from docpreview.v1 import preview_job_service_pb2 as pb
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from tests.fakes.job_cloud import CloudJob, JobCloud
from tests.integration.conftest import BUCKET, OTHER_BUCKET, REGION
from tests.integration.gateway_processes import configuration, running
from tests.integration.identity import Policy, bearer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview.v1.preview_job_pb2 import PreviewJob

TTL = Duration(seconds=3600)
OURS = CloudJob(
    "ours",
    BUCKET,
    "in/shop/a.pdf",
    output=(BUCKET, REGION, "/previews/shop/${Number}.jpg"),
    pages=("/previews/shop/1.jpg", "/previews/shop/2.jpg"),
)
THEIRS = CloudJob(
    "theirs",
    BUCKET,
    "in/shop/b.pdf",
    output=(OTHER_BUCKET, REGION, "previews/bank/${Number}.jpg"),
    pages=tuple(f"previews/bank/{number}.jpg" for number in range(1, 8)),
)
ODD = CloudJob(
    "odd",
    BUCKET,
    "in/shop/c.xlsx",
    output=(BUCKET, REGION, "previews/shop/${SheetID}/${Page}.png"),
    pages=(
        "previews/shop/2/1.png",
        "",
        "/",
        "in/bank/secret.pdf",
        "previews/shop/1/../../../in/bank/secret.pdf",
        "previews%2Fshop%2F1%2F1.png",
        "previews/shop/${SheetID}/${Page}.png",
        "previews/shop/1/1.png?acl",
        f"https://{OTHER_BUCKET}.cos.{REGION}.myqcloud.com/previews/shop/1/1.png",
    ),
)
ELSEWHERE = CloudJob(
    "elsewhere",
    BUCKET,
    "in/shop/d.pdf",
    output=(BUCKET, "ap-guangzhou", "previews/shop/${Number}.jpg"),
    pages=("previews/shop/1.jpg",),
)
BARE = CloudJob("bare", BUCKET, "in/shop/e.pdf", output=(BUCKET, REGION, ""), pages=("", "previews/shop/1.jpg"))


@pytest.fixture
async def cloud() -> AsyncIterator[JobCloud]:
    async with JobCloud() as started:
        started.add(OURS, THEIRS, ODD, ELSEWHERE, BARE)
        yield started


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    """A shop with a prefix of its own and strict options, a reader, and callers that may open more or nothing."""
    made = Policy(tmp_path / "policy.yaml")
    own = [{"bucket": BUCKET, "prefixes": ["previews/shop/"]}]
    bank = [{"bucket": OTHER_BUCKET, "prefixes": ["previews/bank/"]}]
    source = {"bucket": BUCKET, "input_prefixes": ["in/shop/"]}
    strict = {"force": {"image_params": "watermark/2/text/U0hPUA"}, "max_pages": 2}
    made.add("shop", buckets=[source | {"outputs": own}], options=strict)
    made.add("reader", buckets=[{"bucket": BUCKET, "input_prefixes": [""]}])
    made.add("auditor", buckets=[{"bucket": BUCKET, "input_prefixes": [""], "pages": own + bank}])
    made.add("batch", buckets=[source | {"outputs": own}], page_urls=False)
    made.write()
    return made


async def jobs_of_all_methods(channel: grpc.aio.Channel, metadata: Any, job_id: str) -> list[PreviewJob]:
    """A job as each method tells it that gives addresses on request."""
    stub: Any = PreviewJobServiceStub(channel)
    one: dict[str, Any] = {"bucket": BUCKET, "job_id": job_id, "page_url_ttl": TTL}
    options: dict[str, Any] = {"metadata": metadata, "timeout": 20}
    found = [await stub.GetPreviewJob(pb.GetPreviewJobRequest(**one), **options)]
    batch = pb.BatchGetPreviewJobsRequest(bucket=BUCKET, job_ids=[job_id, job_id], page_url_ttl=TTL)
    found.extend((await stub.BatchGetPreviewJobs(batch, **options)).jobs)
    found.append(await stub.WaitPreviewJob(pb.WaitPreviewJobRequest(**one), **options))
    found.extend([told.job async for told in stub.WatchPreviewJob(pb.WatchPreviewJobRequest(**one), **options)])
    many = pb.WatchPreviewJobsRequest(bucket=BUCKET, job_ids=[job_id], page_url_ttl=TTL)
    found.extend([event.job async for event in stub.WatchPreviewJobs(many, **options)])
    return found


def addresses(job: PreviewJob) -> list[str]:
    return [urlsplit(page.url).netloc + urlsplit(page.url).path for page in job.result.pages if page.url]


def on(bucket: str, *keys: str) -> list[str]:
    return [f"{bucket}.cos.{REGION}.myqcloud.com/{key}" for key in keys]


async def given(policy: Policy, cloud: JobCloud, folder: Path, job: CloudJob) -> dict[str, list[str]]:
    """The addresses that each caller gets of a job's pages, the same from every method; all see the same keys."""
    buckets = [{"name": name, "region": REGION, "credentials": "main"} for name in (BUCKET, OTHER_BUCKET)]
    path = configuration(cloud, folder, policy={"file": str(policy.path)}, buckets=buckets)
    found = {}
    async with running(path) as gateway, grpc.aio.insecure_channel(gateway.address) as channel:
        for name, token in policy.tokens.items():
            jobs = await jobs_of_all_methods(channel, bearer(token), job.job_id)
            assert len(jobs) == 6
            keys = [key.removeprefix("/") for key in job.pages]
            assert all([page.object for page in told.result.pages] == keys for told in jobs)
            found[name] = addresses(jobs[0])
            assert all(addresses(told) == found[name] for told in jobs)
    return found


async def test_a_caller_gets_addresses_of_its_own_pages_only(cloud: JobCloud, policy: Policy, tmp_path: Path) -> None:
    """Seven pages of another caller's job, without a watermark, in a bucket that the policy never names."""
    bank = on(OTHER_BUCKET, *THEIRS.pages)
    assert await given(policy, cloud, tmp_path, THEIRS) == {"shop": [], "reader": [], "auditor": bank, "batch": []}


async def test_a_reader_gets_no_address_of_a_page_unless_the_policy_says_so(
    cloud: JobCloud, policy: Policy, tmp_path: Path
) -> None:
    """By outputs or by `pages`; `page_urls: false` takes addresses away."""
    shop = on(BUCKET, "previews/shop/1.jpg", "previews/shop/2.jpg")
    assert await given(policy, cloud, tmp_path, OURS) == {"shop": shop, "reader": [], "auditor": shop, "batch": []}


@pytest.mark.parametrize(
    ("job", "signed"),
    [(ODD, ["previews/shop/2/1.png"]), (ELSEWHERE, []), (BARE, [])],
    ids=["keys", "region", "no-template"],
)
async def test_a_key_that_the_job_cannot_have_made_is_signed_for_nobody(
    cloud: JobCloud, tmp_path: Path, job: CloudJob, signed: list[str]
) -> None:
    """No key would be the bucket's list for an hour; without a policy, too."""
    path = configuration(cloud, tmp_path)
    async with running(path) as gateway, grpc.aio.insecure_channel(gateway.address) as channel:
        for told in await jobs_of_all_methods(channel, None, job.job_id):
            assert addresses(told) == on(BUCKET, *signed)
