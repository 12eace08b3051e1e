"""`docpreview preview`: from a document to files."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_client.cli.app import app

from .fake_gateway import FakeGateway
from .samples import BUCKET, JOB_ID, failed, job, succeeded

Preview = Callable[..., Result]


class Storage(BaseHTTPRequestHandler):
    """Pages under /ok, and an error under the path of its number."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        body = path.encode()
        self.send_response(200 if path.startswith("/ok") else int(path.strip("/")))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing."""


@pytest.fixture
def storage() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Storage) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def preview(gateway: FakeGateway, tmp_path: Path) -> Preview:
    def run(*arguments: str) -> Result:
        command = ["--target", gateway.target, "preview", BUCKET, "--directory", str(tmp_path / "out"), *arguments]
        return CliRunner().invoke(app, command, env={"DOCPREVIEW_TOKEN": None})

    return run


def test_a_document_becomes_page_files_in_order_named_on_stdout(
    gateway: FakeGateway, preview: Preview, storage: str, tmp_path: Path
) -> None:
    """A job is created and followed, and its pages are files in their order; their names are on stdout."""
    gateway.will("CreatePreviewJob", job(PreviewJob.STATE_SUBMITTED))
    gateway.will("WatchPreviewJob", [job(), succeeded(f"{storage}/ok/a?sign=s3cret", f"{storage}/ok/b")])
    result = preview("slides.pptx")
    assert result.exit_code == 0
    files = [tmp_path / "out" / "page-0001.jpg", tmp_path / "out" / "page-0002.jpg"]
    assert result.stdout.splitlines() == [str(file) for file in files]
    assert [file.read_text() for file in files] == ["/ok/a", "/ok/b"]
    assert gateway.asked("WatchPreviewJob")[0].page_url_ttl.seconds == 3600
    assert "s3cret" not in result.output


def test_preview_of_a_job_creates_none_and_prints_its_files_as_json(
    gateway: FakeGateway, preview: Preview, storage: str, tmp_path: Path
) -> None:
    """With --json the last line says where the files are."""
    gateway.will("WatchPreviewJob", [succeeded(f"{storage}/ok/a")])
    result = preview("--job-id", JOB_ID, "--json")
    assert result.exit_code == 0
    saved = json.loads(result.stdout.splitlines()[-1])
    assert saved == {"directory": str(tmp_path / "out"), "files": [str(tmp_path / "out" / "page-0001.jpg")]}
    assert gateway.asked("CreatePreviewJob") == []


def test_images_of_one_sheet_do_not_overwrite_each_other(
    gateway: FakeGateway, preview: Preview, storage: str, tmp_path: Path
) -> None:
    """They share its number."""
    sheets = succeeded(f"{storage}/ok/a", f"{storage}/ok/b")
    for page in sheets.result.pages:
        page.page_number = 1
    gateway.will("WatchPreviewJob", [sheets])
    assert preview("--job-id", JOB_ID).exit_code == 0
    assert (tmp_path / "out" / "page-0002.jpg").read_text() == "/ok/b"


def test_selected_pages_are_named_by_their_numbers_in_the_document(
    gateway: FakeGateway, preview: Preview, storage: str, tmp_path: Path
) -> None:
    selection = succeeded(f"{storage}/ok/a", f"{storage}/ok/b")
    selection.result.pages[1].page_number = 7
    gateway.will("WatchPreviewJob", [selection])
    preview("--job-id", JOB_ID)
    assert (tmp_path / "out" / "page-0007.jpg").read_text() == "/ok/b"


def test_preview_of_neither_document_nor_job_exits_with_2_and_asks_nothing(
    gateway: FakeGateway, preview: Preview
) -> None:
    assert preview().exit_code == 2
    assert gateway.calls == []


def test_preview_of_a_failed_job_prints_the_failure_and_writes_nothing(
    gateway: FakeGateway, preview: Preview, tmp_path: Path
) -> None:
    gateway.will("WatchPreviewJob", [failed()])
    result = preview("--job-id", JOB_ID)
    assert result.exit_code == 1
    assert "DocTooBig" in result.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("refusal", [(403, 5), (404, 4), (503, 6), (302, 70)])
def test_a_refused_page_sets_the_exit_code_and_leaves_no_file_or_address(
    gateway: FakeGateway, preview: Preview, storage: str, tmp_path: Path, refusal: tuple[int, int]
) -> None:
    """Neither half a file nor the secret address is left anywhere."""
    status, exit_code = refusal
    gateway.will("WatchPreviewJob", [succeeded(f"{storage}/{status}?sign=s3cret")])
    result = preview("--job-id", JOB_ID)
    assert result.exit_code == exit_code
    assert "previews/abc_1.jpg" in result.stderr
    assert "s3cret" not in result.output
    assert list((tmp_path / "out").iterdir()) == []


def test_unreachable_storage_exits_with_6_and_hides_the_address(gateway: FakeGateway, preview: Preview) -> None:
    """No connection is worth another try."""
    gateway.will("WatchPreviewJob", [succeeded("http://127.0.0.1:1/a?sign=s3cret")])
    result = preview("--job-id", JOB_ID)
    assert result.exit_code == 6
    assert "s3cret" not in result.output


@pytest.mark.parametrize("url", ["", "file:///etc/passwd"])
def test_a_page_without_an_http_address_exits_with_8(gateway: FakeGateway, preview: Preview, url: str) -> None:
    """Pages of buckets that the gateway does not know have no address."""
    gateway.will("WatchPreviewJob", [succeeded(url)])
    assert preview("--job-id", JOB_ID).exit_code == 8
