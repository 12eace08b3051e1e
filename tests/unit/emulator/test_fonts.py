"""Fonts of the machine: what is said about them, and about characters that they lack."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from docpreview_emulator import Emulator, Settings
from docpreview_emulator.fonts import Fonts, installed, missing_glyphs
from docpreview_emulator.shortcomings import renderers
from tests.programs import need

from .cloud_client import Cloud
from .office_files import letter, slides, workbook
from .office_jobs import converted, needs_office
from .pdf_files import pdf
from .test_rendering import image

LATIN = Fonts(1, ((0x20, 0x7E), (0xA0, 0x17F)))
FONTS = """<fontconfig><dir>{fonts}</dir><cachedir>{cache}</cachedir></fontconfig>"""


@pytest.fixture
def _latin_fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = {path.parent for path in Path("/usr/share/fonts").rglob("DejaVuSans.ttf")}
    settings = tmp_path / "fonts.conf"
    settings.write_text(FONTS.format(fonts=found, cache=tmp_path / "cache"))
    monkeypatch.setenv("FONTCONFIG_FILE", str(settings))


@pytest.fixture
async def latin(_latin_fonts: None, data_dir: Path) -> AsyncIterator[Emulator]:
    """An emulator on a machine that has fonts of Latin letters alone."""
    async with Emulator(data_dir, settings=Settings(submit_delay=0.0, isolation="limits")) as running:
        yield running


def test_no_warning_of_characters_that_a_font_has_or_that_are_never_drawn() -> None:
    """Such as spaces, controls, selectors of variants and characters of private use."""
    assert missing_glyphs("Zürich\u00a0\u200b\ufe0f\uf0b7\n", LATIN) == ""
    assert missing_glyphs("中文", None) == "", "without fc-list nobody knows"


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("中", "No font of this machine has 中 (U+4E2D): install fonts-noto-cjk (Debian)."),
        ("a中한", "No font of this machine has 中 (U+4E2D) and 한 (U+D55C): install fonts-noto-cjk (Debian)."),
        ("カ、ก", "No font of this machine has ก (U+0E01), 、 (U+3001) and カ (U+30AB): install fonts-noto-core"),
        ("😀", "No font of this machine has 😀 (U+1F600): install fonts-symbola (Debian)."),
        ("𠀀", "No font of this machine has 𠀀 (U+20000): install fonts-hanazono (Debian)."),
    ],
)
def test_a_warning_names_the_characters_and_the_packages_to_install(text: str, warning: str) -> None:
    assert missing_glyphs(text, LATIN).startswith(warning)


def test_a_warning_names_ten_characters_and_counts_the_others() -> None:
    warning = missing_glyphs(map(chr, range(0x4E00, 0x4E64)), LATIN)
    assert warning.count("U+") == 10
    assert "and 90 others: install fonts-noto-cjk" in warning


def test_the_start_line_says_what_documents_are_rendered_with() -> None:
    cjk = Fonts(24, ((0x20, 0xFFFF),))
    with_cjk = "documents are rendered with /usr/bin/soffice and 24 font families, with Chinese, Japanese and Korean"
    assert renderers("/usr/bin/soffice", cjk) == with_cjk
    without = "documents are rendered with no LibreOffice and 1 font families, none with Chinese, Japanese and Korean"
    assert renderers(None, LATIN) == without
    assert renderers(None, None).endswith("there is no fc-list")


def test_the_fonts_of_this_machine_are_those_of_fontconfig() -> None:
    need("fc-list")
    fonts = installed()
    assert fonts is not None
    assert fonts.families >= 1
    assert fonts.missing("ABC abc 123") == []


@needs_office
@pytest.mark.parametrize(
    ("key", "data"),
    [
        ("letter.docx", letter(["中文 text"])),
        ("book.xlsx", workbook({"A": [["a"]], "B": [["中文"]]})),
    ],
)
async def test_a_job_whose_characters_no_font_has_says_so_in_its_message_and_in_the_log(
    latin: Emulator, caplog: pytest.LogCaptureFixture, key: str, data: bytes
) -> None:
    """The job succeeds: its pages have boxes."""
    async with Cloud(latin.url) as cloud:
        with caplog.at_level(logging.WARNING):
            job = await converted(latin, cloud, key, data, "o/${SheetID}/${Number}")
        warning = "No font of this machine has 中 (U+4E2D) and 文 (U+6587): install fonts-noto-cjk (Debian)."
        assert (job.state, job.code, job.message) == ("Success", "Success", warning)
        assert f"job {job.job_id}: {warning}" in caplog.messages
        assert (await cloud.get(job.job_id)).text("JobsDetail/Message") == warning


@needs_office
async def test_each_of_several_characters_beyond_the_basic_plane_is_named(latin: Emulator) -> None:
    """One empty box stands for all of them in the page's text."""
    async with Cloud(latin.url) as cloud:
        job = await converted(latin, cloud, "party.txt", "party \U0001f389 rocket \U0001f680".encode(), "o/${Number}")
        assert job.message.startswith("No font of this machine has \U0001f389 (U+1F389) and \U0001f680 (U+1F680):")


@needs_office
async def test_characters_of_pages_that_are_not_converted_are_not_warned_of(latin: Emulator) -> None:
    async with Cloud(latin.url) as cloud:
        job = await converted(latin, cloud, "two.docx", letter(["one", "中"]), "o/${Number}", EndPage=1)
        assert (job.code, job.message) == ("Success", "")


async def test_a_pdf_brings_its_own_fonts_and_is_not_warned_of(latin: Emulator) -> None:
    async with Cloud(latin.url) as cloud:
        job = await converted(latin, cloud, "one.pdf", pdf(1), "o/${Number}")
        assert (job.code, job.message) == ("Success", "")


@needs_office
async def test_with_fonts_each_character_of_chinese_japanese_and_korean_has_its_own_shape(
    emulator: Emulator, cloud: Cloud
) -> None:
    """Empty boxes would all look the same."""
    need("fonts for Chinese, Japanese and Korean")
    characters = "中文カ한"
    job = await converted(emulator, cloud, "cjk.docx", letter(characters), "o/${Number}.png", TgtType="png")
    assert job.message == ""
    shapes = {image(emulator, f"o/{number}.png").tobytes() for number in range(1, len(characters) + 1)}
    assert len(shapes) == len(characters)


async def test_health_has_the_number_of_font_families(emulator: Emulator, cloud: Cloud) -> None:
    need("fc-list")
    fonts = installed()
    assert fonts is not None
    reply = await cloud.session.get(f"{emulator.url}/_emulator/health")
    health = await reply.json()
    assert (health["font_families"], health["cjk_fonts"]) == (fonts.families, fonts.has_cjk)


@needs_office
async def test_slides_without_text_have_no_warning(latin: Emulator) -> None:
    async with Cloud(latin.url) as cloud:
        job = await converted(latin, cloud, "deck.pptx", slides(1), "o/${Number}")
        assert (job.code, job.message) == ("Success", "")
