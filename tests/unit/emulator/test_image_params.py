"""`ImageParams`: what users set is applied to page images, everything else is named as ignored."""

import io
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from docpreview_emulator import Emulator
from docpreview_emulator.fonts import Fonts, undrawn_letters
from docpreview_emulator.image_params import ImageParams, Mark
from docpreview_emulator.model import Job
from docpreview_emulator.stamp import Stamp
from tests.programs import need

from .cloud_client import BUCKET, COS_HOST, REGION, Cloud
from .pdf_files import pdf

POINTS: dict[str, Any] = {"ImageDpi": 96, "Zoom": 75}
"""A page of 300 by 150 points becomes a picture of 300 by 150 pixels."""

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
Box = tuple[int, int, int, int]


def encoded(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


async def converted(emulator: Emulator, cloud: Cloud, params: str, name: str = "o/1", **options: Any) -> Job:
    emulator.put_object(BUCKET, REGION, "blank.pdf", pdf(2, 300, 150))
    settings = {"TgtType": "png", "PageRanges": "1", **POINTS, **options}
    return await emulator.wait_for_job(
        await cloud.job_id("blank.pdf", name.replace("1", "${Number}"), ImageParams=params, **settings)
    )


async def picture(emulator: Emulator, cloud: Cloud, params: str, **options: Any) -> Image.Image:
    """The picture of a blank page, when all operations have been applied."""
    job = await converted(emulator, cloud, params, **options)
    assert (job.state, job.message) == ("Success", "")
    return Image.open(io.BytesIO(emulator.get_object(BUCKET, REGION, "o/1")))


def coloured(image: Image.Image, colour: tuple[int, int, int]) -> Box | None:
    """The box around all pixels of this colour."""
    difference = ImageChops.difference(image.convert("RGB"), Image.new("RGB", image.size, colour))
    return difference.convert("L").point(lambda value: 255 * (value == 0)).getbbox()


def inked(image: Image.Image) -> Box | None:
    """The box around all that is not white."""
    return image.convert("L").point(lambda value: 255 * (value < 250)).getbbox()


@pytest.mark.parametrize(
    ("geometry", "size"),
    [
        ("!50p", (150, 75)),
        ("!50px", (150, 150)),
        ("!x50p", (300, 75)),
        ("100x", (100, 50)),
        ("600x", (600, 300)),
        ("x50", (100, 50)),
        ("100x100", (100, 50)),
        ("600x600", (600, 300)),
        ("100x100>", (100, 50)),
        ("600x600>", (300, 150)),
        ("100x100<", (300, 150)),
        ("600x600<", (600, 300)),
        ("!100x100r", (200, 100)),
        ("100x100!", (100, 100)),
        ("11250@", (150, 75)),
        ("90000@", (300, 150)),
    ],
)
async def test_a_thumbnail_has_the_size_that_the_vendor_documents(
    emulator: Emulator, cloud: Cloud, geometry: str, size: tuple[int, int]
) -> None:
    assert (await picture(emulator, cloud, f"imageMogr2/thumbnail/{geometry}")).size == size


async def test_operations_are_applied_one_after_the_other(emulator: Emulator, cloud: Cloud) -> None:
    chain = "imageMogr2/thumbnail/!50p|imageMogr2/thumbnail/!50p/thumbnail/x10!"
    assert ImageParams.read(chain, "png").ignored == [("imageMogr2/thumbnail", "its value")]
    assert (await picture(emulator, cloud, "imageMogr2/thumbnail/!50p|imageMogr2/thumbnail/x30")).size == (60, 30)


async def test_a_thumbnail_of_a_single_image_is_one_of_the_whole_image(emulator: Emulator, cloud: Cloud) -> None:
    image = await picture(emulator, cloud, "imageMogr2/thumbnail/x100", PicPagination=1, PageRanges="1-2")
    assert image.size == (100, 100)


async def test_a_thumbnail_with_a_side_above_9999_pixels_fails_its_job(emulator: Emulator, cloud: Cloud) -> None:
    job = await converted(emulator, cloud, "imageMogr2/thumbnail/10000x")
    assert (job.code, job.message) == ("ImageTooLarge", "A thumbnail's side of 10000 px is above 9999 px.")


@pytest.mark.parametrize(
    ("params", "wanted", "quality"),
    [
        ("imageMogr2/quality/60", 100, 60),
        ("imageMogr2/quality/60", 30, 30),
        ("imageMogr2/quality/60!", 30, 60),
        ("imageMogr2/rquality/50", 80, 40),
        ("imageMogr2/lquality/80", 60, 80),
        ("imageMogr2/thumbnail/300x/quality/60", 100, 60),
        ("imageMogr2/quality/0!", 100, 1),
    ],
)
async def test_the_quality_of_a_jpeg_is_the_one_that_the_vendor_documents(
    emulator: Emulator, cloud: Cloud, params: str, wanted: int, quality: int
) -> None:
    """A JPEG of that quality has the same quantisation."""
    image = await picture(emulator, cloud, params, TgtType="jpg", Quality=wanted)
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    same = Image.open(file)
    assert image.quantization == same.quantization  # type: ignore[attr-defined]


def put_stamp(emulator: Emulator) -> str:
    """An image of 40 by 20 red pixels; the operation that draws it fully opaque."""
    file = io.BytesIO()
    Image.new("RGB", (40, 20), RED).save(file, "PNG")
    emulator.put_object(BUCKET, REGION, "brand/a b.png", file.getvalue())
    return f"watermark/1/image/{encoded(f'http://{COS_HOST}/brand/a%20b.png')}/dissolve/100"


@pytest.mark.parametrize(
    ("place", "box"),
    [
        ("", (260, 130, 300, 150)),
        ("/gravity/SouthEast/dx/5/dy/7", (255, 123, 295, 143)),
        ("/gravity/northwest/dx/5/dy/7", (5, 7, 45, 27)),
        ("/gravity/NorthEast/dx/5/dy/7", (255, 7, 295, 27)),
        ("/gravity/southwest/dx/5/dy/7", (5, 123, 45, 143)),
        ("/gravity/north/dx/5/dy/7", (130, 7, 170, 27)),
        ("/gravity/south/dx/5/dy/7", (130, 123, 170, 143)),
        ("/gravity/west/dx/5/dy/7", (5, 65, 45, 85)),
        ("/gravity/east/dx/5/dy/7", (255, 65, 295, 85)),
        ("/gravity/center/dx/5/dy/7", (130, 65, 170, 85)),
    ],
)
async def test_an_image_watermark_is_at_its_distance_from_the_edges_of_its_gravity(
    emulator: Emulator, cloud: Cloud, place: str, box: Box
) -> None:
    assert coloured(await picture(emulator, cloud, put_stamp(emulator) + place), RED) == box


async def test_an_image_watermark_is_tiled_with_its_distances_as_gaps(emulator: Emulator, cloud: Cloud) -> None:
    page = (await picture(emulator, cloud, put_stamp(emulator) + "/batch/1/dx/10/dy/30")).convert("RGB")
    tiles = Image.new("RGB", page.size, WHITE)
    for left in range(10, 300, 50):
        for top in range(30, 150, 50):
            tiles.paste(RED, (left, top, left + 40, top + 20))
    tiles.paste(RED, (0, 30, 0, 50))
    assert page.crop((10, 30, 300, 150)).tobytes() == tiles.crop((10, 30, 300, 150)).tobytes()


async def test_dissolve_is_the_opacity_of_a_watermark_and_90_by_default(emulator: Emulator, cloud: Cloud) -> None:
    stamp = put_stamp(emulator)
    for dissolve, expected in (("/dissolve/50", 128), ("", 26)):
        page = await picture(emulator, cloud, stamp.replace("/dissolve/100", dissolve))
        red, green, blue = page.convert("RGB").getpixel((280, 140))  # type: ignore[misc]
        assert (red, abs(green - expected) <= 2, green) == (255, True, blue)


async def test_a_watermark_after_a_thumbnail_is_not_scaled(emulator: Emulator, cloud: Cloud) -> None:
    stamp = put_stamp(emulator)
    assert coloured(await picture(emulator, cloud, f"imageMogr2/thumbnail/!50p|{stamp}"), RED) == (110, 55, 150, 75)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (f"http://{COS_HOST}/none.png", "The image of a watermark in ImageParams does not exist."),
        (f"http://{COS_HOST}/blank.pdf", "The image of the watermark cannot be read."),
        (
            "http://elsewhere.example/a.png",
            "The image of a watermark is not on an object host; the emulator makes no connections.",
        ),
    ],
)
async def test_a_watermark_whose_image_cannot_be_read_fails_the_job(
    emulator: Emulator, cloud: Cloud, address: str, message: str
) -> None:
    job = await converted(emulator, cloud, f"watermark/1/image/{encoded(address)}")
    assert (job.code, job.message) == ("ResourceDownloadFailed", message)


