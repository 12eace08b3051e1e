"""`preview` of the library: no failure makes a second job, and none leaves what is not of this job."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest

from docpreview.v1.upload_service_pb2 import AbortUploadResponse, Upload, UploadedObject, UploadPart
from docpreview_client import (
    BlockingClient,
    DeadlineExceeded,
    DocPreviewClient,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    PreviewJob,
    PreviewOptions,
    PreviewUnfinished,
    TransientError,
    Unavailable,
)

from .fake_gateway import FakeGateway, Silence
from .fake_storage import FakeStorage
from .samples import BUCKET, JOB_ID, failed, failure, job, key_of, succeeded

REQUEST_ID = "7d3f9b7e-6d0c-4a51-9f0e-2f4c8f6f2a10"
EXISTS = failure(grpc.StatusCode.ALREADY_EXISTS, "OBJECT_EXISTS")


@pytest.fixture
def slides(gateway: FakeGateway, storage: FakeStorage, tmp_path: Path) -> Path:
    """A document; the gateway takes it and makes a job of two pages of it."""
    file = tmp_path / "slides.pptx"
    file.write_bytes(b"slides")

    def begun(request: Any) -> Upload:
        part = UploadPart(url=f"{storage.url}/in?sign=s3cret", headers={"Content-Length": "6"}, length=6)
        return Upload(bucket=BUCKET, object=request.object, upload_token=request.object, parts=[part])

    gateway.will("CreateUpload", begun)
    gateway.will("CompleteUpload", lambda asked: UploadedObject(bucket=BUCKET, object=asked.upload_token))
    gateway.will("AbortUpload", AbortUploadResponse())
    gateway.will("CreatePreviewJob", job(PreviewJob.STATE_SUBMITTED))
    storage.objects |= {"/a": b"first", "/b": b"second"}
    done = succeeded(f"{storage.url}/a?sign=s3cret", f"{storage.url}/b?sign=s3cret")
    gateway.will("WatchPreviewJob", [job(), done])
    gateway.will("GetPreviewJob", done)
    return file


async def unfinished(client: DocPreviewClient, file: Path, out: Path, **fields: Any) -> PreviewUnfinished:
    with pytest.raises(PreviewUnfinished) as caught:
        await client.preview(file, out, bucket=BUCKET, **fields)
    error = caught.value
    assert error.retry == "never"
    assert not isinstance(error, TransientError)
    assert error.job.job_id == JOB_ID
    assert error.__cause__ is error.cause
    assert str(error.cause) in str(error)
    assert f"job {JOB_ID} was made and its pages are not all here" in error.message
    assert "go on with download" in error.message
    assert "s3cret" not in str(error)
    return error


async def test_an_unreachable_gateway_after_the_create_is_unfinished_with_the_job(
    gateway: FakeGateway, client: DocPreviewClient, slides: Path, tmp_path: Path
) -> None:
    gateway.will("WatchPreviewJob", [failure(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")])
    error = await unfinished(client, slides, tmp_path / "out")
    assert isinstance(error.cause, NotFound)
    assert error.job == job(PreviewJob.STATE_SUBMITTED)
    assert error.request_id == "req-7"


async def test_a_deadline_after_the_create_is_unfinished_with_the_job_as_last_seen(
    gateway: FakeGateway, client: DocPreviewClient, slides: Path, tmp_path: Path
) -> None:
    gateway.will("WatchPreviewJob", [job(), Silence()])
    error = await unfinished(client, slides, tmp_path / "out", timeout=1)
    assert isinstance(error.cause, DeadlineExceeded)
    assert error.job == job()


async def test_a_page_that_cannot_be_fetched_is_unfinished_and_download_goes_on(
    gateway: FakeGateway, client: DocPreviewClient, slides: Path, storage: FakeStorage, tmp_path: Path
) -> None:
    storage.faults["/a"] = [503] * 4
    error = await unfinished(client, slides, tmp_path / "out")
    assert isinstance(error.cause, Unavailable)
    files = await client.download(error.job, tmp_path / "out")
    assert [file.read_bytes() for file in files] == [b"first", b"second"]
    assert len(gateway.asked("CreatePreviewJob")) == 1


async def test_a_page_that_cannot_be_written_is_unfinished(
    client: DocPreviewClient, slides: Path, tmp_path: Path
) -> None:
    (tmp_path / "out" / "page-0001.jpg.part").mkdir(parents=True)
    assert isinstance((await unfinished(client, slides, tmp_path / "out")).cause, OSError)


async def test_a_callback_that_fails_is_unfinished(client: DocPreviewClient, slides: Path, tmp_path: Path) -> None:
    def progress(*_: int) -> None:
        raise KeyError("mine")

    error = await unfinished(client, slides, tmp_path / "out", progress=progress)
    assert isinstance(error.cause, KeyError)


def test_the_blocking_client_raises_it_too(gateway: FakeGateway, slides: Path, tmp_path: Path) -> None:
    gateway.will("WatchPreviewJob", [failure(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND")])
    with BlockingClient(gateway.target) as client, pytest.raises(PreviewUnfinished) as caught:
        client.preview(slides, tmp_path / "out", bucket=BUCKET)
    assert caught.value.job.job_id == JOB_ID


async def test_a_job_that_has_failed_is_a_result_without_files(
    gateway: FakeGateway, client: DocPreviewClient, slides: Path, tmp_path: Path
) -> None:
    gateway.will("WatchPreviewJob", [failed()])
    assert await client.preview(slides, tmp_path / "out", bucket=BUCKET) == (failed(), [])


async def test_the_key_of_the_document_is_made_of_the_request_id_and_the_content(
    gateway: FakeGateway, client: DocPreviewClient, slides: Path, tmp_path: Path
) -> None:
    """The caller's, or one that the client makes."""
    await client.preview(slides, tmp_path / "out", bucket=BUCKET, request_id=REQUEST_ID.upper())
    await client.preview(slides, tmp_path / "out", bucket=BUCKET)
    first, second = gateway.asked("CreatePreviewJob")
    assert first.request_id == REQUEST_ID.upper()
    assert UUID(second.request_id) != UUID(REQUEST_ID)
    for asked, created in zip(gateway.asked("CreateUpload"), (first, second), strict=True):
        assert asked.object == created.input_object == key_of(created.request_id.lower(), b"slides")


