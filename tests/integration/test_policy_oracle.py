"""Random policies, callers, jobs and outputs: every answer of a real gateway agrees with a plain reading of the policy.

The reference is `OracleCaller` in policy_worlds.py. `make test` has a few worlds, `make test-long` many.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

import pytest

from docpreview.v1.error_reason_pb2 import ERROR_REASON_JOB_NOT_FOUND
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import ListPreviewJobsRequest
from tests.integration.conftest import BUCKET, OTHER_BUCKET
from tests.integration.policy_worlds import (
    BUCKETS,
    INPUTS,
    TEMPLATES,
    Answer,
    OracleCaller,
    OracleWorld,
    ShownJob,
    Talk,
    oracle_world,
    random_caller,
    random_job,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.job_cloud import CloudJob

MISSING = "missing"
PLACES = (*BUCKETS, "stranger-1250000000")
HIDDEN_METADATA = {"x-cache", "x-upstream-request-id"}
SEEDS = [
    *range(2),
    *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 60)),
]
OLDEST_FIRST = {"order": ListPreviewJobsRequest.ORDER_OLDEST_FIRST}
SUCCEEDED = {"states": [PreviewJob.STATE_SUCCESS]}


def told(caller: OracleCaller, job: CloudJob, *, ttl: bool = True) -> ShownJob:
    """The job as the reference says it is shown to the caller."""
    pages = [key.removeprefix("/") for key in job.pages] if job.state == "Success" else []
    urls = [f"{job.output[0]}.cos.ap-chongqing.myqcloud.com/{key}" for key in pages if ttl and caller.gets(job, key)]
    return ShownJob(job.job_id, tuple(pages), tuple(urls if job.output[0] in BUCKETS else ()))


def views(answer: Answer) -> list[ShownJob]:
    return [message._replace(rest=b"") for message in answer.messages]


def reference(caller: OracleCaller, method: str, bucket: str, job: CloudJob | None) -> tuple[str, str]:
    """Code and reason of a call about a job of the bucket, or about one that is not there."""
    if not caller.may_call(method, bucket):
        return "PERMISSION_DENIED", "NOT_PERMITTED"
    if job is None or not caller.sees(job):
        return "NOT_FOUND", "JOB_NOT_FOUND"
    return "OK", ""


async def check_creates(world: OracleWorld, talk: Talk, caller: OracleCaller, dice: Random) -> int:
    """Random creates. Returns how many were made."""
    made = 0
    for _ in range(6):
        bucket, key, output, template = (dice.choice(few) for few in (PLACES, INPUTS, PLACES, TEMPLATES))
        before = len(world.cloud.jobs)
        answer = await talk.create(bucket, key, output, template)
        allowed = caller.may_call("CreatePreviewJob", bucket) and caller.may_create(bucket, key, output, template)
        assert (answer.code == "PERMISSION_DENIED") is not allowed, (bucket, key, output, template)
        assert len(world.cloud.jobs) - before == (answer.code == "OK")
        assert answer.code in {"OK", "INVALID_ARGUMENT", "PERMISSION_DENIED"}
        made += answer.code == "OK"
        assert [found.addresses for found in views(answer)] == [()] * (answer.code == "OK")
    return made


async def check_reads(world: OracleWorld, talk: Talk, caller: OracleCaller) -> None:
    """Every job, and one that does not exist, in every bucket and by every method."""
    ids = [*world.cloud.jobs, MISSING]
    for bucket in PLACES:
        jobs = {job.job_id: job for job in world.cloud.listed(bucket)}
        for job_id in ids:
            job = jobs.get(job_id)
            for method, call in (("Get", talk.get), ("Wait", talk.wait), ("Watch", talk.watch)):
                answer = await call(bucket, job_id)
                expected = reference(caller, f"{method}PreviewJob", bucket, job)
                assert (answer.code, answer.reason) == expected, (method, bucket, job)
                assert views(answer) == ([told(caller, job)] if job and answer.code == "OK" else []), (method, job)
            answer = await talk.get(bucket, job_id, ttl=False)
            assert (answer.code, answer.reason) == reference(caller, "GetPreviewJob", bucket, job), job
            assert views(answer) == ([told(caller, job, ttl=False)] if job and answer.code == "OK" else []), job
        await check_many(talk, caller, bucket, ids, jobs)
        answer = await talk.batch_get(bucket, ids)
        if not caller.may_call("BatchGetPreviewJobs", bucket):
            assert answer.reason == "NOT_PERMITTED"
            continue
        seen = {job_id for job_id, job in jobs.items() if caller.sees(job)}
        ((found, missing),) = answer.messages
        assert [job._replace(rest=b"") for job in found] == [
            told(caller, jobs[job_id]) for job_id in ids if job_id in seen
        ]
        assert list(missing) == [job_id for job_id in ids if job_id not in seen]


async def check_many(talk: Talk, caller: OracleCaller, bucket: str, ids: list[str], jobs: dict[str, CloudJob]) -> None:
    """A stream of all jobs tells those that the caller may see, and of the others that they do not exist."""
    answer = await talk.watch_many(bucket, ids)
    if not caller.may_call("WatchPreviewJobs", bucket):
        assert answer.reason == "NOT_PERMITTED"
        return
    ((found, errors),) = answer.messages
    seen = {job_id: told(caller, job) for job_id, job in jobs.items() if caller.sees(job)}
    assert {job_id: job._replace(rest=b"") for job_id, job in found.items()} == seen
    assert errors == {job_id: ERROR_REASON_JOB_NOT_FOUND for job_id in ids if job_id not in seen}


async def check_lists(world: OracleWorld, talk: Talk, caller: OracleCaller, *, filled: bool) -> None:
    """Lists by all page sizes, in both orders, of all states and of one. `filled`: every page but the last is full."""
    for bucket in PLACES:
        seen = [job for job in world.cloud.listed(bucket) if bucket in caller.buckets and caller.sees(job)]
        expected = [told(caller, job, ttl=False) for job in seen]
        succeeded = [told(caller, job, ttl=False) for job in seen if job.state == "Success"]
        for size in (1, 2, 3, len(world.cloud.jobs), 100):
            newest, oldest = await talk.walk(bucket, size), await talk.walk(bucket, size, **OLDEST_FIRST)
            chosen = await talk.walk(bucket, size, **SUCCEEDED)
            if not caller.may_call("ListPreviewJobs", bucket):
                assert {page.reason for page in (*newest, *oldest, *chosen)} == {"NOT_PERMITTED"}
                continue
            for pages, jobs in ((newest, expected), (oldest, expected[::-1]), (chosen, succeeded)):
                assert [job for page in pages for job in views(page)] == jobs
                if filled:
                    chunks = [jobs[begin : begin + size] for begin in range(0, len(jobs), size)] or [[]]
                    assert [views(page) for page in pages] == chunks


async def check_usage(talk: Talk, caller: OracleCaller, made: int) -> None:
    """A caller's own pages, of which every create made one."""
    answer = await talk.usage()
    if not {"*", "GetUsage"} & set(caller.methods):
        assert answer.reason == "NOT_PERMITTED"
        return
    (usage,) = answer.messages
    assert usage.month.used_pages + usage.month.reserved_pages == made


