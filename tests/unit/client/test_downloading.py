"""Downloads: pages become files that sort, complete or not there, whatever breaks on the way."""

import asyncio
import json
import socket
import threading
from pathlib import Path

import pytest

from docpreview.v1.preview_job_pb2 import Page, PreviewJob, PreviewOptions, PreviewResult
from docpreview_client import (
    DeadlineExceeded,
    DocPreviewClient,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from docpreview_client.page_files import names
from docpreview_client.storage import NoObject, Storage, StorageLost

from .fake_gateway import FakeGateway
from .fake_storage import FakeStorage
from .samples import JOB_ID, job, succeeded

FIRST, SECOND = b"first page " * 100, b"second page " * 100


@pytest.fixture
def done(storage: FakeStorage) -> PreviewJob:
    """A job with two pages that are there."""
    storage.objects |= {"/1": FIRST, "/2": SECOND}
    return succeeded(f"{storage.url}/1?sign=s3cret", f"{storage.url}/2?sign=s3cret")


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir() if not file.name.startswith(".")}


async def test_the_pages_are_files_in_order_and_the_manifest_says_whose(
    client: DocPreviewClient, done: PreviewJob, gateway: FakeGateway, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "out"
    assert await client.download(done, out) == [out / "page-0001.jpg", out / "page-0002.jpg"]
    assert contents(out) == {"page-0001.jpg": FIRST, "page-0002.jpg": SECOND}
    manifest = json.loads((out / ".docpreview.json").read_text())
    assert manifest == {"job_id": JOB_ID, "pages": {"page-0001.jpg": len(FIRST), "page-0002.jpg": len(SECOND)}}
    assert gateway.calls == []


async def test_progress_tells_pages_pages_in_all_and_bytes(
    client: DocPreviewClient, done: PreviewJob, tmp_path: Path
) -> None:
    told: list[tuple[int, int, int]] = []
    await client.download(done, tmp_path, parallel=1, progress=lambda *numbers: told.append(numbers))
    assert told == [(0, 2, 0), (1, 2, len(FIRST)), (2, 2, len(FIRST) + len(SECOND))]


async def test_a_job_without_addresses_is_asked_for_once_with_a_time_to_live(
    gateway: FakeGateway, client: DocPreviewClient, done: PreviewJob, tmp_path: Path
) -> None:
    gateway.will("GetPreviewJob", done)
    bare = succeeded("", "")
    await client.download(bare, tmp_path, page_url_ttl=60)
    assert [request.page_url_ttl.seconds for request in gateway.asked("GetPreviewJob")] == [60]
    assert contents(tmp_path)["page-0002.jpg"] == SECOND


async def test_a_job_of_a_list_which_has_no_pages_is_asked_for(
    gateway: FakeGateway, client: DocPreviewClient, done: PreviewJob, tmp_path: Path
) -> None:
    gateway.will("GetPreviewJob", done)
    listed = PreviewJob.FromString(done.SerializeToString())
    del listed.result.pages[:]
    assert len(await client.download(listed, tmp_path)) == 2


async def test_expired_addresses_are_replaced_by_one_get_for_all_pages(
    gateway: FakeGateway, client: DocPreviewClient, done: PreviewJob, storage: FakeStorage, tmp_path: Path
) -> None:
    gateway.will("GetPreviewJob", done)
    storage.gathering = threading.Barrier(2)
    old = succeeded(f"{storage.url}/old/1", f"{storage.url}/old/2")
    storage.faults |= {"/old/1": [403], "/old/2": [403]}
    await client.download(old, tmp_path)
    assert contents(tmp_path) == {"page-0001.jpg": FIRST, "page-0002.jpg": SECOND}
    assert len(gateway.asked("GetPreviewJob")) == 1
    assert gateway.asked("GetPreviewJob")[0].page_url_ttl.seconds == 900


async def test_addresses_that_are_refused_again_and_again_are_permission_denied(
    gateway: FakeGateway, client: DocPreviewClient, done: PreviewJob, storage: FakeStorage, tmp_path: Path
) -> None:
    """Neither an address nor half a file is left."""
    gateway.will("GetPreviewJob", done)
    storage.faults["/1"] = [403] * 99
    with pytest.raises(PermissionDenied) as caught:
        await client.download(done, tmp_path, parallel=1)
    assert "s3cret" not in str(caught.value)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("fault", [500, 429, "cut"])
async def test_a_page_that_fails_is_fetched_again(
    client: DocPreviewClient, done: PreviewJob, storage: FakeStorage, tmp_path: Path, fault: int | str
) -> None:
    storage.faults["/1"] = [fault, fault]
    await client.download(done, tmp_path)
    assert contents(tmp_path)["page-0001.jpg"] == FIRST


async def test_a_broken_transfer_goes_on_from_where_it_broke(
    client: DocPreviewClient, done: PreviewJob, storage: FakeStorage, tmp_path: Path
) -> None:
    storage.faults["/1"] = ["cut"]
    await client.download(done, tmp_path)
    ranges = [asked.headers.get("Range") for asked in storage.asked if asked.path == "/1"]
    assert ranges == [None, f"bytes={len(FIRST) // 2}-"]
    assert contents(tmp_path)["page-0001.jpg"] == FIRST


async def test_a_later_download_resumes_unfinished_pages_and_leaves_complete_ones(
    client: DocPreviewClient, done: PreviewJob, storage: FakeStorage, tmp_path: Path
) -> None:
    storage.faults["/1"] = ["cut", 503, 503, 503]
    with pytest.raises(Unavailable):
        await client.download(done, tmp_path, parallel=1)
    storage.faults["/1"] = []
    await client.download(done, tmp_path, parallel=1)
    before = len(storage.asked)
    told: list[tuple[int, int, int]] = []
    await client.download(done, tmp_path, progress=lambda *numbers: told.append(numbers))
    assert len(storage.asked) == before
    assert told == [(2, 2, len(FIRST) + len(SECOND))]
    resumed = [asked.headers.get("Range") for asked in storage.asked if asked.path == "/1"]
    assert resumed[-1] == f"bytes={len(FIRST) // 2}-"
    assert contents(tmp_path) == {"page-0001.jpg": FIRST, "page-0002.jpg": SECOND}


async def test_a_page_that_was_whole_but_not_yet_renamed_is_kept(
    client: DocPreviewClient, done: PreviewJob, tmp_path: Path
) -> None:
    (tmp_path / ".docpreview.json").write_text(json.dumps({"job_id": JOB_ID, "pages": {}}))
    (tmp_path / "page-0001.jpg.part").write_bytes(FIRST)
    await client.download(done, tmp_path)
    assert contents(tmp_path) == {"page-0001.jpg": FIRST, "page-0002.jpg": SECOND}


async def test_a_page_that_was_changed_on_disk_is_fetched_again(
    client: DocPreviewClient, done: PreviewJob, tmp_path: Path
) -> None:
    await client.download(done, tmp_path)
    (tmp_path / "page-0002.jpg").write_bytes(b"short")
    await client.download(done, tmp_path)
    assert contents(tmp_path)["page-0002.jpg"] == SECOND


async def test_pages_of_another_job_are_deleted_and_other_files_are_not(
    client: DocPreviewClient, done: PreviewJob, storage: FakeStorage, tmp_path: Path
) -> None:
    """Nor does an unfinished page of that job become a part of this one's."""
    outside = tmp_path / "kept.jpg"
    outside.write_bytes(b"mine")
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_bytes(b"mine")
    for name in ("page-0001.jpg", "page-0003.jpg", "page-0002.jpg.part"):
        (out / name).write_bytes(b"of another job")
    pages = {"page-0001.jpg": 14, "page-0003.jpg": 14, "../kept.jpg": 4, "notes.txt": 4}
    (out / ".docpreview.json").write_text(json.dumps({"job_id": "d1", "pages": pages}))
    await client.download(done, out)
    assert contents(out) == {"page-0001.jpg": FIRST, "page-0002.jpg": SECOND, "notes.txt": b"mine"}
    assert outside.read_bytes() == b"mine"
    assert all("Range" not in asked.headers for asked in storage.asked)


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"job_id": "d1", "pages": []}', "\x00"])
async def test_a_manifest_that_cannot_be_read_is_written_anew(
    client: DocPreviewClient, done: PreviewJob, tmp_path: Path, manifest: str
) -> None:
    (tmp_path / ".docpreview.json").write_text(manifest)
    assert len(await client.download(done, tmp_path)) == 2


