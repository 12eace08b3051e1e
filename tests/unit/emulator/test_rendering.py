"""Real pages: what comes out of a document, and how a document fails."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import docpreview_emulator
from docpreview_emulator import Emulator
from docpreview_emulator.formats import SUFFIXES
from docpreview_emulator.model import Job

from .cloud_client import BUCKET, REGION, Cloud
from .pdf_files import encrypted_pdf, pdf


async def finished(emulator: Emulator, cloud: Cloud, key: str, template: str = "out/${Number}", **options: Any) -> Job:
    return await emulator.wait_for_job(await cloud.job_id(key, template, **options))


def targets(job: Job) -> list[str]:
    assert job.result is not None, (job.code, job.message)
    return [page.target for page in job.result.pages]


def image(emulator: Emulator, key: str) -> Image.Image:
    return Image.open(io.BytesIO(emulator.get_object(BUCKET, REGION, key)))


@pytest.mark.parametrize(
    ("options", "size", "kind"),
    [
        ({}, (267, 134), "JPEG"),
        ({"TgtType": "png"}, (267, 134), "PNG"),
        ({"TgtType": "tiff"}, (267, 134), "JPEG"),
        ({"ImageDpi": 144}, (400, 200), "JPEG"),
        ({"ImageDpi": 144, "Zoom": 50}, (200, 100), "JPEG"),
        ({"ImageDpi": 10, "Zoom": 1000}, (534, 267), "JPEG"),
    ],
)
async def test_a_page_has_the_asked_size_and_format_within_the_clouds_range(
    emulator: Emulator, cloud: Cloud, options: dict[str, Any], size: tuple[int, int], kind: str
) -> None:
    """The page is 200 by 100 points; what is out of range is cut to the range."""
    await finished(emulator, cloud, "seven.pdf", PageRanges="1", **options)
    page = image(emulator, "out/1")
    assert (page.size, page.format) == (size, kind)


async def test_a_better_quality_quantises_less(emulator: Emulator, cloud: Cloud) -> None:
    tables = {}
    for quality in (10, 95):
        await finished(emulator, cloud, "seven.pdf", "q/${Number}", PageRanges="1", Quality=quality)
        tables[quality] = sum(image(emulator, "q/1").quantization[0])  # type: ignore[attr-defined]
    assert tables[10] > tables[95]


@pytest.mark.parametrize(
    ("template", "options", "expected"),
    [
        ("o/${Number}", {"StartPage": 5, "EndPage": 6}, ["o/1", "o/2"]),
        ("o/${Page}", {"StartPage": 5, "EndPage": 6}, ["o/5", "o/6"]),
        ("o/${Page}", {"StartPage": 6}, ["o/6", "o/7"]),
        ("o/${Page}", {"StartPage": 6, "EndPage": 5001}, ["o/6", "o/7"]),
        ("/o/${Number}.jpg", {"PageRanges": "6,2-3", "EndPage": -1}, ["/o/6.jpg", "/o/2.jpg", "/o/3.jpg"]),
        ("o/${Page}", {"PageRanges": "6-9"}, ["o/6", "o/7"]),
        ("o/whole-${Number}.pdf", {"TgtType": "pdf", "PageRanges": "2"}, ["o/whole-1.pdf"]),
    ],
)
async def test_the_selected_pages_are_stored_under_the_names_of_the_template(
    emulator: Emulator, cloud: Cloud, template: str, options: dict[str, Any], expected: list[str]
) -> None:
    job = await finished(emulator, cloud, "seven.pdf", template, **options)
    assert targets(job) == expected
    assert emulator.get_object(BUCKET, REGION, expected[0].removeprefix("/"))


async def test_a_single_image_has_all_wanted_pages_below_each_other(emulator: Emulator, cloud: Cloud) -> None:
    job = await finished(emulator, cloud, "seven.pdf", "o/long-${Page}.png", PicPagination=1, TgtType="png", EndPage=3)
    assert targets(job) == ["o/long-1.png"]
    assert image(emulator, "o/long-1.png").size == (267, 3 * 134)


async def test_an_encrypted_pdf_opens_with_its_password_and_converts_to_an_open_one(
    emulator: Emulator, cloud: Cloud
) -> None:
    emulator.put_object(BUCKET, REGION, "secret.pdf", encrypted_pdf(b"pass"))
    assert targets(await finished(emulator, cloud, "secret.pdf", DocPassword="pass")) == ["out/1"]
    await finished(emulator, cloud, "secret.pdf", "open-${Number}.pdf", DocPassword="pass", TgtType="pdf")
    assert targets(await finished(emulator, cloud, "open-1.pdf")) == ["out/1"]


@pytest.mark.parametrize(
    ("document", "options", "code"),
    [
        (("secret.pdf", encrypted_pdf(b"pass")), {}, "-3006"),
        (("secret.pdf", encrypted_pdf(b"pass")), {"DocPassword": "wrong"}, "-3006"),
        (("empty.pdf", b""), {}, "-3008"),
        (("what.xyz", b"?"), {}, "-3011"),
        (("nosuffix", b"?"), {}, "-3011"),
        (("two.pdf", pdf(2)), {"StartPage": 3}, "-3015"),
        (("two.pdf", pdf(2)), {"PageRanges": "1,3"}, "-3015"),
        (("noise.pdf", b"no pdf at all"), {}, "FileOpenFailed"),
        (("cut.pdf", pdf(3)[:100]), {}, "FileOpenFailed"),
        (("many.pdf", pdf(21)), {"PicPagination": 1}, "TooManyPages"),
        (("wide.pdf", pdf(1, width=14000)), {"ImageDpi": 600}, "ImageTooLarge"),
    ],
)
async def test_a_document_that_cannot_be_rendered_fails_its_own_job_only(
    emulator: Emulator, cloud: Cloud, document: tuple[str, bytes], options: dict[str, Any], code: str
) -> None:
    """The job is Failed with a code and a message, and the next job works."""
    emulator.put_object(BUCKET, REGION, *document)
    job_id = await cloud.job_id(document[0], **options)
    await emulator.wait_for_job(job_id)
    reply = await cloud.get(job_id)
    assert (reply.text("JobsDetail/State"), reply.text("JobsDetail/Code")) == ("Failed", code)
    assert reply.text("JobsDetail/Message")
    assert reply.xml.find("JobsDetail/Operation/DocProcessResult") is None
    assert targets(await finished(emulator, cloud, "seven.pdf", EndPage=1)) == ["out/1"]


@pytest.mark.parametrize(
    ("options", "why"), [({}, "there is no DocPassword"), ({"DocPassword": "wrong"}, "DocPassword does not open it")]
)
async def test_an_encrypted_pdf_that_stays_closed_says_whether_a_password_was_given(
    emulator: Emulator, cloud: Cloud, caplog: pytest.LogCaptureFixture, options: dict[str, Any], why: str
) -> None:
    """In the message of its job and in the log."""
    emulator.put_object(BUCKET, REGION, "secret.pdf", encrypted_pdf(b"pass"))
    job = await emulator.wait_for_job(await cloud.job_id("secret.pdf", **options))
    assert job.message == f"The document is encrypted and {why}."
    assert f"job {job.job_id} has failed: -3006: {job.message}" in caplog.messages


async def test_the_source_type_speaks_for_a_key_without_suffix(emulator: Emulator, cloud: Cloud) -> None:
    emulator.put_object(BUCKET, REGION, "nosuffix", pdf(1))
    assert targets(await finished(emulator, cloud, "nosuffix", SrcType="pdf")) == ["out/1"]


async def test_a_job_fails_when_its_input_is_deleted_before_it_runs(emulator: Emulator, cloud: Cloud) -> None:
    emulator.hold_jobs()
    job_id = await cloud.job_id("seven.pdf")
    assert (await cloud.send("DELETE", "/seven.pdf", host=f"{BUCKET}.cos.{REGION}.myqcloud.com")).status == 204
    emulator.release_jobs()
    assert (await emulator.wait_for_job(job_id)).code == "ResourceNotFound"


COS = f"https://{BUCKET}.cos.{REGION}.myqcloud.com"
BLUE, WHITE = (0, 0, 255), (255, 255, 255)


def stamped(key: str, **numbers: int) -> str:
    fields = "".join(f"<{name}>{number}</{name}>" for name, number in numbers.items())
    return f"<DocWatermark><Type>1</Type><Image>{COS}/{key}</Image>{fields}</DocWatermark>"


def put_stamp(emulator: Emulator, size: tuple[int, int] = (20, 10)) -> None:
    file = io.BytesIO()
    Image.new("RGB", size, BLUE).save(file, "PNG")
    emulator.put_object(BUCKET, REGION, "brand/a b.png", file.getvalue())


async def stamped_page(emulator: Emulator, cloud: Cloud, watermark: str, **options: Any) -> Image.Image:
    emulator.put_object(BUCKET, REGION, "blank.pdf", pdf(1))
    await finished(emulator, cloud, "blank.pdf", "w/${Number}", raw=watermark, TgtType="png", **options)
    return image(emulator, "w/1").convert("RGB")


def blue(page: Image.Image) -> set[tuple[int, int]]:
    """The pixels with the stamp."""
    return {(x, y) for x in range(page.width) for y in range(page.height) if page.getpixel((x, y)) == BLUE}


def box(left: int, top: int, width: int = 20, height: int = 10) -> set[tuple[int, int]]:
    return {(x, y) for x in range(left, left + width) for y in range(top, top + height)}


async def test_a_watermark_is_drawn_where_it_was_asked_for(emulator: Emulator, cloud: Cloud) -> None:
    """Counted from the upper left corner, in pixels of the page image, and nothing else changes."""
    put_stamp(emulator)
    page = await stamped_page(emulator, cloud, stamped("brand/a%20b.png", Dx=30, Dy=40))
    assert blue(page) == box(30, 40)
    page = await stamped_page(emulator, cloud, stamped("brand/a%20b.png"), ImageDpi=144)
    assert blue(page) == box(0, 0)


async def test_a_tiled_watermark_covers_the_page_with_its_gaps(emulator: Emulator, cloud: Cloud) -> None:
    put_stamp(emulator)
    watermark = stamped("brand/a%20b.png", Dx=5, Dy=5, Batch=1, HorizontalSpacing=30, VerticalSpacing=40)
    page = await stamped_page(emulator, cloud, watermark)
    tiles = {(left, top) for left in range(-45, page.width, 50) for top in range(-45, page.height, 50)}
    whole = {pixel for tile in tiles for pixel in box(*tile)}
    assert blue(page) == {(x, y) for x, y in whole if 0 <= x < page.width and 0 <= y < page.height}


async def test_a_watermark_is_in_a_pdf_too(emulator: Emulator, cloud: Cloud) -> None:
    """At the place that it has in an image of the default resolution."""
    put_stamp(emulator)
    emulator.put_object(BUCKET, REGION, "blank.pdf", pdf(2))
    watermark = stamped("brand/a%20b.png", Dx=30, Dy=40)
    await finished(emulator, cloud, "blank.pdf", "w-${Number}.pdf", raw=watermark, TgtType="pdf")
    await finished(emulator, cloud, "w-1.pdf", "w/${Number}", TgtType="png")
    for name in ("w/1", "w/2"):
        page = image(emulator, name).convert("RGB")
        assert (page.getpixel((40, 45)), page.getpixel((60, 60))) == (BLUE, WHITE)


async def test_a_watermark_is_echoed(emulator: Emulator, cloud: Cloud) -> None:
    put_stamp(emulator)
    emulator.put_object(BUCKET, REGION, "blank.pdf", pdf(1))
    reply = await cloud.create("blank.pdf", raw=stamped("brand/a%20b.png", Dx=30))
    prefix = "JobsDetail/Operation/DocProcess/DocWatermark"
    assert reply.text(f"{prefix}/Image") == f"{COS}/brand/a%20b.png"
    assert reply.text(f"{prefix}/Dx") == "30"


@pytest.mark.parametrize("content", [None, b"no image"])
async def test_a_watermark_whose_image_cannot_be_read_fails_the_job(
    emulator: Emulator, cloud: Cloud, content: bytes | None
) -> None:
    if content is not None:
        emulator.put_object(BUCKET, REGION, "brand/x.png", content)
    job = await finished(emulator, cloud, "seven.pdf", raw=stamped("brand/x.png"))
    assert (job.state, job.code) == ("Failed", "ResourceDownloadFailed")


@pytest.mark.parametrize(
    "watermark",
    [
        "<DocWatermark><Type>1</Type><Image>https://elsewhere.example/a.png</Image></DocWatermark>",
        "<DocWatermark><Type>Text</Type></DocWatermark>",
        "<DocWatermark><Type>1</Type></DocWatermark>",
        stamped("a.png").replace("</DocW", "<Dx>-1</Dx></DocW"),
    ],
)
async def test_a_watermark_that_the_emulator_cannot_draw_is_refused(cloud: Cloud, watermark: str) -> None:
    """It makes no outgoing connections, and no source shows another kind than an image."""
    reply = await cloud.create("seven.pdf", raw=watermark)
    assert (reply.status, reply.text("Code")) == (400, "InvalidArgument")


async def test_a_suffix_that_the_cloud_does_not_list_is_told_those_that_it_does(
    emulator: Emulator, cloud: Cloud
) -> None:
    """The README has them too."""
    emulator.put_object(BUCKET, REGION, "letter.odt", b"PK")
    job = await emulator.wait_for_job(await cloud.job_id("letter.odt"))
    assert job.message.startswith("Unsupported file type: odt. The cloud converts pdf pptx ")
    readme = (Path(docpreview_emulator.__file__).parent / "README.md").read_text()
    for suffix in SUFFIXES.split():
        assert f" {suffix} " in job.message.replace(".", " ")
        assert re.search(rf"^\| documents \|.* {suffix}[ ;.]", readme, re.MULTILINE), suffix