async def check_metadata(world: OracleWorld, name: str, caller: OracleCaller) -> None:
    """What the cloud and the caches did is told only to callers who see every job of the bucket."""
    for bucket, (inputs, _, _) in caller.buckets.items():
        talk = world.talk(name)
        for job_id in (*world.cloud.jobs, MISSING):
            for call in (talk.get, talk.wait, talk.watch):
                await call(bucket, job_id)
        await talk.batch_get(bucket, [*world.cloud.jobs])
        await talk.walk(bucket, 2)
        told_of = {key for answer in talk.answers for key, _ in answer.metadata} & HIDDEN_METADATA
        if "" not in inputs:
            assert not told_of
        elif any(answer.code == "OK" for answer in talk.answers):
            assert "x-cache" in told_of


WHOLE = OracleCaller(("*",), {BUCKET: (("",), {BUCKET: ("",)}, {OTHER_BUCKET: ("",)})})
"""Sees every job of a bucket, and may open every page that one of them has made."""


def random_world(seed: int) -> tuple[Random, dict[str, OracleCaller], list[CloudJob]]:
    dice = Random(seed)  # noqa: S311 - a repeatable world
    callers = {"whole": WHOLE} | {f"caller{number}": random_caller(dice) for number in range(3)}
    return dice, callers, [random_job(dice, f"j{number}") for number in range(12)]


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_answer_agrees_with_the_policy(tmp_path: Path, seed: int) -> None:
    """Creates, reads by every method, addresses of pages, the jobs of lists, and usage; by turns with caches."""
    dice, callers, jobs = random_world(seed)
    async with oracle_world(tmp_path, callers, jobs, cached=seed % 2 == 1) as world:
        talks = {name: world.talk(name) for name in callers}
        made = {name: await check_creates(world, talks[name], caller, dice) for name, caller in callers.items()}
        for name, caller in callers.items():
            await check_reads(world, talks[name], caller)
            await check_lists(world, talks[name], caller, filled=False)
            await check_usage(talks[name], caller, made[name])