async def test_eight_pages_are_fetched_at_a_time_over_connections_that_are_kept(
    client: DocPreviewClient, storage: FakeStorage, tmp_path: Path
) -> None:
    storage.objects |= {f"/{number}": b"page" for number in range(1, 33)}
    storage.gathering = threading.Barrier(8)
    await client.download(succeeded(*(f"{storage.url}/{number}" for number in range(1, 33))), tmp_path)
    assert (storage.most_at_once, storage.connections) == (8, 8)


async def test_a_page_of_no_bytes_is_refused_and_leaves_no_file(
    client: DocPreviewClient, storage: FakeStorage, tmp_path: Path
) -> None:
    storage.objects["/1"] = b""
    with pytest.raises(Unavailable, match="a proxy"):
        await client.download(succeeded(f"{storage.url}/1"), tmp_path)
    assert contents(tmp_path) == {}


async def test_a_reply_of_another_type_is_refused_and_leaves_no_file(
    client: DocPreviewClient, done: PreviewJob, storage: FakeStorage, tmp_path: Path
) -> None:
    """A proxy that asks for a login answers with a page of the web, and with 200."""
    done.result.pages[0].content_type = "image/jpeg"
    storage.types["/1"] = "text/html; charset=utf-8"
    with pytest.raises(Unavailable, match=r"a proxy.*text/html instead of image/jpeg") as caught:
        await client.download(done, tmp_path)
    assert caught.value.retry == "now"
    assert len([asked for asked in storage.asked if asked.path == "/1"]) == 4
    assert "s3cret" not in str(caught.value)
    assert "page-0001.jpg" not in contents(tmp_path)
    assert not (tmp_path / "page-0001.jpg.part").exists()


