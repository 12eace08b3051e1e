"""Documents that call, explode, never end or lie do not hurt: nothing is heard, shown or kept waiting."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest
from PIL import Image, ImageChops

from docpreview_emulator import Emulator, Settings
from docpreview_emulator.model import Job
from docpreview_emulator.sandbox import LANDLOCK, LIMITS, NAMESPACES
from tests.programs import need
from tests.unit.emulator.cloud_client import BUCKET, COS_HOST, REGION, XML, Cloud, create_body
from tests.unit.emulator.hostile_files import (
    MAGENTA,
    Machine,
    calling,
    endless_pdf,
    exploding,
    lying,
    noise_pdf,
    page_of_size,
    picture_bomb,
    slow_pdf,
    slow_workbook,
    zip_bomb,
)
from tests.unit.emulator.office_files import letter, slides
from tests.unit.emulator.office_jobs import converted
from tests.unit.emulator.pdf_files import pdf

LINK = "Not followed: 1 link to pictures outside of the document."

TIGHT = Settings(
    submit_delay=0,
    workers=3,
    max_cpu_time=6,
    max_files=100,
    max_unpacked=64,
    max_page_megapixels=20,
    max_job_megapixels=100,
)
OUTSIDE = Path("/tmp/docpreview-outside")  # noqa: S108 - where a document tries to write
ANOTHER_BUCKET = "anotherbucket-1250000000"


pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(autouse=True)
def _office() -> None:
    need("soffice")


class Listener:
    """Hears every connection to its port."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._hear, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard.append(await reader.readline())
        writer.close()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    async with Listener() as listening:
        yield listening


def shows_a_file_of_the_machine(emulator: Emulator, job: Job) -> bool:
    """Whether a page has many pixels in the colour of the files that no document may read."""
    pages = job.result.pages if job.result else ()
    return any(_magenta(emulator.get_object(BUCKET, REGION, page.target.removeprefix("/"))) > 50 for page in pages)


def _magenta(page: bytes) -> int:
    image = Image.open(io.BytesIO(page)).convert("RGB")
    apart = ImageChops.difference(image, Image.new("RGB", image.size, MAGENTA)).convert("L")
    return sum(apart.histogram()[:20])


async def all_ended(emulator: Emulator, documents: dict[str, bytes]) -> dict[str, Job]:
    """The jobs of all documents, which are converted beside each other."""

    async def one(cloud: Cloud, name: str, data: bytes) -> tuple[str, Job]:
        emulator.put_object(BUCKET, REGION, name, data)
        job_id = await cloud.job_id(name, f"{name}/${{SheetID}}/${{Number}}", TgtType="png")
        return name, await emulator.wait_for_job(job_id, timeout=300)

    async with Cloud(emulator.url) as cloud:
        return dict(await asyncio.gather(*(one(cloud, *document) for document in documents.items())))


@pytest.mark.parametrize("kind", ["net", "disk"])
async def test_documents_fetch_nothing_and_show_no_file_of_the_machine(
    listener: Listener, tmp_path: Path, kind: str
) -> None:
    """By links of each format, also in web pages and flat documents that are named `.doc` or `.xls`.

    Linked pictures are counted in the message of the job, where LibreOffice knows them as such.
    """
    every = calling(Machine.of(tmp_path, listener.url))
    documents = {name: data for name, data in every.items() if name.startswith(kind)}
    async with Emulator(settings=TIGHT) as emulator:
        if await emulator.isolation() == LIMITS:
            pytest.skip("this machine offers neither namespaces nor Landlock")
        jobs = await all_ended(emulator, documents)
        assert {name for name, job in jobs.items() if job.state != "Success"} == set()
        assert [name for name, job in jobs.items() if shows_a_file_of_the_machine(emulator, job)] == []
        said = {name for name, job in jobs.items() if LINK in job.message}
        assert said == {f"{kind}{rest}" for rest in (".html", ".pptx", "-web.doc", "-flat.doc", "-flat.xls")}
    assert listener.heard == []


@pytest.mark.parametrize("isolation", [NAMESPACES, LANDLOCK])
async def test_each_kind_of_isolation_keeps_network_and_files_away(
    listener: Listener, tmp_path: Path, isolation: str
) -> None:
    """Those of the corpus that reach the network or a file where there is no isolation, as the last test shows."""
    documents = leaking(Machine.of(tmp_path, listener.url))
    async with Emulator(settings=replace(TIGHT, isolation=isolation)) as emulator:
        if await emulator.isolation() != isolation:
            pytest.skip(f"this machine does not offer {isolation}")
        jobs = await all_ended(emulator, documents)
        assert {job.state for job in jobs.values()} == {"Success"}
        assert not any(shows_a_file_of_the_machine(emulator, job) for job in jobs.values())
    assert listener.heard == []


async def test_without_isolation_the_same_documents_are_heard_and_show_files(
    listener: Listener, tmp_path: Path
) -> None:
    """So these tests would notice a hole in a wall, and `health` is right to say `limits`."""
    documents = leaking(Machine.of(tmp_path, listener.url))
    async with Emulator(settings=replace(TIGHT, isolation=LIMITS)) as emulator:
        assert await emulator.isolation() == LIMITS
        jobs = await all_ended(emulator, documents)
        shown = {name for name, job in jobs.items() if shows_a_file_of_the_machine(emulator, job)}
    assert shown == {name for name in documents if name.startswith("disk")}
    assert listener.heard


def leaking(machine: Machine) -> dict[str, bytes]:
    names = ("net.html", "net-web.doc", "disk.html", "disk-web.doc", "disk.rtf", "disk-svg.docx")
    return {name: data for name, data in calling(machine).items() if name in names}