WORD = f"watermark/2/text/{encoded('HHH')}/fill/{encoded('#FF0000')}/dissolve/100"


async def test_a_text_watermark_is_in_the_lower_right_corner_in_its_colour(emulator: Emulator, cloud: Cloud) -> None:
    box = coloured(await picture(emulator, cloud, f"{WORD}/fontsize/40"), RED)
    assert box is not None
    left, top, right, bottom = box
    assert right > 290 and bottom > 145 and 180 < left < 230 and 110 < top < 130  # noqa: PT018 - one box


async def test_a_text_watermark_is_grey_by_default_and_larger_with_a_larger_font(
    emulator: Emulator, cloud: Cloud
) -> None:
    plain = f"watermark/2/text/{encoded('HHH')}"
    heights = []
    for size in ("", "/fontsize/13", "/fontsize/26"):
        image = await picture(emulator, cloud, plain + size)
        box = inked(image)
        assert box is not None
        heights.append(box[3] - box[1])
        red, green, blue = image.convert("RGB").split()
        assert red.tobytes() == green.tobytes() == blue.tobytes()
        assert abs(red.getextrema()[0] - 0x50) < 12, "90 % of #3D3D3D on white"  # type: ignore[operator]
    assert heights[0] == heights[1] < heights[2]


@pytest.mark.parametrize("text", ["H\nH", "H\r\nH", "H\rH\n", "H\u2029H", "H\x85H"])
async def test_a_text_watermark_with_a_line_break_is_drawn_in_lines(
    emulator: Emulator, cloud: Cloud, text: str
) -> None:
    """Two letters below each other are as wide as one, and more than twice as high."""
    one, two = [
        inked(await picture(emulator, cloud, f"watermark/2/text/{encoded(word)}/fontsize/30")) for word in ("H", text)
    ]
    assert one is not None and two is not None  # noqa: PT018 - both
    assert two[2] - two[0] == one[2] - one[0]
    assert two[3] - two[1] > 2 * (one[3] - one[1])