NEIGHBOUR = OracleCaller(("*",), {bucket: (("",), {bucket: ("",)}, {}) for bucket in BUCKETS})
STRANGER = OracleCaller(
    ("*",), {BUCKET: (("in/", "x/"), {BUCKET: ("p/",)}, {OTHER_BUCKET: ("o/",)}), OTHER_BUCKET: (("in/b/",), {}, {})}
)
HIDDEN_INPUTS = ("top.pdf", "hidden/a.pdf", "in/../top.pdf", "inside.pdf")
SEEN_INPUTS = ("in/b/a.pdf", "in/b/c.pdf")


async def keep_busy(world: OracleWorld) -> list[asyncio.Task[Answer]]:
    """The neighbour creates, reads every job, walks through the lists, and waits for what has not ended."""
    neighbour, waits = world.talk("neighbour"), []
    for bucket in BUCKETS:
        await neighbour.create(bucket, "top.pdf", bucket, "p/${Number}.jpg")
        for job in world.cloud.listed(bucket):
            await neighbour.get(bucket, job.job_id)
            waits.append(asyncio.create_task(neighbour.wait(bucket, job.job_id, seconds=60)))
        await neighbour.walk(bucket, 3)
    return waits


async def transcript(world: OracleWorld, ids: list[str]) -> list[Answer]:
    """All that the stranger can find out."""
    talk = world.talk("stranger")
    for bucket in BUCKETS:
        for job_id in ids:
            for call in (talk.get, talk.wait, talk.watch):
                await call(bucket, job_id)
        await talk.batch_get(bucket, ids)
        for size in (1, 2, 3, 5, 100):
            for filters in ({}, OLDEST_FIRST, SUCCEEDED):
                await talk.walk(bucket, size, **filters)
    await talk.usage()
    return talk.answers


async def two_worlds(folder: Path, seed: int) -> tuple[list[Answer], list[Answer]]:
    """The stranger's answers in a quiet world and in a busy one, which differ only in hidden jobs."""
    dice = Random(seed)  # noqa: S311 - repeatable worlds
    times = dice.sample(range(1, 3600), 40)
    seen = [
        random_job(
            dice, f"seen{number}", times.pop(), input_object=dice.choice(SEEN_INPUTS), bucket=BUCKETS[number % 2]
        )
        for number in range(6)
    ]
    hidden = [
        random_job(dice, f"hidden{number}", times.pop(), input_object=dice.choice(HIDDEN_INPUTS))
        for number in range(20)
    ]
    ids = [job.job_id for job in (*seen, *hidden)] + [MISSING]
    callers = {"stranger": STRANGER, "neighbour": NEIGHBOUR}
    found = []
    for busy, jobs in ((False, dice.sample(hidden, dice.randint(0, 3))), (True, hidden)):
        async with oracle_world(folder, callers, [*seen, *jobs], cached=seed % 2 == 1) as world:
            waits = await keep_busy(world) if busy else []
            found.append(await transcript(world, ids))
            for waiting in waits:
                waiting.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
    return found[0], found[1]


@pytest.mark.parametrize("seed", SEEDS[1:])
async def test_what_a_caller_is_told_about_single_jobs_does_not_depend_on_hidden_jobs(
    tmp_path: Path, seed: int
) -> None:
    """Answers of Get, Wait, Watch and BatchGet, and usage, without their metadata."""
    quiet, busy = await two_worlds(tmp_path, seed)
    lists = [{"length of the token"} & {key for key, _ in answer.metadata} for answer in busy]
    of_jobs = [answer.shown for answer, of_list in zip(busy, lists, strict=True) if not of_list]
    assert of_jobs == [
        answer.shown for answer in quiet if not {"length of the token"} & {key for key, _ in answer.metadata}
    ]


class TestListsAndMetadata:
    @pytest.mark.parametrize("seed", SEEDS)
    async def test_pages_of_lists_are_full_and_metadata_tells_nothing(self, tmp_path: Path, seed: int) -> None:
        """Every page but the last is as long as asked, for all page sizes."""
        _, callers, jobs = random_world(seed)
        async with oracle_world(tmp_path, callers, jobs, cached=seed % 2 == 1) as world:
            for name, caller in callers.items():
                await check_lists(world, world.talk(name), caller, filled=True)
                await check_metadata(world, name, caller)

    @pytest.mark.parametrize("seed", SEEDS[1:])
    async def test_worlds_that_differ_only_in_hidden_jobs_cannot_be_told_apart(self, tmp_path: Path, seed: int) -> None:
        """By any answer, token, metadata or count."""
        quiet, busy = await two_worlds(tmp_path, seed)
        assert len(quiet) == len(busy)
        for one, other in zip(quiet, busy, strict=True):
            assert one == other
