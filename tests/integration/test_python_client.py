"""The Python clients and the command before a real gateway and the emulator: documents in, pages out."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob, PreviewOptions
from docpreview_client import BlockingClient, DocPreviewClient, JobError
from docpreview_gateway.settings.sections import DrainSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.chromium import chromium
from tests.integration.conftest import BUCKET, REGION, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterable

    from tests.integration.conftest import World

SEVEN = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"
NAMES = [f"page-{number:04d}.jpg" for number in range(1, 8)]
MANY = 500
SECONDS = 10


@pytest.fixture
async def client(world: World) -> AsyncIterator[DocPreviewClient]:
    """With the options that callers have by default."""
    async with DocPreviewClient(f"127.0.0.1:{world.gateway.port}") as opened:
        yield opened


async def test_a_local_document_becomes_pages_in_one_call_and_again_without_stale_ones(
    world: World, client: DocPreviewClient, tmp_path: Path
) -> None:
    job, files = await client.preview(SEVEN, tmp_path / "out", bucket=BUCKET)
    assert job.state == PreviewJob.STATE_SUCCESS
    assert [file.name for file in files] == NAMES
    assert all(file.read_bytes().startswith(b"\xff\xd8\xff") for file in files)
    options = PreviewOptions(page_ranges="2,5", target_format=PreviewOptions.TARGET_FORMAT_PNG)
    _, fewer = await client.preview(SEVEN, tmp_path / "out", bucket=BUCKET, options=options)
    assert [file.name for file in fewer] == ["page-0002.png", "page-0005.png"]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [".docpreview.json", *(f.name for f in fewer)]
    assert world.emulator.accepted_jobs == 2


async def test_a_job_that_fails_has_a_reason_and_no_files(client: DocPreviewClient, tmp_path: Path) -> None:
    job, files = await client.preview(b"this is no PDF", tmp_path, bucket=BUCKET, object="in/a.pdf")
    assert (job.state, files) == (PreviewJob.STATE_FAILED, [])
    assert job.failure.reason


async def test_a_pdf_of_the_whole_document_is_one_file(client: DocPreviewClient, tmp_path: Path) -> None:
    options = PreviewOptions(target_format=PreviewOptions.TARGET_FORMAT_PDF)
    _, files = await client.preview(SEVEN, tmp_path, bucket=BUCKET, options=options)
    assert [file.name for file in files] == ["document.pdf"]
    assert files[0].read_bytes().startswith(b"%PDF")


async def test_a_document_of_40_mb_goes_in_parts_and_arrives_whole(
    world: World, client: DocPreviewClient, tmp_path: Path
) -> None:
    file = tmp_path / "large.pdf"
    file.write_bytes(os.urandom(40_000_000))
    uploaded = await client.upload(file, BUCKET, "in/large.pdf")
    assert (uploaded.object, uploaded.content_length) == ("in/large.pdf", 40_000_000)
    parts = [request for request in world.emulator.requests if request.method == "PUT"]
    assert len(parts) == 3


async def test_a_content_that_the_cloud_fails_to_take_once_is_sent_again(
    world: World, client: DocPreviewClient
) -> None:
    world.emulator.add_fault("error", "object", status=503, code="ServiceUnavailable", times=1)
    uploaded = await client.upload(SEVEN, BUCKET)
    assert uploaded.object.startswith("in/")
    assert uploaded.object.endswith(".pdf")
    assert uploaded.content_length == SEVEN.stat().st_size


async def test_expired_addresses_are_asked_for_anew(world: World, client: DocPreviewClient, tmp_path: Path) -> None:
    """The cloud's clock goes on until those that the job came with are of no use."""
    await world.upload("seven.pdf", SEVEN.read_bytes())
    job = await client.create(BUCKET, "seven.pdf", output_object="out/p-${Page}.jpg")
    done = await client.wait(BUCKET, job.job_id, page_url_ttl=1)
    world.emulator.clock.offset_seconds = 300
    files = await client.download(done, tmp_path)
    assert [file.name for file in files] == NAMES
    refused = [request for request in world.emulator.requests if request.status == 403]
    assert len(refused) == 7


async def test_many_jobs_are_followed_in_one_stream(world: World, client: DocPreviewClient) -> None:
    await world.upload("seven.pdf", SEVEN.read_bytes())
    ids = []
    for number in range(20):
        output = f"out/{number}/p-${{Page}}.jpg"
        ids.append((await client.create(BUCKET, "seven.pdf", output_object=output)).job_id)
    last: dict[str, object] = {}
    async for event in client.watch_many(BUCKET, [*ids, "d0"]):
        last[event.job_id] = event.reason if isinstance(event, JobError) else event.state
    assert last == dict.fromkeys(ids, PreviewJob.STATE_SUCCESS) | {"d0": "JOB_NOT_FOUND"}


async def count(calls: Iterable[Awaitable[object]]) -> int:
    """How many of the calls, made one after the other, succeed."""
    succeeded = 0
    for call in calls:
        await call
        succeeded += 1
    return succeeded