@pytest.mark.parametrize(
    ("name", "data", "code", "option"),
    [
        ("bomb.docx", zip_bomb(65), "-3075", "64 MiB (--max-unpacked)"),
        ("wide.pdf", page_of_size(14_400, 14_400), "ImageTooLarge", "20 megapixels (--max-page-megapixels)"),
        ("many.pdf", page_of_size(2_000, 2_000, 20), "ImageTooLarge", "100 megapixels together (--max-job-megapixels)"),
        ("slow.pdf", slow_pdf(), "ConversionTimeout", "6 s of CPU time (--max-cpu-time)"),
        ("slow.xlsx", slow_workbook(), "ConversionTimeout", "6 s of CPU time (--max-cpu-time)"),
        ("deep.pdf", endless_pdf(), "-3075", "512 MiB of memory (--max-memory)"),
        ("long.pptx", slides(2000), "FileOpenFailed", "of 512 MiB (--max-memory)"),
    ],
)
async def test_a_document_that_exceeds_a_bound_fails_with_the_option_of_serve_in_its_message(
    name: str, data: bytes, code: str, option: str
) -> None:
    bounds = replace(TIGHT, max_memory=512, max_cpu_time=60) if "--max-memory" in option else TIGHT
    async with Emulator(settings=bounds) as emulator:
        job = (await all_ended(emulator, {name: data}))[name]
        assert (job.state, job.code) == ("Failed", code)
        assert option in job.message


async def test_pages_that_fill_the_disk_fail_their_job_when_they_exceed_the_bound() -> None:
    async with Emulator(settings=replace(TIGHT, max_files=1)) as emulator, Cloud(emulator.url) as cloud:
        job = await converted(emulator, cloud, "noise.pdf", noise_pdf(1200), "o/${Number}", TgtType="png")
        assert (job.state, job.code) == ("Failed", "-3075")
        assert "1 MiB of files (--max-files)" in job.message


async def test_pages_of_65000_by_65000_pixels_are_refused_before_they_are_drawn() -> None:
    """Within the bound of each side, beyond that of their area; with the bounds that are the default."""
    side = 65_000 / 96 * 72
    async with Emulator(settings=Settings(submit_delay=0)) as emulator, Cloud(emulator.url) as cloud:
        job = await converted(emulator, cloud, "wide.pdf", page_of_size(side, side), "o/${Number}")
        assert (job.state, job.code) == ("Failed", "ImageTooLarge")
        assert job.message == ("An image of 65000 x 65000 pixels has more than 200 megapixels (--max-page-megapixels).")


async def test_slow_documents_of_a_bucket_do_not_keep_those_of_another_waiting() -> None:
    """Twelve that take minutes, and a line of text that is done while they run."""
    settings = Settings(submit_delay=0, workers=2)
    async with Emulator(settings=settings) as emulator, Cloud(emulator.url) as cloud:
        slow, region = slow_pdf(), REGION
        emulator.put_object(BUCKET, region, "slow.pdf", slow)
        waiting = [await cloud.job_id("slow.pdf") for _ in range(12)]
        emulator.put_object(ANOTHER_BUCKET, region, "line.txt", b"one line")
        host = f"{ANOTHER_BUCKET}.ci.{region}.myqcloud.com"
        made = await cloud.send(
            "POST", "/doc_jobs", host=host, headers={"content-type": XML}, body=create_body("line.txt")
        )
        job = await emulator.wait_for_job(made.text("JobsDetail/JobId"), timeout=200)
        assert job.state == "Success"
        assert {emulator.job(job_id).state for job_id in waiting} <= {"Submitted", "Running"}


@pytest.fixture
def _nothing_is_written_outside() -> Iterator[None]:
    yield
    assert not OUTSIDE.exists()


@pytest.mark.usefixtures("_nothing_is_written_outside")
async def test_the_server_answers_while_hostile_documents_are_converted_and_converts_the_next(tmp_path: Path) -> None:
    """Each job ends with a state and, if it failed, a message; nothing is left behind or written elsewhere."""
    documents = {**exploding(), **lying(), "slow.pdf": slow_pdf(), "bomb.docx": zip_bomb(65)}
    async with Emulator(tmp_path / "data", settings=TIGHT) as emulator, Cloud(emulator.url) as cloud:
        converting = asyncio.ensure_future(all_ended(emulator, documents))
        answers = 0
        while not converting.done():
            async with cloud.session.get(f"{emulator.url}/_emulator/health") as reply:
                assert (await reply.json())["status"] == "ok"
            answers += 1
            await asyncio.wait([converting], timeout=0.05)
        jobs = await converting
        assert answers > 10
        assert {job.state for job in jobs.values()} <= {"Success", "Failed"}
        assert [name for name, job in jobs.items() if job.state == "Failed" and not job.message] == []
        job = (await all_ended(emulator, {"letter.docx": letter(["one", "two"])}))["letter.docx"]
        assert job.result is not None
        assert len(job.result.pages) == 2
    assert list((tmp_path / "data" / "work").iterdir()) == []


async def test_a_watermark_that_explodes_fails_its_job() -> None:
    """Its image is opened where documents are."""
    async with Emulator(settings=TIGHT) as emulator, Cloud(emulator.url) as cloud:
        emulator.put_object(BUCKET, REGION, "bomb.png", picture_bomb())
        mark = f"<DocWatermark><Type>1</Type><Image>http://{COS_HOST}/bomb.png</Image></DocWatermark>"
        job = await converted(emulator, cloud, "a.pdf", pdf(1), "o/${Number}", raw=mark)
        assert (job.state, job.code) == ("Failed", "ResourceDownloadFailed")
