"""`docpreview preview`: from a document to files."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from typer.testing import CliRunner, Result

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.upload_service_pb2 import Upload, UploadedObject, UploadPart
from docpreview_client.cli.app import app

from .fake_gateway import FakeGateway, Silence
from .fake_storage import FakeStorage
from .samples import BUCKET, JOB_ID, failed, failure, invalid, job, key_of, succeeded

Preview = Callable[..., Result]


@pytest.fixture
def browser(tmp_path: Path) -> Path:
    """A browser that writes down what it is to open."""
    script = tmp_path / "browser"
    script.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path / "opened"}\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


@pytest.fixture
def preview(gateway: FakeGateway, tmp_path: Path) -> Preview:
    def run(*arguments: str) -> Result:
        command = ["--target", gateway.target, "preview", "--pages", str(tmp_path / "out"), *arguments]
        return CliRunner().invoke(app, command, env={"DOCPREVIEW_TOKEN": None, "DOCPREVIEW_BUCKET": BUCKET})

    return run


def said(result: Result) -> str:
    """The words of an error of usage, without the frame around them."""
    return " ".join(result.stderr.replace("│", " ").split())


@pytest.fixture
def pages(gateway: FakeGateway, storage: FakeStorage) -> PreviewJob:
    """A job with two pages, which is created, watched, and asked for addresses."""
    storage.objects |= {"/a": b"first", "/b": b"second"}
    done = succeeded(f"{storage.url}/a?sign=s3cret", f"{storage.url}/b?sign=s3cret")
    gateway.will("CreatePreviewJob", job(PreviewJob.STATE_SUBMITTED))
    gateway.will("WatchPreviewJob", [job(), done])
    gateway.will("GetPreviewJob", done)
    return done


@pytest.fixture
def slides(gateway: FakeGateway, storage: FakeStorage, tmp_path: Path) -> Path:
    """A document, and the answers to its upload."""
    file = tmp_path / "slides.pptx"
    file.write_bytes(b"slides")
    part = UploadPart(url=f"{storage.url}/in?sign=s3cret", headers={"Content-Length": "6"}, length=6)
    gateway.will("CreateUpload", Upload(bucket=BUCKET, object="in/1.pptx", upload_token="u1", parts=[part]))
    gateway.will("CompleteUpload", UploadedObject(bucket=BUCKET, object="in/1.pptx", content_length=6))
    return file


@pytest.mark.usefixtures("pages")
def test_a_local_document_is_uploaded_and_becomes_page_files_and_it_is_told_what_to_open(
    gateway: FakeGateway, preview: Preview, slides: Path, storage: FakeStorage, tmp_path: Path
) -> None:
    """The names of the files are on stdout, all else is on stderr, and addresses are nowhere."""
    result = preview(str(slides))
    assert result.exit_code == 0, result.output
    files = [tmp_path / "out" / "page-0001.jpg", tmp_path / "out" / "page-0002.jpg"]
    assert result.stdout.splitlines() == [str(file) for file in files]
    assert [file.read_bytes() for file in files] == [b"first", b"second"]
    assert result.stderr.splitlines()[0] == "Uploading slides.pptx"
    assert result.stderr.splitlines()[-1] == f"Open {files[0]}"
    assert storage.objects["/in"] == b"slides"
    created = gateway.asked("CreatePreviewJob")[0]
    assert (created.bucket, created.input_object) == (BUCKET, "in/1.pptx")
    assert created.output.object == "out/${RequestToken}/page-${Number}.jpg"
    assert len(created.request_id) == 36
    assert "s3cret" not in result.output


@pytest.mark.usefixtures("pages")
def test_a_document_in_the_bucket_is_not_uploaded(gateway: FakeGateway, preview: Preview) -> None:
    assert preview("docs/slides.xlsx").exit_code == 0
    created = gateway.asked("CreatePreviewJob")[0]
    assert created.input_object == "docs/slides.xlsx"
    assert created.output.object == "out/${RequestToken}/sheet-${SheetID}/page-${Number}.jpg"
    assert gateway.asked("CreateUpload") == []


@pytest.mark.parametrize("reason", ["INPUT_FORMAT_UNSUPPORTED", "INPUT_FORMAT_MISMATCH"])
@pytest.mark.parametrize(("key", "helps"), [("docs/slides", True), ("docs.d/slides", True), ("docs/slides.exe", False)])
def test_source_format_is_advised_only_where_the_document_has_no_suffix(
    gateway: FakeGateway, preview: Preview, reason: str, key: str, *, helps: bool
) -> None:
    gateway.will("CreatePreviewJob", failure(grpc.StatusCode.INVALID_ARGUMENT, reason))
    result = preview(key, "--source-format", "odp")
    assert result.exit_code != 0
    assert ("--source-format" in result.stderr) is helps


def test_a_name_that_is_neither_a_file_nor_a_key_is_told_to_be_neither(gateway: FakeGateway, preview: Preview) -> None:
    gateway.will("CreatePreviewJob", failure(grpc.StatusCode.NOT_FOUND, "INPUT_OBJECT_NOT_FOUND"))
    result = preview("slide.pptx")
    assert result.exit_code == 4
    assert result.stderr.startswith("slide.pptx is neither a file here nor a key in the bucket.")


@pytest.mark.usefixtures("pages")
def test_the_key_of_the_upload_can_be_chosen(gateway: FakeGateway, preview: Preview, slides: Path) -> None:
    assert preview(str(slides), "--upload-as", "team/${UploadId}.pptx").exit_code == 0
    request_id = gateway.asked("CreatePreviewJob")[0].request_id
    assert gateway.asked("CreateUpload")[0].object == key_of(request_id, b"slides", "team/${UploadId}.pptx")


@pytest.mark.usefixtures("pages")
def test_preview_of_a_job_creates_none_and_prints_its_files_as_json(
    gateway: FakeGateway, preview: Preview, tmp_path: Path
) -> None:
    """With --json the last line says where the files are."""
    result = preview("--job-id", JOB_ID, "--json")
    assert result.exit_code == 0
    saved = json.loads(result.stdout.splitlines()[-1])
    files = [str(tmp_path / "out" / name) for name in ("page-0001.jpg", "page-0002.jpg")]
    assert saved == {"directory": str(tmp_path / "out"), "files": files}
    assert gateway.asked("CreatePreviewJob") == []


def test_pages_of_a_workbook_are_named_by_sheet_and_page(
    gateway: FakeGateway, preview: Preview, pages: PreviewJob, tmp_path: Path
) -> None:
    pages.result.total_sheet_count = 1
    for number, page in enumerate(pages.result.pages, 1):
        page.page_number, page.picture_number = 1, number
    gateway.will("WatchPreviewJob", [pages])
    assert preview("--job-id", JOB_ID).exit_code == 0
    assert (tmp_path / "out" / "sheet-01-page-002.jpg").read_bytes() == b"second"


def test_running_it_again_leaves_no_stale_pages_and_no_stale_contact_sheet(
    gateway: FakeGateway, preview: Preview, pages: PreviewJob, storage: FakeStorage, tmp_path: Path
) -> None:
    assert preview("a.pptx").exit_code == 0
    (tmp_path / "out" / "contact-sheet.html").write_text("of two pages")
    shorter = succeeded(f"{storage.url}/b")
    shorter.job_id = "d2"
    gateway.will("WatchPreviewJob", [shorter])
    gateway.will("GetPreviewJob", shorter)
    assert preview("--job-id", "d2").exit_code == 0
    out = tmp_path / "out"
    assert sorted(file.name for file in out.iterdir()) == [".docpreview.json", "page-0001.jpg"]
    assert (out / "page-0001.jpg").read_bytes() == b"second"
    assert len(pages.result.pages) == 2


def test_open_writes_a_contact_sheet_of_the_pages_and_shows_it(
    gateway: FakeGateway, browser: Path, pages: PreviewJob, tmp_path: Path
) -> None:
    """It is built of the files beside it alone, and a name cannot be markup."""
    pages.input.object = "docs/<b>slides</b>.pptx"
    gateway.will("WatchPreviewJob", [pages])
    sheet = tmp_path / "out" / "contact-sheet.html"
    command = [sys.executable, "-m", "docpreview_client", "preview", "--bucket", BUCKET, "--job-id", JOB_ID, "--open"]
    result = subprocess.run(
        [*command, "--pages", str(sheet.parent), "--target", gateway.target],
        env=os.environ | {"BROWSER": f"{browser} %s"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr.splitlines()[-1] == f"Open {sheet}"
    assert (tmp_path / "opened").read_text() == sheet.as_uri()
    text = sheet.read_text()
    assert [f'<img src="page-000{number}.jpg"' in text for number in (1, 2, 3)] == [True, True, False]
    assert "<b>" not in text
    assert "http" not in text
    assert "s3cret" not in text


@pytest.mark.parametrize("arguments", [(), ("a.pptx", "--job-id", JOB_ID)])
def test_preview_of_neither_or_both_document_and_job_exits_with_2_and_asks_nothing(
    gateway: FakeGateway, preview: Preview, arguments: tuple[str, ...]
) -> None:
    assert preview(*arguments).exit_code == 2
    assert gateway.calls == []


def test_preview_without_a_bucket_exits_with_2_and_says_how_to_name_it(gateway: FakeGateway) -> None:
    environment = {"DOCPREVIEW_BUCKET": None, "DOCPREVIEW_TARGET": gateway.target}
    result = CliRunner().invoke(app, ["preview", "a.pptx"], env=environment)
    assert result.exit_code == 2
    assert "--bucket" in result.stderr
    assert gateway.calls == []


@pytest.mark.parametrize("document", ["./no.pptx", "/no/such.pptx", "../no.pptx", "~/no.pptx"])
def test_a_path_where_no_file_is_is_refused_and_not_taken_for_a_key(
    gateway: FakeGateway, preview: Preview, document: str
) -> None:
    result = preview(document)
    assert result.exit_code == 2
    assert "There is no file" in said(result)
    assert gateway.calls == []


def test_a_directory_in_the_place_of_the_document_is_refused(
    gateway: FakeGateway, preview: Preview, tmp_path: Path
) -> None:
    assert "is a directory" in said(preview(str(tmp_path)))
    assert gateway.calls == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_refused_before_anything_is_asked(
    gateway: FakeGateway, preview: Preview, slides: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    result = preview(str(slides))
    assert result.exit_code == 2
    assert "--pages" in result.stderr
    assert gateway.calls == []


def test_a_file_in_the_place_of_the_directory_is_refused_before_anything_is_asked(
    gateway: FakeGateway, preview: Preview, slides: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("")
    result = preview(str(slides))
    assert result.exit_code == 2
    assert "--pages" in result.stderr
    assert "Not a directory" in said(result)
    assert gateway.calls == []


def test_the_pages_of_a_document_go_to_a_directory_of_its_whole_name(
    gateway: FakeGateway, pages: PreviewJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["--target", gateway.target, "preview", "--bucket", BUCKET]
    assert CliRunner().invoke(app, [*command, "docs/slides.pptx"]).exit_code == 0
    assert CliRunner().invoke(app, [*command, "--job-id", JOB_ID]).exit_code == 0
    assert (tmp_path / "slides.pptx-pages" / "page-0002.jpg").is_file()
    assert (tmp_path / JOB_ID / "page-0002.jpg").is_file()
    assert len(pages.result.pages) == 2


def test_preview_of_a_failed_job_prints_the_failure_and_what_to_do_and_writes_no_page(
    gateway: FakeGateway, preview: Preview, tmp_path: Path
) -> None:
    gateway.will("WatchPreviewJob", [failed()])
    result = preview("--job-id", JOB_ID)
    assert result.exit_code == 1
    assert "DocTooBig" in result.stdout
    assert "What to do" in result.stdout
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("refusal", [(403, 5), (404, 4), (503, 6), (302, 6)])
def test_a_refused_page_sets_the_exit_code_and_leaves_no_file_or_address(
    preview: Preview, pages: PreviewJob, storage: FakeStorage, tmp_path: Path, refusal: tuple[int, int]
) -> None:
    """Neither half a file nor the secret address is left anywhere."""
    status, exit_code = refusal
    storage.faults["/a"] = [status] * 99
    result = preview("--job-id", JOB_ID)
    assert result.exit_code == exit_code
    assert pages.result.pages[0].object in result.stderr
    assert "s3cret" not in result.output
    assert not (tmp_path / "out" / "page-0001.jpg").exists()


def test_a_page_without_an_http_address_exits_with_8(gateway: FakeGateway, preview: Preview) -> None:
    """Pages of buckets that the gateway does not know have no address."""
    gateway.will("WatchPreviewJob", [succeeded("file:///etc/passwd")])
    gateway.will("GetPreviewJob", succeeded("file:///etc/passwd"))
    assert preview("--job-id", JOB_ID).exit_code == 8


def test_a_document_without_suffix_is_told_how_to_name_it(preview: Preview, tmp_path: Path) -> None:
    file = tmp_path / "slides"
    file.write_bytes(b"slides")
    result = preview(str(file))
    assert result.exit_code == 2
    assert "--upload-as" in result.stderr


def test_errors_name_the_options_of_the_command_and_not_the_fields_of_the_api(
    gateway: FakeGateway, preview: Preview, slides: Path
) -> None:
    gateway.will("CreateUpload", invalid(bucket="is required", content_length="must be at least 1"))
    result = preview(str(slides))
    assert [line.strip() for line in result.stderr.splitlines()[2:4]] == [
        "--bucket: is required",
        "DOCUMENT: must be at least 1",
    ]


def test_a_create_with_unknown_outcome_is_told_how_to_repeat_it_without_a_second_job(
    gateway: FakeGateway, preview: Preview, slides: Path
) -> None:
    """With the id of the request, of which and of the content the key of the document is made."""
    gateway.will("CreatePreviewJob", failure(grpc.StatusCode.UNKNOWN, "CREATE_OUTCOME_UNKNOWN"))
    result = preview(str(slides), "--timeout", "1")
    assert result.exit_code == 7
    request = gateway.asked("CreatePreviewJob")[0]
    assert f"--request-id {request.request_id}" in result.stderr
    assert "bucket" not in result.stderr
    assert gateway.asked("CreateUpload")[0].object == key_of(request.request_id, b"slides")


@pytest.mark.usefixtures("pages")
def test_repeating_the_command_with_its_request_id_gets_the_same_job(
    gateway: FakeGateway, preview: Preview, slides: Path
) -> None:
    """The document goes to the same key."""
    request_id = "7d3f9b7e-6d0c-4a51-9f0e-2f4c8f6f2a10"
    assert preview(str(slides), "--request-id", request_id).exit_code == 0
    assert preview(str(slides), "--request-id", request_id).exit_code == 0
    assert {asked.object for asked in gateway.asked("CreateUpload")} == {key_of(request_id, b"slides")}
    assert [created.request_id for created in gateway.asked("CreatePreviewJob")] == [request_id, request_id]


def test_a_create_of_unknown_outcome_of_a_document_in_the_bucket_is_to_be_repeated_for_its_key(
    gateway: FakeGateway, preview: Preview
) -> None:
    gateway.will("CreatePreviewJob", failure(grpc.StatusCode.UNKNOWN, "CREATE_OUTCOME_UNKNOWN"))
    result = preview("in/1.pptx", "--timeout", "1")
    assert "for in/1.pptx in the bucket, with the same options" in result.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--password-file", "no-such-file"], "No such file"),
        (["--password-file", "binary"], "is not UTF-8 text"),
        (["--password-file", "empty"], "has no password"),
        (["--password-file", "good", "--password", "-"], "either"),
        (["--password", "sesame"], "accepts only -"),
        (["--quality", str(2**40)], "range"),
        (["--tile-watermark"], "needs --watermark"),
        (["--request-id", "mine"], "--request-id: must be a UUID"),
    ],
)
def test_options_are_checked_before_anything_is_sent_and_no_directory_is_left(
    gateway: FakeGateway, slides: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: str
) -> None:
    monkeypatch.chdir(slides.parent)
    for name, content in (("binary", b"sesame\xff"), ("empty", b"\n"), ("good", b"sesame")):
        Path(name).write_bytes(content)
    before = sorted(Path().iterdir())
    result = CliRunner().invoke(app, ["--target", gateway.target, "preview", str(slides), "--bucket", BUCKET, *options])
    assert result.exit_code in {2, 3}
    assert words in said(result)
    assert "sesame" not in result.output
    assert gateway.calls == []
    assert sorted(Path().iterdir()) == before


@pytest.mark.usefixtures("pages")
def test_the_password_is_asked_for_before_anything_is_sent(gateway: FakeGateway, slides: Path, tmp_path: Path) -> None:
    """Who breaks the question off has sent nothing."""
    command = ["--target", gateway.target, "preview", str(slides), "--bucket", BUCKET, "--pages", str(tmp_path / "out")]
    assert CliRunner().invoke(app, [*command, "--password", "-"], input="").exit_code == 1
    assert gateway.calls == []
    assert not (tmp_path / "out").exists()
    assert CliRunner().invoke(app, [*command, "--password", "-"], input="open sesame\n").exit_code == 0
    assert gateway.asked("CreatePreviewJob")[0].options.password == "open sesame"


def test_a_refused_upload_leaves_no_directory_that_it_made(
    gateway: FakeGateway, preview: Preview, slides: Path, tmp_path: Path
) -> None:
    gateway.will("CreateUpload", failure(grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED"))
    assert preview(str(slides)).exit_code == 5
    assert not (tmp_path / "out").exists()


def test_an_empty_document_is_told_to_be_empty(gateway: FakeGateway, preview: Preview, slides: Path) -> None:
    slides.write_bytes(b"")
    result = preview(str(slides))
    assert result.exit_code == 3
    assert "slides.pptx is empty" in result.stderr
    assert gateway.calls == []


def goes_on(tmp_path: Path, gateway: FakeGateway) -> str:
    return (
        f"docpreview preview --job-id {JOB_ID} --bucket {BUCKET} --pages {tmp_path / 'out'} --target {gateway.target}"
    )


@pytest.mark.usefixtures("pages")
@pytest.mark.parametrize(
    ("steps", "exit_code"),
    [
        ([failure(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")], 4),
        ([Silence()], 6),
        ([job(), Silence()], 9),
    ],
)
def test_a_failure_after_the_create_says_how_to_go_on_with_the_job(
    gateway: FakeGateway, preview: Preview, tmp_path: Path, steps: list[object], exit_code: int
) -> None:
    gateway.will("WatchPreviewJob", steps)
    result = preview("a.pptx", "--timeout", "1")
    assert result.exit_code == exit_code
    assert goes_on(tmp_path, gateway) in result.stderr


@pytest.mark.usefixtures("pages")
def test_a_page_that_cannot_be_written_is_no_wrong_usage_and_says_how_to_go_on(
    gateway: FakeGateway, preview: Preview, tmp_path: Path
) -> None:
    (tmp_path / "out" / "page-0001.jpg.part").mkdir(parents=True)
    result = preview("a.pptx")
    assert result.exit_code == 70
    assert "Usage" not in result.stderr
    assert "page-0001.jpg.part" in result.stderr
    assert goes_on(tmp_path, gateway) in result.stderr


def test_a_failure_after_the_create_as_json_has_its_cause_and_the_job(
    gateway: FakeGateway, preview: Preview, pages: PreviewJob
) -> None:
    gateway.will("WatchPreviewJob", [failure(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")])
    printed = json.loads(preview("a.pptx", "--json").stderr)
    assert (printed["exit_code"], printed["error"]["reason"]) == (4, "JOB_NOT_FOUND")
    assert printed["error"]["job_id"] == pages.job_id


@pytest.mark.usefixtures("pages")
def test_a_job_that_fails_leaves_no_pages_of_another_job(
    gateway: FakeGateway, preview: Preview, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "page-0001.jpg").write_bytes(b"old")
    (out / ".docpreview.json").write_text(json.dumps({"job_id": "d1", "pages": {"page-0001.jpg": 3}}))
    gateway.will("WatchPreviewJob", [failed()])
    assert preview("a.pptx").exit_code == 1
    assert not (out / "page-0001.jpg").exists()