async def test_another_content_has_another_key_of_the_same_request_id(
    gateway: FakeGateway, client: DocPreviewClient, slides: Path, tmp_path: Path
) -> None:
    """So the gateway refuses it where the id has a job, and no old document is taken for the new one."""
    template = "team/${UploadId}/a.pptx"
    for content in (b"slides", b"sliced"):
        await asyncio.to_thread(slides.write_bytes, content)
        await client.preview(slides, tmp_path / "out", bucket=BUCKET, request_id=REQUEST_ID, object=template)
    keys = [asked.object for asked in gateway.asked("CreateUpload")]
    assert keys == [key_of(REQUEST_ID, content, template) for content in (b"slides", b"sliced")]
    assert len(set(keys)) == 2


async def test_a_content_without_a_file_can_be_repeated_too(
    gateway: FakeGateway, client: DocPreviewClient, slides: Path, tmp_path: Path
) -> None:
    """With the key of a file of that content."""
    for file in (slides, b"slides"):
        await client.preview(file, tmp_path / "out", bucket=BUCKET, request_id=REQUEST_ID, object="in/${UploadId}.pptx")
    assert {asked.object for asked in gateway.asked("CreateUpload")} == {key_of(REQUEST_ID, b"slides")}


async def test_without_request_ids_the_key_has_the_id_of_the_upload(
    gateway: FakeGateway, once: DocPreviewClient, slides: Path, tmp_path: Path
) -> None:
    await once.preview(slides, tmp_path / "out", bucket=BUCKET)
    assert gateway.asked("CreateUpload")[0].object == "in/${UploadId}.pptx"
    assert gateway.asked("CreatePreviewJob")[0].request_id == ""


@pytest.mark.parametrize("large", [False, True])
async def test_a_repeated_preview_takes_the_document_of_the_earlier_attempt_and_gets_its_job(
    gateway: FakeGateway,
    client: DocPreviewClient,
    slides: Path,
    tmp_path: Path,
    large: bool,  # noqa: FBT001
) -> None:
    """With the id that the unknown outcome tells. A large one is not brought again; small ones the gateway compares."""
    if large:
        await asyncio.to_thread(slides.write_bytes, bytes(16 * 1024 * 1024 + 1))
    gateway.will("CreatePreviewJob", failure(grpc.StatusCode.UNKNOWN, "CREATE_OUTCOME_UNKNOWN"))
    with pytest.raises(OutcomeUnknown) as caught:
        await client.preview(slides, tmp_path / "out", bucket=BUCKET, timeout=1)
    gateway.will("CreatePreviewJob", job(PreviewJob.STATE_SUBMITTED))
    if large:
        gateway.will("CreateUpload", EXISTS)
    again = caught.value.create_request_id
    assert len((await client.preview(slides, tmp_path / "out", bucket=BUCKET, request_id=again)).files) == 2
    assert len({request.SerializeToString() for request in gateway.asked("CreatePreviewJob")}) == 1