@pytest.mark.parametrize("text", ["H\x00H", "H\tH", "H\x1bH", "H\x7fH"])
async def test_a_text_watermark_with_a_control_character_has_a_blank_in_its_place(
    emulator: Emulator, cloud: Cloud, text: str
) -> None:
    """The picture is that of the text with a blank."""
    blank, other = [
        (await picture(emulator, cloud, f"watermark/2/text/{encoded(word)}")).tobytes() for word in ("H H", text)
    ]
    assert other == blank


async def test_a_text_watermark_of_line_breaks_only_draws_nothing(emulator: Emulator, cloud: Cloud) -> None:
    """Its job succeeds with a blank page."""
    assert inked(await picture(emulator, cloud, f"watermark/2/text/{encoded(chr(10) * 2)}")) is None


async def test_a_tiled_text_is_turned_and_all_over_the_page(emulator: Emulator, cloud: Cloud) -> None:
    image = await picture(emulator, cloud, f"{WORD}/batch/1/degree/90/dx/20/dy/20")
    box = inked(image)
    assert box is not None
    assert box[0] < 25 and box[1] < 25 and box[2] > 275 and box[3] > 125  # noqa: PT018 - one box


NOWHERE = Fonts(1, ((0x20, 0x7E),))
"""Fonts that have English only."""


