"""Passwords of documents, and who can read what the emulator writes."""

import json
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docpreview_emulator import Emulator, Settings
from docpreview_emulator.errors import StorageError
from docpreview_emulator.threaded import running

from .cloud_client import BUCKET, REGION, Cloud, create_body
from .office_files import letter
from .pdf_files import encrypted_pdf, pdf

PASSWORD = "correct horse battery"
DOCUMENT = (Path(__file__).with_name("secrets") / "secret.doc").read_bytes()
WIRE = {"content-type": "application/xml"}
SUBMITTED = Settings(submit_delay=3600)


def files(directory: Path) -> Iterator[Path]:
    return (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())


def mode(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


def clear(directory: Path, text: str = PASSWORD) -> list[str]:
    """The files of a directory that have the text in clear, in UTF-8 or as LibreOffice may write it."""
    forms = [text.encode(), text.encode("utf-16-le"), text.encode().hex().encode()]
    return [path.name for path in files(directory) if any(form in path.read_bytes() for form in forms)]


async def test_no_file_has_the_password_in_clear_and_a_restart_still_knows_it(tmp_path: Path) -> None:
    """The job is submitted to one emulator and rendered by the next."""
    async with Emulator(tmp_path, settings=SUBMITTED) as emulator, Cloud(emulator.url) as cloud:
        emulator.put_object(BUCKET, REGION, "secret.pdf", encrypted_pdf(PASSWORD.encode()))
        job_id = await cloud.job_id("secret.pdf", DocPassword=PASSWORD)
        assert (await cloud.get(job_id)).text("JobsDetail/Operation/DocProcess/DocPassword") == PASSWORD
        assert clear(tmp_path) == []
    assert clear(tmp_path) == []
    async with Emulator(tmp_path, settings=Settings(submit_delay=0)) as emulator:
        assert (await emulator.wait_for_job(job_id)).state == "Success"
        assert emulator.job(job_id).spec.process["DocPassword"] == PASSWORD
        assert clear(tmp_path) == []


async def test_while_libreoffice_works_no_file_has_the_password_in_clear(tmp_path: Path) -> None:
    """A program in its place looks at all files that it gets: if one had it, the job would fail as with a wrong one."""
    program = tmp_path / "bin" / "soffice"
    program.parent.mkdir()
    looking = f"case $* in *macro:*) (grep -rqs '{PASSWORD}' . && echo unreadable || echo opened) > report;; esac"
    program.write_text(f"#!/bin/sh\n{looking}\n")
    program.chmod(0o755)
    settings = Settings(submit_delay=0, soffice=str(program))
    async with Emulator(tmp_path / "data", settings=settings) as emulator, Cloud(emulator.url) as cloud:
        for name, content in (("a", DOCUMENT), ("b", DOCUMENT + PASSWORD.encode())):
            emulator.put_object(BUCKET, REGION, f"{name}.doc", content)
            job = await emulator.wait_for_job(await cloud.job_id(f"{name}.doc", DocPassword=PASSWORD))
            assert job.code == {"a": "FileOpenFailed", "b": "-3006"}[name], job.message


async def test_passwords_that_an_earlier_version_stored_in_clear_are_sealed_at_start(tmp_path: Path) -> None:
    """In every file: pages of the database that are free again, and its log, too."""
    async with Emulator(tmp_path, settings=SUBMITTED) as emulator, Cloud(emulator.url) as cloud:
        emulator.put_object(BUCKET, REGION, "secret.pdf", encrypted_pdf(PASSWORD.encode()))
        job_id = await cloud.job_id("secret.pdf", DocPassword="-")
        other = await cloud.job_id("secret.pdf")
    older(tmp_path, job_id)
    assert clear(tmp_path) == ["emulator.sqlite3"]
    async with Emulator(tmp_path, settings=Settings(submit_delay=0)) as emulator:
        assert clear(tmp_path) == []
        assert (await emulator.wait_for_job(job_id)).state == "Success"
        assert (await emulator.wait_for_job(other)).code == "-3006"


def older(directory: Path, job_id: str) -> None:
    """Make a data directory one of the version before passwords were sealed."""
    with sqlite3.connect(directory / "emulator.sqlite3") as connection:
        (text,) = connection.execute("SELECT spec FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        spec: dict[str, Any] = json.loads(text)
        spec["process"]["DocPassword"] = PASSWORD
        connection.execute("UPDATE jobs SET spec = ? WHERE job_id = ?", (json.dumps(spec), job_id))
        connection.execute("PRAGMA user_version = 0")
    connection.close()
    (directory / "passwords.key").unlink()


async def test_without_its_key_a_stored_password_is_lost_and_the_job_fails_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Emulator(tmp_path, settings=SUBMITTED) as emulator, Cloud(emulator.url) as cloud:
        emulator.put_object(BUCKET, REGION, "secret.pdf", encrypted_pdf(PASSWORD.encode()))
        job_id = await cloud.job_id("secret.pdf", DocPassword=PASSWORD)
    (tmp_path / "passwords.key").unlink()
    async with Emulator(tmp_path, settings=Settings(submit_delay=0)) as emulator:
        assert (await emulator.wait_for_job(job_id)).code == "-3006"
    assert "passwords.key is not the key of a stored DocPassword, which is lost" in caplog.text


async def test_a_damaged_key_is_told_with_what_to_do(tmp_path: Path) -> None:
    """At the start, like a damaged database."""
    for damaged in ("torn", "", "AAAA"):
        (tmp_path / "passwords.key").write_text(damaged)
        with pytest.raises(StorageError, match=r"passwords\.key is not a usable key .*: remove it, and passwords"):
            await Emulator(tmp_path).__aenter__()
    (tmp_path / "passwords.key").unlink()
    async with Emulator(tmp_path) as emulator, Cloud(emulator.url) as cloud:
        emulator.put_object(BUCKET, REGION, "a.pdf", pdf(1))
        (tmp_path / "passwords.key").write_text("torn since")
        assert "passwords.key is not a usable key" in (await cloud.create("a.pdf", DocPassword="x")).text("Message")
        assert (await cloud.create("a.pdf")).status == 200


@pytest.mark.parametrize(
    "written",
    [
        "<DocPassword>geheim</DocPassword>",
        "<DocPassword><![CDATA[x</DocPassword>geheim]]></DocPassword>",
        "<DocPassword>x<!-- </DocPassword> -->geheim</DocPassword>",
        "<a:DocPassword xmlns:a='b'>geheim</a:DocPassword>",
        "<DocPassword a='/>'>geheim</DocPassword>",
        "<DocPassword a='>geheim</DocPassword>",
        "<DocPassword>\ngeheim</DocPassword>",
        "<DocPassword>geheim",
    ],
)
async def test_the_record_of_requests_has_no_password_however_it_is_written(
    emulator: Emulator, cloud: Cloud, written: str
) -> None:
    for body in (
        create_body("seven.pdf", raw=written),
        create_body("seven.pdf", raw=written).decode().encode("utf-16"),
    ):
        await cloud.send("POST", "/doc_jobs", headers=WIRE, body=body)
        record = emulator.requests[-1]
        assert b"***" in record.body
        assert "geheim" not in record.body.replace(b"\0", b"").decode(errors="replace") + record.reply


async def test_an_empty_password_hides_nothing_of_the_record(emulator: Emulator, cloud: Cloud) -> None:
    for empty in ("<DocPassword/>", "<DocPassword />", "<DocPassword></DocPassword>"):
        await cloud.send("POST", "/doc_jobs", headers=WIRE, body=create_body("seven.pdf", raw=empty))
        assert b"</Operation></Request>" in emulator.requests[-1].body
        assert "<Output>" in emulator.requests[-1].reply


@pytest.fixture
def generous() -> Iterator[None]:
    """A user whose new files are readable by everybody."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("generous")
async def test_files_are_the_owners_and_so_are_folders(tmp_path: Path) -> None:
    """After uploads, parts, TLS, a password and a conversion, whatever the umask is."""
    data = tmp_path / "data"
    async with Emulator(data, settings=Settings(submit_delay=0, tls=True)) as emulator, Cloud(emulator.url) as cloud:
        emulator.put_object(BUCKET, REGION, "secret.pdf", encrypted_pdf(PASSWORD.encode()))
        emulator.put_object(BUCKET, REGION, "a.docx", letter(["a line"]))
        jobs = [await cloud.job_id("secret.pdf", DocPassword=PASSWORD), await cloud.job_id("a.docx", "b/${Number}")]
        for job_id in jobs:
            assert (await emulator.wait_for_job(job_id)).state == "Success"
        host = f"{BUCKET}.cos.{REGION}.myqcloud.com"
        begun = await cloud.send("POST", "/big", host=host, params={"uploads": ""})
        part = {"partNumber": "1", "uploadId": begun.text("UploadId")}
        assert (await cloud.send("PUT", "/big", host=host, params=part, body=b"part")).status == 200
        assert {path.name for path in data.iterdir()} >= {"emulator.sqlite3-wal", "passwords.key", "tls", "lock"}
        assert {mode(path) for path in files(data)} == {"0o600"}
        assert {mode(path) for path in [data, *data.rglob("*")] if path.is_dir() and not path.is_symlink()} == {"0o700"}


def test_older_files_become_the_owners_and_a_directory_of_the_user_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "objects").mkdir(mode=0o755)
    for name in ("emulator.sqlite3", "lock"):
        (tmp_path / name).touch(0o644)
    with running(Emulator(tmp_path)):
        assert (mode(tmp_path), mode(tmp_path / "objects")) == ("0o755", "0o700")
        assert {mode(path) for path in files(tmp_path)} == {"0o600"}
