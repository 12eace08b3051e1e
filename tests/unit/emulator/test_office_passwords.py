"""Documents of every family under a password, through the real LibreOffice.

Those in `secrets` were written by LibreOffice under the password "pass"; it has no encryption of old presentations, so
`secret.ppt` is one of its own, encrypted by RC4 as PowerPoint 2003 does it.
"""

from pathlib import Path
from typing import Any

import pytest

from docpreview_emulator import Emulator, Settings
from docpreview_emulator.office_passwords import decrypt_presentation, is_encrypted

from .cloud_client import Cloud
from .office_files import letter, slides, workbook
from .office_jobs import converted, needs_office
from .test_rendering import image, targets

SECRETS = Path(__file__).with_name("secrets")
RIGHT, WRONG, NONE = {"DocPassword": "pass"}, {"DocPassword": "Pass"}, dict[str, str]()
KEYS = {
    **{f"secret.{suffix}": f"secret.{suffix}" for suffix in ("docx", "xlsx", "pptx", "doc", "xls", "ppt")},
    "writer.doc": "secret.odt",
    "calc.xls": "secret.ods",
    "impress.ppt": "secret.odp",
}
"""The cloud's list has no suffixes of OpenDocument, whose documents come under other names."""


async def job_of(emulator: Emulator, cloud: Cloud, key: str, options: dict[str, Any]) -> tuple[str, str, list[str]]:
    """Its code, its message and its outputs."""
    data = (SECRETS / KEYS[key]).read_bytes()
    job = await converted(emulator, cloud, key, data, "o/${SheetID}/${Number}", **options)
    return job.code, job.message, targets(job) if job.state == "Success" else []


@needs_office
@pytest.mark.parametrize("key", KEYS)
async def test_an_encrypted_document_opens_with_its_password(emulator: Emulator, cloud: Cloud, key: str) -> None:
    """Two of the presentations have two slides."""
    code, message, outputs = await job_of(emulator, cloud, key, RIGHT)
    pages = 2 if key in {"secret.pptx", "impress.ppt"} else 1
    assert (code, message) == ("Success", "")
    assert outputs == [f"o/1/{number}" for number in range(1, pages + 1)]


@needs_office
async def test_the_pictures_of_an_encrypted_old_presentation_are_on_its_slides(
    emulator: Emulator, cloud: Cloud
) -> None:
    """They are encrypted apart from the slides; that of `secret.ppt` is red."""
    data = (SECRETS / "secret.ppt").read_bytes()
    await converted(emulator, cloud, "secret.ppt", data, "o/${Number}.png", TgtType="png", **RIGHT)
    colours = image(emulator, "o/1.png").convert("RGB").getcolors()
    assert colours is not None
    assert {colour for count, colour in colours if count > 1000} == {(200, 0, 0), (255, 255, 255)}


@needs_office
@pytest.mark.parametrize("key", ["secret.docx", "secret.xls", "secret.ppt"])
async def test_an_encrypted_document_says_so_without_its_password(emulator: Emulator, cloud: Cloud, key: str) -> None:
    """With the code of encrypted PDFs, and what to do."""
    code, message, outputs = await job_of(emulator, cloud, key, NONE)
    assert (code, message, outputs) == ("-3006", "The document is encrypted and there is no DocPassword.", [])


@needs_office
@pytest.mark.parametrize("key", ["secret.doc", "calc.xls", "secret.ppt"])
async def test_an_encrypted_document_does_not_open_with_another_password(
    emulator: Emulator, cloud: Cloud, key: str
) -> None:
    """The message says so without the password."""
    code, message, outputs = await job_of(emulator, cloud, key, WRONG)
    assert (code, message, outputs) == ("-3006", "The document is encrypted and DocPassword does not open it.", [])


@needs_office
async def test_a_password_may_have_characters_of_any_script(emulator: Emulator, cloud: Cloud) -> None:
    """Whatever the locale of the machine is. `unicode.odt` was written by LibreOffice, with this password."""
    document = ("secret.doc", (SECRETS / "unicode.odt").read_bytes(), "o/${Number}")
    assert (await converted(emulator, cloud, *document, DocPassword="pä-密码-😀")).code == "Success"
    assert (await converted(emulator, cloud, *document, DocPassword="pä-密码")).code == "-3006"


@needs_office
@pytest.mark.parametrize(
    ("key", "data", "code"),
    [
        ("noise.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\xff" * 600, "FileOpenFailed"),
        ("open.docx", letter(["open"]), "Success"),
    ],
)
async def test_a_password_of_a_document_without_one_changes_nothing(
    emulator: Emulator, cloud: Cloud, key: str, data: bytes, code: str
) -> None:
    job = await converted(emulator, cloud, key, data, "o/${Number}", **RIGHT)
    assert job.code == code


async def test_an_encrypted_document_is_told_from_a_damaged_one_by_its_content_alone() -> None:
    """Whatever becomes of LibreOffice."""
    settings = Settings(submit_delay=0, soffice="/bin/false")
    async with Emulator(settings=settings) as emulator, Cloud(emulator.url) as cloud:
        assert (await job_of(emulator, cloud, "secret.pptx", NONE))[0] == "-3006"
        damaged = await converted(emulator, cloud, "deck.pptx", slides(1), "o/${Number}")
        assert damaged.code == "FileOpenFailed"


@pytest.mark.parametrize("name", KEYS.values())
def test_the_content_of_a_document_of_every_family_tells_that_it_is_encrypted(name: str) -> None:
    """So it does not matter why LibreOffice has not opened it."""
    assert is_encrypted(SECRETS / name)


@pytest.mark.parametrize("document", [letter(["open"]), workbook({"A": [["open"]]}), slides(1), b"", b"noise"])
def test_a_document_without_a_password_is_not_encrypted(tmp_path: Path, document: bytes) -> None:
    source = tmp_path / "document"
    source.write_bytes(document)
    assert not is_encrypted(source)


@pytest.mark.parametrize("suffix", ["doc", "xls", "ppt", "docx"])
def test_a_damaged_compound_file_is_at_worst_not_encrypted(tmp_path: Path, suffix: str) -> None:
    """Cut anywhere, and with any word of its header, tables and directory overwritten."""
    whole, source, target = (SECRETS / f"secret.{suffix}").read_bytes(), tmp_path / "document", tmp_path / "opened"
    damaged = [whole[:length] for length in range(0, len(whole), 256)]
    for at in range(24, 2560, 4):
        damaged += [whole[:at] + word + whole[at + 4 :] for word in (bytes(4), b"\xff" * 4, b"\1\0\0\0")]
    for data in damaged:
        source.write_bytes(data)
        assert is_encrypted(source) in {True, False}
        assert decrypt_presentation(source, "pass", target) in {True, False}