@pytest.mark.parametrize("status", [302, 204])
async def test_a_redirect_to_a_login_or_a_reply_without_content_is_no_page(
    client: DocPreviewClient, done: PreviewJob, storage: FakeStorage, tmp_path: Path, status: int
) -> None:
    storage.faults["/1"] = [status] * 4
    with pytest.raises(Unavailable, match=f"a proxy, has answered with HTTP {status}"):
        await client.download(done, tmp_path)
    assert storage.faults["/1"] == []


async def test_a_content_that_is_longer_than_told_is_fetched_anew(
    client: DocPreviewClient, done: PreviewJob, storage: FakeStorage, tmp_path: Path
) -> None:
    storage.faults["/1"] = ["cut", "long"]
    await client.download(done, tmp_path)
    ranges = [asked.headers.get("Range") for asked in storage.asked if asked.path == "/1"]
    assert ranges == [None, f"bytes={len(FIRST) // 2}-", None]
    assert contents(tmp_path)["page-0001.jpg"] == FIRST


async def test_a_content_without_end_is_no_page_and_leaves_no_file(storage: FakeStorage, tmp_path: Path) -> None:
    storage.objects["/1"], storage.faults["/1"] = FIRST, ["long"]
    async with Storage(workers=1, longest=len(FIRST)) as transfers:
        with pytest.raises(NoObject, match=f"a proxy, has answered with more than {len(FIRST)} bytes"):
            await transfers.in_thread(transfers.fetch, f"{storage.url}/1", tmp_path / "part", "")
    assert contents(tmp_path) == {}


