"""End-to-end tests over real sockets: a document in, page images out."""

from __future__ import annotations

import io
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from PIL import Image

from docpreview.v1.preview_job_pb2 import PreviewJob, PreviewOptions
from docpreview_client import InvalidRequest, NotFound, PermissionDenied

if TYPE_CHECKING:
    from tests.integration.conftest import World

BUCKET = "examplebucket-1250000000"
EXAMPLES = Path(__file__).parents[2] / "examples"


async def test_pdf_with_page_ranges_as_in_the_vendors_sample(world: World) -> None:
    """Pages 1 and 3 become abc_1.jpg and abc_3.jpg, and their signed URLs return real images."""
    await world.upload("seven.pdf", (EXAMPLES / "seven-pages.pdf").read_bytes())
    job = await world.client.create(
        BUCKET,
        "seven.pdf",
        output_object="/test_doc/normal/abc_${Number}.jpg",
        options=PreviewOptions(page_ranges="1,3"),
        user_data="ticket 7",
    )
    assert job.state in {PreviewJob.STATE_SUBMITTED, PreviewJob.STATE_RUNNING}
    done = await world.client.wait(BUCKET, job.job_id, page_url_ttl=timedelta(minutes=5))
    assert done.state == PreviewJob.STATE_SUCCESS
    assert done.user_data == "ticket 7"
    assert [(page.page_number, page.object) for page in done.result.pages] == [
        (1, "test_doc/normal/abc_1.jpg"),
        (3, "test_doc/normal/abc_3.jpg"),
    ]
    async with httpx.AsyncClient() as browser:
        for page in done.result.pages:
            reply = await browser.get(page.url)
            assert reply.status_code == 200
            assert Image.open(io.BytesIO(reply.content)).format == "JPEG"


async def test_a_watch_starts_with_the_current_state_and_ends_after_the_terminal_one(world: World) -> None:
    """The job is held in Running until the watch has begun."""
    await world.upload("seven.pdf", (EXAMPLES / "seven-pages.pdf").read_bytes())
    world.emulator.hold_jobs()
    job = await world.client.create(BUCKET, "seven.pdf", output_object="out/p-${Page}.png")
    states = []
    async for seen in world.client.watch(BUCKET, job.job_id):
        states.append(seen.state)
        world.emulator.release_jobs()
    assert states[-1] == PreviewJob.STATE_SUCCESS
    assert len(states) > 1
    assert len(states) == len(set(states))


async def test_rejected_create_names_every_field(world: World) -> None:
    """One answer for all violations, and no request to the cloud."""
    with pytest.raises(InvalidRequest) as caught:
        await world.client.create(
            BUCKET, "no-suffix", output_object="out.jpg", options=PreviewOptions(quality=109, zoom_percent=5)
        )
    assert {field for field, _ in caught.value.field_violations} == {
        "options.quality",
        "options.zoom_percent",
        "options.source_format",
        "output.object",
    }
    assert world.emulator.requests == []


async def test_an_unconfigured_bucket_is_permission_denied_and_nothing_is_sent(world: World) -> None:
    """The check comes before any request to the cloud."""
    with pytest.raises(PermissionDenied):
        await world.client.get("other-1250000000", "d1")
    assert world.emulator.requests == []


async def test_a_job_that_does_not_exist_is_not_found(world: World) -> None:
    """The cloud answers 200 with NonExistJobIds."""
    with pytest.raises(NotFound) as caught:
        await world.client.get(BUCKET, "d" + "0" * 32)
    assert caught.value.reason == "JOB_NOT_FOUND"


async def test_lists_page_through_all_jobs_and_queues_show_the_default_one(world: World) -> None:
    """Listed jobs have their pages only with `include_pages`."""
    await world.upload("seven.pdf", (EXAMPLES / "seven-pages.pdf").read_bytes())
    made = []
    for number in range(5):
        job = await world.client.create(BUCKET, "seven.pdf", output_object=f"out/{number}/p-${{Page}}.png")
        made.append((await world.client.wait(BUCKET, job.job_id)).job_id)
    listed = [job async for job in world.client.list(BUCKET, page_size=2)]
    assert {job.job_id for job in listed} == set(made)
    assert all(not job.result.pages for job in listed)
    first = await world.client.list_page(BUCKET, page_size=2, include_pages=True)
    assert len(first.jobs) == 2
    assert len(first.jobs[0].result.pages) == 7
    both = await world.client.batch_get(BUCKET, [made[0], "d" + "0" * 32, made[1]])
    assert [job.job_id for job in both.jobs] == made[:2]
    assert list(both.missing_job_ids) == ["d" + "0" * 32]
    queues = [queue async for queue in world.client.list_queues(BUCKET)]
    assert [queue.name for queue in queues] == ["queue-doc-process-1"]
