"""Files that are written in place, slowly, while the command serves: no half of one is ever in use."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import yaml

from docpreview_emulator import Emulator
from tests.integration.conftest import BUCKET, REGION
from tests.integration.gateway_processes import configuration, running
from tests.integration.identity import Policy, bearer, create

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview.v1.preview_job_pb2 import PreviewJob

DOCUMENT = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"
WATERMARK = "watermark/2/text/Zm9yY2Vk"
LINE_SECONDS = 0.08
LONGEST_PAUSE = 0.5
"""Seconds. A round in which the writer paused for longer, because the machine was busy, shows nothing."""


def policy_text(policy: Policy, max_pages: int) -> str:
    """The policy, the rights of its caller before what limits them, so that a first half of the file is valid."""
    rules = {"max_pages": max_pages, "force": {"image_params": WATERMARK}, "default": {"quality": 90}}
    whole = policy.callers["shop"] | {"presets": [f"p{n}" for n in range(20)], "options": rules}
    presets = {f"p{n}": {"quality": 50} for n in range(20)}
    return yaml.safe_dump({"version": 1, "presets": presets, "callers": {"shop": whole}}, sort_keys=False)


async def write_slowly(path: Path, text: str) -> float:
    """Truncate the file and write it line by line. Returns the longest pause between two writes, in seconds."""
    longest, before = 0.0, time.monotonic()
    with path.open("w") as file:
        for line in text.splitlines(keepends=True):
            file.write(line)
            file.flush()
            now = time.monotonic()
            longest, before = max(longest, now - before), now
            await asyncio.sleep(LINE_SECONDS)
    return longest


async def creating(channel: grpc.aio.Channel, token: str, until: Callable[[PreviewJob], bool]) -> list[PreviewJob]:
    """Create jobs one after the other, the last one with `until`."""
    jobs: list[PreviewJob] = []
    while not jobs or not until(jobs[-1]):
        jobs.append(await create(channel, bearer(token), "a.pdf"))
        await asyncio.sleep(0.05)
    return jobs


async def test_a_caller_never_creates_without_its_caps_while_the_policy_is_written_in_place(tmp_path: Path) -> None:
    """Its forced watermark is on every job, and the whole file is in use soon after it was written."""
    policy = Policy(tmp_path / "policy.yaml")
    token = policy.add("shop")
    policy.path.write_text(policy_text(policy, 5))
    async with Emulator() as emulator:
        emulator.put_object(BUCKET, REGION, "a.pdf", DOCUMENT.read_bytes())
        path = configuration(emulator, tmp_path, policy={"file": str(policy.path)})
        async with running(path) as gateway, grpc.aio.insecure_channel(gateway.address) as channel:
            for max_pages in range(6, 11):
                writing = asyncio.ensure_future(write_slowly(policy.path, policy_text(policy, max_pages)))
                jobs = await creating(channel, token, lambda _job, writing=writing: writing.done())  # type: ignore[misc]
                async with asyncio.timeout(20):
                    jobs += await creating(channel, token, lambda job, most=max_pages: job.options.end_page == most)  # type: ignore[misc]
                if await writing < LONGEST_PAUSE:
                    break
            else:
                raise AssertionError("the machine was too busy to write a file without pauses")
            assert len(jobs) > 10
            assert {job.options.image_params for job in jobs} == {WATERMARK}
            assert {job.options.end_page for job in jobs} == {max_pages - 1, max_pages}