async def test_a_key_of_the_callers_own_that_exists_is_refused(
    gateway: FakeGateway, client: DocPreviewClient, slides: Path, tmp_path: Path
) -> None:
    gateway.will("CompleteUpload", EXISTS)
    with pytest.raises(InvalidRequest):
        await client.preview(slides, tmp_path / "out", bucket=BUCKET, object="in/a.pptx", request_id=REQUEST_ID)
    assert gateway.asked("CreatePreviewJob") == []


async def test_an_object_of_another_content_at_the_key_of_a_small_document_is_refused(
    gateway: FakeGateway, client: DocPreviewClient, slides: Path, tmp_path: Path
) -> None:
    """The gateway has compared them."""
    gateway.will("CompleteUpload", EXISTS)
    with pytest.raises(InvalidRequest):
        await client.preview(slides, tmp_path / "out", bucket=BUCKET, request_id=REQUEST_ID)
    assert gateway.asked("CreatePreviewJob") == []


async def test_a_second_preview_into_a_directory_is_refused_at_once(
    gateway: FakeGateway, client: DocPreviewClient, slides: Path, tmp_path: Path
) -> None:
    """As a download is. Afterwards the directory is free."""
    gateway.will("WatchPreviewJob", Silence())
    first = asyncio.create_task(client.preview(slides, tmp_path / "out", bucket=BUCKET))
    await asyncio.to_thread(gateway.call, "WatchPreviewJob")
    done = succeeded(f"{slides}")
    for second in (
        client.preview(slides, tmp_path / "x" / ".." / "out", bucket=BUCKET),
        client.download(done, tmp_path / "out"),
    ):
        with pytest.raises(InvalidRequest, match="another download goes to"):
            await second
    assert len(gateway.asked("CreateUpload")) == 1
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(InvalidRequest, match="name of the directory is empty"):
        await client.preview(slides, "", bucket=BUCKET)
    gateway.will("WatchPreviewJob", [failed()])
    assert (await client.preview(slides, tmp_path / "out", bucket=BUCKET)).job.state == PreviewJob.STATE_FAILED


async def test_another_incomplete_upload_is_refused(
    gateway: FakeGateway, client: DocPreviewClient, slides: Path, tmp_path: Path
) -> None:
    gateway.will("CompleteUpload", failure(grpc.StatusCode.FAILED_PRECONDITION, "UPLOAD_INCOMPLETE"))
    with pytest.raises(FailedPrecondition):
        await client.preview(slides, tmp_path / "out", bucket=BUCKET)
    assert gateway.asked("CreatePreviewJob") == []