async def test_a_content_that_stops_is_a_lost_connection_and_goes_on_from_there(
    storage: FakeStorage, tmp_path: Path
) -> None:
    content = bytes(1 << 20)
    storage.objects["/1"], storage.faults["/1"] = content, ["stop"]
    async with Storage(workers=1, idle=0.3) as transfers, asyncio.timeout(5):
        with pytest.raises(StorageLost):
            await transfers.in_thread(transfers.fetch, f"{storage.url}/1", tmp_path / "part", "")
        await transfers.in_thread(transfers.fetch, f"{storage.url}/1", tmp_path / "part", "")
    assert storage.asked[1].headers["Range"] == f"bytes={len(content) // 2}-"
    assert contents(tmp_path) == {"part": content}


@pytest.mark.parametrize("types", [("image/jpeg", "Image/JPEG; q=1"), ("", "text/plain"), ("image/png", "")])
async def test_types_are_compared_without_parameters_and_case_when_both_are_known(
    client: DocPreviewClient, done: PreviewJob, storage: FakeStorage, tmp_path: Path, types: tuple[str, str]
) -> None:
    done.result.pages[0].content_type, storage.types["/1"] = types
    assert (await client.download(done, tmp_path))[0].read_bytes() == FIRST


async def test_a_page_that_is_gone_is_not_found_and_asked_for_once(
    client: DocPreviewClient, storage: FakeStorage, tmp_path: Path
) -> None:
    with pytest.raises(NotFound, match=r"previews/abc_1\.jpg"):
        await client.download(succeeded(f"{storage.url}/gone?sign=s3cret"), tmp_path)
    assert len(storage.asked) == 1


async def test_storage_that_cannot_be_reached_is_unavailable_and_the_address_is_hidden(
    client: DocPreviewClient, tmp_path: Path
) -> None:
    with pytest.raises(Unavailable) as caught:
        await client.download(succeeded("http://127.0.0.1:1/a?sign=s3cret"), tmp_path)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("url", ["", "file:///etc/passwd"])
async def test_pages_without_an_http_address_are_a_failed_precondition(
    gateway: FakeGateway, client: DocPreviewClient, tmp_path: Path, url: str
) -> None:
    gateway.will("GetPreviewJob", succeeded(url))
    with pytest.raises(FailedPrecondition, match="has no address"):
        await client.download(succeeded(url), tmp_path)


async def test_a_job_that_has_not_ended_with_success_has_no_pages(client: DocPreviewClient, tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="not ended with success"):
        await client.download(job(), tmp_path)