@pytest.mark.parametrize(
    ("lacking", "fonts", "message"),
    [
        ("\ua000", NOWHERE, "No font of this machine has \ua000 (U+A000): install fonts-noto-core (Debian)."),
        (
            "\ua000\ua000\U0002f8ff",
            NOWHERE,
            (
                "No font of this machine has \ua000 (U+A000) and \U0002f8ff (U+2F8FF):"
                " install fonts-noto-core fonts-hanazono (Debian)."
            ),
        ),
        ("\U0010fffd", NOWHERE, "No font of this machine has U+10FFFD."),
        ("\uffff", NOWHERE, "No font of this machine has U+FFFF."),
        ("\ua000", None, "A watermark's text is drawn in one font, which does not have \ua000 (U+A000)."),
        (
            "\ua000\ua001",
            Fonts(1, ((0xA001, 0xA001),)),
            (
                "No font of this machine has \ua000 (U+A000): install fonts-noto-core (Debian). "
                "A watermark's text is drawn in one font, which does not have \ua001 (U+A001)."
            ),
        ),
    ],
)
def test_characters_of_a_text_watermark_that_are_not_drawn_are_named_with_the_package_to_install(
    lacking: str, fonts: Fonts | None, message: str
) -> None:
    """Those that cannot be seen are numbers."""
    assert " ".join(undrawn_letters(lacking, fonts)) == message


def test_a_text_watermark_is_drawn_without_fontconfig_and_names_what_the_font_of_pillow_lacks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    stamp, warnings = Stamp.of_mark(Mark(text="H\ua000", font_size=14), {})
    assert stamp.image.getbbox() is not None
    assert warnings == ["A watermark's text is drawn in one font, which does not have \ua000 (U+A000)."]


async def test_a_job_names_the_characters_of_a_text_watermark_that_no_font_has(
    emulator: Emulator, cloud: Cloud
) -> None:
    """The one of this text is of private use: no package has it."""
    need("fc-list")
    job = await converted(emulator, cloud, f"watermark/2/text/{encoded(chr(0x10FFFD))}")
    assert (job.state, job.message) == ("Success", "No font of this machine has U+10FFFD.")


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ("imageView2/2/w/300", "imageView2 (not modelled)"),
        (
            "imageMogr2/rotate/90/thumbnail/100x/strip/format/webp",
            "imageMogr2/rotate (not modelled), imageMogr2/strip (not modelled), imageMogr2/format (not modelled)",
        ),
        ("imageMogr2/crop/100x100/gravity/top", "imageMogr2/crop (not modelled), imageMogr2/gravity (not modelled)"),
        ("imageMogr2/thumbnail/0x", "imageMogr2/thumbnail (its value)"),
        ("imageMogr2/thumbnail/0x0", "imageMogr2/thumbnail (its value)"),
        ("imageMogr2/thumbnail/!300x200", "imageMogr2/thumbnail (its value)"),
        ("imageMogr2/thumbnail", "imageMogr2/thumbnail (its value)"),
        ("imageMogr2/quality/60", "imageMogr2/quality (jpg only)"),
        ("watermark/3/type/3", "watermark/3 (not modelled)"),
        ("watermark/2/text/~", "watermark/2 (its text)"),
        ("watermark/2", "watermark/2 (its text)"),
        ("watermark/1/image/~", "watermark/1 (its image)"),
        (
            f"{WORD}/shadow/50/degree/45/gravity/top",
            "watermark/gravity (its value), watermark/shadow (not modelled), watermark/degree (with batch/1 only)",
        ),
        ("imageSlim|imageSlim|<b>/secret|", "imageSlim (not modelled), ? (not modelled)"),
        ("imageSlim||", "imageSlim (not modelled)"),
        (
            "|".join(f"op{number}" for number in range(12)),
            f"{', '.join(f'op{number} (not modelled)' for number in range(10))} and 2 more",
        ),
    ],
)
async def test_what_is_not_applied_is_named_in_the_message_with_the_reason_and_without_its_values(
    emulator: Emulator, cloud: Cloud, params: str, names: str
) -> None:
    """The target is PNG, which has no quality."""
    job = await converted(emulator, cloud, params)
    assert (job.state, job.message) == ("Success", f"Ignored in ImageParams: {names}.")