async def test_a_request_id_that_is_no_uuid_is_refused_before_anything_is_asked(
    gateway: FakeGateway, client: DocPreviewClient, slides: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await client.preview(slides, tmp_path / "out", bucket=BUCKET, request_id="../mine")
    assert caught.value.field_violations[0][0] == "request_id"
    assert gateway.calls == []


async def test_pages_of_another_job_go_when_the_new_job_is_made_even_if_that_fails(
    gateway: FakeGateway, client: DocPreviewClient, slides: Path, tmp_path: Path
) -> None:
    """A job that is refused leaves them."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "page-0001.jpg").write_bytes(b"old")
    (out / ".docpreview.json").write_text(json.dumps({"job_id": "d1", "pages": {"page-0001.jpg": 3}}))
    gateway.will("CreatePreviewJob", failure(grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED"))
    with pytest.raises(PermissionDenied):
        await client.preview(slides, out, bucket=BUCKET)
    assert (out / "page-0001.jpg").exists()

    def watched(_: Any) -> PreviewJob:
        assert not (out / "page-0001.jpg").exists()
        return failed()

    gateway.will("CreatePreviewJob", job(PreviewJob.STATE_SUBMITTED))
    gateway.will("WatchPreviewJob", [watched])
    await client.preview(slides, out, bucket=BUCKET)
    assert [file.name for file in out.iterdir()] == [".docpreview.json"]


def emptied(file: Path) -> None:
    file.write_bytes(b"")


@pytest.mark.parametrize("spoil", [emptied, Path.unlink])
async def test_a_document_that_is_empty_or_missing_is_refused_and_no_directory_is_left(
    gateway: FakeGateway, client: DocPreviewClient, slides: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(slides)
    with pytest.raises((InvalidRequest, FileNotFoundError)):
        await client.preview(slides, tmp_path / "new" / "out", bucket=BUCKET)
    assert gateway.calls == []
    assert not (tmp_path / "new").exists()


async def test_a_refused_preview_leaves_a_directory_that_was_there(
    gateway: FakeGateway, client: DocPreviewClient, slides: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    gateway.will("CreateUpload", failure(grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED"))
    with pytest.raises(PermissionDenied):
        await client.preview(slides, tmp_path / "out", bucket=BUCKET)
    assert (tmp_path / "out").is_dir()


async def collected(jobs: Any) -> None:
    async for _ in jobs:
        pass


CALLS: list[Callable[[DocPreviewClient], Any]] = [
    lambda client: client.create(BUCKET, "a", output_object="b/${Page}", requset_id=REQUEST_ID),  # type: ignore[call-arg]
    lambda client: client.get(BUCKET, JOB_ID, requset_id=""),  # type: ignore[call-arg]
    lambda client: client.batch_get(BUCKET, [JOB_ID], requset_id=""),  # type: ignore[call-arg]
    lambda client: client.list_page(BUCKET, requset_id=""),  # type: ignore[call-arg]
    lambda client: collected(client.list(BUCKET, requset_id="")),  # type: ignore[call-arg]
    lambda client: client.wait(BUCKET, JOB_ID, requset_id=""),  # type: ignore[call-arg]
    lambda client: collected(client.watch(BUCKET, JOB_ID, requset_id="")),  # type: ignore[call-arg]
    lambda client: collected(client.watch_many(BUCKET, [JOB_ID], requset_id="")),  # type: ignore[call-arg]
    lambda client: collected(client.create_and_watch(BUCKET, "a", output_object="b/${Page}", requset_id="")),  # type: ignore[call-arg]
    lambda client: client.upload(b"a", BUCKET, "in/a.pdf", requset_id=""),  # type: ignore[call-arg]
    lambda client: client.download(succeeded(), "out", requset_id=""),  # type: ignore[call-arg]
    lambda client: client.preview(b"a", "out", bucket=BUCKET, requset_id=""),  # type: ignore[call-arg]
    lambda client: collected(client.list_queues(BUCKET, requset_id="")),  # type: ignore[call-arg]
    lambda client: client.usage(requset_id=""),  # type: ignore[call-arg]
]


@pytest.mark.parametrize("call", CALLS)
async def test_an_unknown_argument_is_a_type_error_that_names_it_and_nothing_is_asked(
    gateway: FakeGateway,
    client: DocPreviewClient,
    call: Callable[[DocPreviewClient], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match="requset_id"):
        await call(client)
    assert gateway.calls == []
    assert not (tmp_path / "out").exists()


def test_the_type_error_has_the_nearest_name_in_the_blocking_client_too(gateway: FakeGateway) -> None:
    with BlockingClient(gateway.target) as client:
        with pytest.raises(TypeError, match=r"'requset_id' \(did you mean 'request_id'\?\), 'xyzzy'$"):
            client.create(BUCKET, "a", output_object="b", requset_id="", xyzzy=1)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="did you mean 'states'"):
            list(client.list(BUCKET, state=[]))  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="page_token"):
            list(client.list(BUCKET, page_token="two"))  # type: ignore[call-arg]
    assert gateway.calls == []


async def test_options_of_the_conversion_come_from_the_package_of_the_client(
    gateway: FakeGateway, client: DocPreviewClient, slides: Path, tmp_path: Path
) -> None:
    options = PreviewOptions(target_format=PreviewOptions.TARGET_FORMAT_PNG, image_dpi=150)
    await client.preview(slides, tmp_path / "out", bucket=BUCKET, options=options)
    created = gateway.asked("CreatePreviewJob")[0]
    assert created.options == options
    assert created.output.object == "out/${RequestToken}/page-${Number}.png"