async def test_a_thousand_watches_and_waits_leave_other_calls_of_the_client_alone(
    world: World, client: DocPreviewClient
) -> None:
    """Each get and create is answered within its deadline, and each watch and wait learns of the end."""
    await world.upload("seven.pdf", SEVEN.read_bytes())
    world.emulator.hold_jobs()
    job = await client.create(BUCKET, "seven.pdf", output_object="out/p-${Page}.jpg")
    begun, all_begun = 0, asyncio.Event()

    async def watch() -> int:
        nonlocal begun
        states: list[int] = []
        async for seen in client.watch(BUCKET, job.job_id):
            if not states:
                begun += 1
                all_begun.set() if begun == MANY else None
            states.append(seen.state)
        return states[-1]

    async def wait() -> int:
        return (await client.wait(BUCKET, job.job_id)).state

    tasks = [asyncio.create_task(work()) for work in (watch, wait) for _ in range(MANY)]
    await asyncio.wait_for(all_begun.wait(), 90)
    gets = [client.get(BUCKET, job.job_id, timeout=SECONDS) for _ in range(20)]
    creates = [
        client.create(BUCKET, "seven.pdf", output_object=f"out/{number}/p-${{Page}}.jpg", timeout=SECONDS)
        for number in range(5)
    ]
    assert await count(gets) == 20
    assert await count(creates) == 5
    world.emulator.release_jobs()
    assert set(await asyncio.wait_for(asyncio.gather(*tasks), 90)) == {PreviewJob.STATE_SUCCESS}


class OneAddress:
    """An address that leads new connections to one gateway and then to another, as that of a service does."""

    def __init__(self, port: int) -> None:
        self.gateway_port = port
        self._pipes: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for pipe in self._pipes:
                pipe.cancel()
            await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.gateway_port)
        self._pipes |= {
            asyncio.create_task(self._pipe(reader, there_writer)),
            asyncio.create_task(self._pipe(there_reader, writer)),
        }

    async def _pipe(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
        except ConnectionError:
            pass
        finally:
            target.close()


async def test_no_call_fails_while_a_replica_behind_one_address_drains(world: World) -> None:
    """Nor does a watch end."""
    await world.upload("seven.pdf", SEVEN.read_bytes())
    world.emulator.hold_jobs()
    draining = settings(world.emulator, drain=DrainSettings(delay_seconds=2, grace_seconds=5))
    replica = Gateway(draining)
    await replica.__aenter__()
    address = OneAddress(replica.port)
    async with address.listening() as port, DocPreviewClient(f"127.0.0.1:{port}") as client:
        job = await client.create(BUCKET, "seven.pdf", output_object="out/p-${Page}.jpg")
        watching = asyncio.create_task(last_of(client, job.job_id))
        address.gateway_port = world.gateway.port
        stopping = asyncio.create_task(replica.__aexit__(None, None, None))
        calls = 0
        while not stopping.done() or calls < 20:
            await client.get(BUCKET, job.job_id, timeout=SECONDS)
            if not calls % 10:
                await client.create(BUCKET, "seven.pdf", output_object=f"out/{calls}/p-${{Page}}.jpg", timeout=SECONDS)
            calls += 1
        await stopping
        world.emulator.release_jobs()
        assert await asyncio.wait_for(watching, 60) == PreviewJob.STATE_SUCCESS


async def last_of(client: DocPreviewClient, job_id: str) -> int:
    return [seen.state async for seen in client.watch(BUCKET, job_id)][-1]


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize("padding", [0, 17 * 1024 * 1024])
async def test_a_preview_that_is_repeated_with_its_request_id_gets_the_same_job(
    client: DocPreviewClient, tmp_path: Path, padding: int
) -> None:
    """The document is there already, of one part or of several. With another id it is another job."""
    file, out, request_id = tmp_path / "a.pdf", tmp_path / "out", str(uuid4())
    file.write_bytes(SEVEN.read_bytes() + b"\n%" + b" " * padding + b"\n")
    first = await client.preview(file, out, bucket=BUCKET, request_id=request_id, timeout=60)
    again = await client.preview(file, out, bucket=BUCKET, request_id=request_id, timeout=60)
    assert again.job.job_id == first.job.job_id
    assert again.job.input.object == first.job.input.object
    assert [path.name for path in again.files] == NAMES
    other = await client.preview(file, out, bucket=BUCKET, timeout=60)
    assert other.job.job_id != first.job.job_id


async def test_the_blocking_client_does_the_same_from_a_thread(world: World, tmp_path: Path) -> None:
    def run() -> list[str]:
        with BlockingClient(f"127.0.0.1:{world.gateway.port}") as client:
            job, files = client.preview(SEVEN, tmp_path, bucket=BUCKET, timeout=60)
            states = [seen.state for seen in client.watch(BUCKET, job.job_id)]
            assert states == [PreviewJob.STATE_SUCCESS]
            return [file.name for file in files]

    assert await asyncio.to_thread(run) == NAMES


async def test_the_command_makes_a_contact_sheet_that_a_browser_shows(world: World, tmp_path: Path) -> None:
    """All images load, and the browser has nothing to complain about."""
    out = tmp_path / "out"
    command = ["preview", str(SEVEN), "--bucket", BUCKET, "--pages", str(out), "--open", "--json"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "docpreview_client", *command, "--target", f"127.0.0.1:{world.gateway.port}"),
        env=os.environ | {"BROWSER": "true %s"},
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    assert [Path(file).name for file in json.loads(printed.splitlines()[-1])["files"]] == NAMES
    async with chromium(tmp_path) as browser:
        await browser.open((out / "contact-sheet.html").as_uri())
        decoded = "Promise.all([...document.images].map(image => (image.loading = 'eager', image.decode())))"
        assert await browser.value(f"{decoded}.then(images => images.length)") == 7
        assert REGION not in await browser.value("document.documentElement.outerHTML")