@pytest.mark.parametrize(
    "word",
    [
        *("fontsize/abc", "fontsize/0", "fontsize/100000000", "fill/red", "fill", f"fill/{encoded('#zzzzzz')}"),
        *("dissolve/500", "dissolve/0", "dx/abc", "dx/-1", "dx/999999999999", "dy/abc", "dy/", "batch/7"),
        *("gravity/nowhere", "batch/1/degree/99999", "batch/1/degree/361"),
    ],
)
async def test_a_bad_value_of_a_watermark_is_named_in_the_message_and_the_default_is_taken(
    emulator: Emulator, cloud: Cloud, word: str
) -> None:
    """The picture is that of the watermark without the value."""
    plain = f"watermark/2/text/{encoded('HHH')}"
    rest = "/batch/1" if word.startswith("batch/1/") else ""
    name = word.removeprefix("batch/1/").split("/")[0]
    job = await converted(emulator, cloud, f"{plain}/{word}")
    assert (job.state, job.message) == ("Success", f"Ignored in ImageParams: watermark/{name} (its value).")
    image = Image.open(io.BytesIO(emulator.get_object(BUCKET, REGION, "o/1")))
    assert image.tobytes() == (await picture(emulator, cloud, plain + rest)).tobytes()


@pytest.mark.parametrize("name", ["quality", "rquality", "lquality"])
@pytest.mark.parametrize("value", ["500", "101", "101!", "abc", ""])
def test_a_bad_quality_is_named_in_the_message_and_not_applied(name: str, value: str) -> None:
    """The target is JPEG, which has qualities."""
    params = ImageParams.read(f"imageMogr2/{name}/{value}", "jpg")
    assert params.warnings == [f"Ignored in ImageParams: imageMogr2/{name} (its value)."]
    assert params.quality(50) == 50


async def test_a_job_with_a_bad_quality_says_so(emulator: Emulator, cloud: Cloud) -> None:
    """One of the cloud's is at most 100."""
    job = await converted(emulator, cloud, "imageMogr2/quality/500", TgtType="jpg")
    assert (job.state, job.message) == ("Success", "Ignored in ImageParams: imageMogr2/quality (its value).")


@pytest.mark.parametrize(
    "word", ["dissolve/100", "dissolve/1", "batch/0", "batch/1/degree/360", "dx/0", "fontsize/1", ""]
)
def test_a_good_value_of_a_watermark_is_no_warning(word: str) -> None:
    """Nor is a slash at the end."""
    assert ImageParams.read(f"watermark/2/text/{encoded('HHH')}/{word}", "png").warnings == []


async def test_a_pdf_has_no_image_params(emulator: Emulator, cloud: Cloud) -> None:
    job = await converted(emulator, cloud, "imageMogr2/thumbnail/100x", TgtType="pdf")
    assert (job.state, job.message) == ("Success", "Ignored in ImageParams: imageMogr2 (jpg and png only).")