async def test_a_directory_that_cannot_be_one_is_an_oserror_before_anything_is_asked(
    gateway: FakeGateway, client: DocPreviewClient, storage: FakeStorage, done: PreviewJob, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(OSError):  # noqa: PT011 - which one is the system's
        await client.download(done, file)
    assert (gateway.calls, storage.asked) == ([], [])


async def test_a_download_ends_at_its_deadline_with_the_server_still_silent(
    client: DocPreviewClient, done: PreviewJob, storage: FakeStorage, tmp_path: Path
) -> None:
    storage.gathering = threading.Barrier(99)
    with pytest.raises(DeadlineExceeded):
        await client.download(done, tmp_path, timeout=0.3)
    storage.gathering.abort()


async def test_a_cancelled_download_leaves_no_thread_at_work(
    client: DocPreviewClient, done: PreviewJob, storage: FakeStorage, tmp_path: Path
) -> None:
    storage.gathering = threading.Barrier(99)
    downloading = asyncio.create_task(client.download(done, tmp_path))
    async with asyncio.timeout(10):
        while len(storage.asked) < 2:  # noqa: ASYNC110 - the storage is of other threads
            await asyncio.sleep(0.01)
    mine = [thread for thread in threading.enumerate() if thread.name.startswith("docpreview-storage")]
    downloading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await downloading
    for thread in mine:
        await asyncio.to_thread(thread.join, 5)
    assert len(mine) == 2
    assert not any(thread.is_alive() for thread in mine)
    storage.gathering.abort()


def workbook(*places: tuple[int, int], sheets: int = 2) -> PreviewJob:
    pages = [Page(page_number=sheet, picture_number=number, object="a.png") for sheet, number in places]
    return PreviewJob(result=PreviewResult(total_sheet_count=sheets, pages=pages))


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        (workbook((1, 1), (1, 2), (2, 1)), ["sheet-01-page-001", "sheet-01-page-002", "sheet-02-page-001"]),
        (workbook((1, 0), (1, 0), (2, 0)), ["sheet-01-page-001", "sheet-01-page-002", "sheet-02-page-001"]),
        (workbook((1, 1), (1, 1), (2, 1)), ["sheet-01-page-001", "sheet-01-page-002", "sheet-02-page-001"]),
        (workbook((9, 1), (100, 1)), ["sheet-009-page-001", "sheet-100-page-001"]),
        (workbook((1, 1), (2, 1), sheets=0), ["page-0001", "page-0002"]),
        (workbook((3, 0), (3, 0), sheets=0), ["page-0001", "page-0002"]),
        (workbook((2, 0), (7, 0), sheets=0), ["page-0002", "page-0007"]),
        (workbook(), []),
    ],
)
def test_pages_are_named_by_sheet_and_page_so_that_names_are_different_and_sort(
    done: PreviewJob, expected: list[str]
) -> None:
    assert names(done) == [f"{stem}.png" for stem in expected]
    assert sorted(names(done)) == names(done)


@pytest.mark.parametrize(
    ("content_type", "key", "suffix"),
    [
        ("image/jpeg", "p/1.png", ".jpg"),
        ("image/png", "p/1", ".png"),
        ("", "p/1.JPG", ".jpg"),
        ("", "p/../../1", ""),
        ("image/webp", "p/1.webp", ".webp"),
    ],
)
def test_the_suffix_is_that_of_the_content_type_else_of_the_key(content_type: str, key: str, suffix: str) -> None:
    pages = [Page(page_number=1, content_type=content_type, object=key)]
    assert names(PreviewJob(result=PreviewResult(pages=pages))) == [f"page-0001{suffix}"]


def test_a_pdf_is_one_document() -> None:
    pdf = PreviewResult(
        target_format=PreviewOptions.TARGET_FORMAT_PDF, pages=[Page(object="out/1.pdf", content_type="application/pdf")]
    )
    assert names(PreviewJob(result=pdf)) == ["document.pdf"]


@pytest.fixture
def proxy(storage: FakeStorage, monkeypatch: pytest.MonkeyPatch) -> FakeStorage:
    """A proxy of the environment; a storage takes whole addresses, as a proxy does."""
    for name in ("HTTP_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", storage.url.replace("//", "//user:pass%20word@"))
    return storage


async def test_a_proxy_of_the_environment_is_used_but_not_for_this_machine(
    client: DocPreviewClient, proxy: FakeStorage, tmp_path: Path
) -> None:
    proxy.objects |= {"http://docs.example/1": b"far", "/2": b"near"}
    await client.download(succeeded("http://docs.example/1?a=b", f"{proxy.url}/2"), tmp_path, parallel=1)
    assert contents(tmp_path) == {"page-0001.jpg": b"far", "page-0002.jpg": b"near"}
    assert proxy.asked[0].headers["Proxy-Authorization"] == "Basic dXNlcjpwYXNzIHdvcmQ="
    assert "Proxy-Authorization" not in proxy.asked[1].headers


async def test_a_storage_that_is_not_reached_is_named_without_the_query_of_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with Storage(workers=1) as storage:
        with pytest.raises(StorageLost) as caught:
            await storage.in_thread(storage.put, f"http://127.0.0.1:{port}/a?sign=secret", {}, [b"a"])
    assert str(caught.value) == f"ConnectionRefusedError at 127.0.0.1:{port}"
