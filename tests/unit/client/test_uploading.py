"""Uploads: parts go to signed addresses with exactly their headers; what fails is repeated, begun anew or aborted."""

import asyncio
import hashlib
import os
import threading
from pathlib import Path

import grpc
import pytest

from docpreview.v1.upload_service_pb2 import AbortUploadResponse, Upload, UploadedObject, UploadPart
from docpreview_client import DocPreviewClient, FailedPrecondition, InvalidRequest, PermissionDenied, Unavailable

from .fake_gateway import FakeGateway
from .fake_storage import FakeStorage
from .samples import BUCKET, failure

CONTENT = b"0123456789" * 3
DONE = UploadedObject(bucket=BUCKET, object="in/1.pdf", content_length=len(CONTENT))


def upload(storage: FakeStorage, *lengths: int, name: str = "u1") -> Upload:
    parts, offset = [], 0
    for number, length in enumerate(lengths, 1):
        headers = {"Host": "docs.example", "Content-Length": str(length), "Content-Type": "application/pdf"}
        url = f"{storage.url}/{name}/{number}?sign=s3cret"
        parts.append(UploadPart(url=url, headers=headers, offset=offset, length=length))
        offset += length
    return Upload(bucket=BUCKET, object="in/1.pdf", upload_token=name, parts=parts)


@pytest.fixture
def document(tmp_path: Path) -> Path:
    file = tmp_path / "a.pdf"
    file.write_bytes(CONTENT)
    return file


@pytest.fixture(autouse=True)
def accepting(gateway: FakeGateway) -> None:
    gateway.will("CompleteUpload", DONE)
    gateway.will("AbortUpload", AbortUploadResponse())


async def test_a_document_of_one_part_is_put_with_exactly_the_signed_headers_and_completed_with_its_etag(
    gateway: FakeGateway, client: DocPreviewClient, storage: FakeStorage, document: Path
) -> None:
    gateway.will("CreateUpload", upload(storage, len(CONTENT)))
    assert await client.upload(document, BUCKET) == DONE
    asked = gateway.asked("CreateUpload")[0]
    assert (asked.bucket, asked.object, asked.content_length) == (BUCKET, "in/${UploadId}.pdf", len(CONTENT))
    assert asked.content_md5 == hashlib.md5(CONTENT, usedforsecurity=False).digest()
    put = storage.asked[0]
    assert put.body == CONTENT
    assert put.headers == {"Host": "docs.example", "Content-Length": "30", "Content-Type": "application/pdf"}
    complete = gateway.asked("CompleteUpload")[0]
    assert complete.upload_token == "u1"
    assert list(complete.etags) == [f'"{hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}"']
    assert gateway.asked("AbortUpload") == []


async def test_the_content_itself_is_uploaded_to_the_key_that_is_given(
    gateway: FakeGateway, client: DocPreviewClient, storage: FakeStorage
) -> None:
    gateway.will("CreateUpload", upload(storage, len(CONTENT)))
    await client.upload(CONTENT, BUCKET, "in/x.pdf", content_type="application/pdf")
    asked = gateway.asked("CreateUpload")[0]
    assert (asked.object, asked.content_type) == ("in/x.pdf", "application/pdf")
    assert storage.asked[0].body == CONTENT


async def test_content_without_a_key_and_missing_files_are_refused_before_anything_is_asked(
    gateway: FakeGateway, client: DocPreviewClient, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="`object`"):
        await client.upload(CONTENT, BUCKET)
    with pytest.raises(FileNotFoundError):
        await client.upload(tmp_path / "no.pdf", BUCKET)
    with pytest.raises(ValueError, match="not a file"):
        await client.upload(tmp_path, BUCKET, "in/a.pdf")
    assert gateway.calls == []


async def test_parts_go_four_at_a_time_and_their_etags_are_in_order(
    gateway: FakeGateway, client: DocPreviewClient, storage: FakeStorage, document: Path
) -> None:
    gateway.will("CreateUpload", upload(storage, *[3] * 8, 6))
    await client.upload(document, BUCKET)
    bodies = [storage.objects[f"/u1/{number}"] for number in range(1, 10)]
    assert b"".join(bodies) == CONTENT
    etags = [f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"' for body in bodies]
    assert list(gateway.asked("CompleteUpload")[0].etags) == etags
    assert storage.most_at_once <= 4


async def test_four_parts_are_on_their_way_concurrently(
    gateway: FakeGateway, client: DocPreviewClient, storage: FakeStorage, document: Path
) -> None:
    """The storage answers none of the four before all have come."""
    gateway.will("CreateUpload", upload(storage, 5, 5, 5, 15))
    storage.gathering = threading.Barrier(4)
    assert await client.upload(document, BUCKET) == DONE


@pytest.mark.parametrize("fault", [500, 503, 429, "cut"])
async def test_a_part_that_fails_twice_is_put_again(
    gateway: FakeGateway, client: DocPreviewClient, storage: FakeStorage, document: Path, fault: int | str
) -> None:
    gateway.will("CreateUpload", upload(storage, len(CONTENT)))
    storage.faults["/u1/1"] = [fault, fault]
    assert await client.upload(document, BUCKET) == DONE
    assert [put.body for put in storage.asked] == [CONTENT] * 3


async def test_a_part_that_keeps_failing_aborts_the_upload_and_the_error_hides_the_address(
    gateway: FakeGateway, client: DocPreviewClient, storage: FakeStorage, document: Path
) -> None:
    gateway.will("CreateUpload", upload(storage, len(CONTENT)))
    storage.faults["/u1/1"] = [503] * 9
    with pytest.raises(Unavailable) as caught:
        await client.upload(document, BUCKET)
    assert len(storage.asked) == 4
    assert "s3cret" not in str(caught.value)
    assert [request.upload_token for request in gateway.asked("AbortUpload")] == ["u1"]
    assert gateway.asked("CompleteUpload") == []


@pytest.mark.parametrize("fault", [204, 302, 407, "page", "bare"])
async def test_what_a_proxy_answers_to_a_part_is_repeated_and_then_unavailable(
    gateway: FakeGateway, client: DocPreviewClient, storage: FakeStorage, document: Path, fault: int | str
) -> None:
    """Nothing is followed, and what has no ETag, or is a web page, is no answer of a storage."""
    gateway.will("CreateUpload", upload(storage, len(CONTENT)))
    storage.faults["/u1/1"] = [fault]
    assert await client.upload(document, BUCKET) == DONE
    assert len(storage.asked) == 2
    storage.faults["/u1/1"] = [fault] * 9
    with pytest.raises(Unavailable, match="such as a proxy, has answered with") as caught:
        await client.upload(document, BUCKET)
    assert len(storage.asked) == 6
    assert caught.value.retry == "now"
    assert "s3cret" not in str(caught.value)


async def test_an_upload_whose_addresses_have_expired_begins_anew_once(
    gateway: FakeGateway, client: DocPreviewClient, storage: FakeStorage, document: Path
) -> None:
    gateway.will("CreateUpload", upload(storage, len(CONTENT)), upload(storage, len(CONTENT), name="u2"))
    storage.faults["/u1/1"] = [403]
    assert await client.upload(document, BUCKET) == DONE
    assert [request.upload_token for request in gateway.asked("AbortUpload")] == ["u1"]
    assert gateway.asked("CompleteUpload")[0].upload_token == "u2"


async def test_an_upload_that_the_storage_refuses_again_is_permission_denied(
    gateway: FakeGateway, client: DocPreviewClient, storage: FakeStorage, document: Path
) -> None:
    gateway.will("CreateUpload", upload(storage, len(CONTENT)))
    storage.faults["/u1/1"] = [403, 403, 403]
    with pytest.raises(PermissionDenied) as caught:
        await client.upload(document, BUCKET)
    assert type(caught.value) is PermissionDenied
    assert len(storage.asked) == 2


async def test_an_upload_that_the_policy_refuses_sends_nothing(
    gateway: FakeGateway, client: DocPreviewClient, storage: FakeStorage, document: Path
) -> None:
    gateway.will("CreateUpload", failure(grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED"))
    with pytest.raises(PermissionDenied) as caught:
        await client.upload(document, BUCKET)
    assert caught.value.reason == "NOT_PERMITTED"
    assert storage.asked == []
    assert len(gateway.asked("CreateUpload")) == 1


@pytest.mark.parametrize("faults", [["cut", 409], [409]])
async def test_a_document_that_is_there_already_is_completed_with_its_md5_as_the_etag(
    gateway: FakeGateway, client: DocPreviewClient, storage: FakeStorage, document: Path, faults: list[int | str]
) -> None:
    """The reply of the attempt that put it was lost."""
    gateway.will("CreateUpload", upload(storage, len(CONTENT)))
    storage.faults["/u1/1"] = list(faults)
    assert await client.upload(document, BUCKET) == DONE
    assert len(storage.asked) == len(faults)
    etag = f'"{hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}"'
    assert list(gateway.asked("CompleteUpload")[0].etags) == [etag]


async def test_an_object_of_another_upload_is_a_failed_precondition_in_the_words_of_the_gateway(
    gateway: FakeGateway, client: DocPreviewClient, storage: FakeStorage, document: Path
) -> None:
    gateway.will("CreateUpload", upload(storage, len(CONTENT)))
    gateway.will("CompleteUpload", failure(grpc.StatusCode.FAILED_PRECONDITION, "UPLOAD_INCOMPLETE"))
    storage.faults["/u1/1"] = [409]
    with pytest.raises(FailedPrecondition) as caught:
        await client.upload(document, BUCKET)
    assert caught.value.reason == "UPLOAD_INCOMPLETE"
    assert len(gateway.asked("AbortUpload")) == 1


async def test_a_conflict_of_one_part_of_several_is_an_error(
    gateway: FakeGateway, client: DocPreviewClient, storage: FakeStorage, document: Path
) -> None:
    """The MD5 is not the part's ETag."""
    gateway.will("CreateUpload", upload(storage, 10, 20))
    storage.faults["/u1/2"] = [409]
    with pytest.raises(FailedPrecondition):
        await client.upload(document, BUCKET)
    assert gateway.asked("CompleteUpload") == []


async def test_a_file_that_has_become_shorter_is_told_and_aborted(
    gateway: FakeGateway, client: DocPreviewClient, storage: FakeStorage, document: Path
) -> None:
    gateway.will("CreateUpload", upload(storage, 10, 30))
    with pytest.raises(FailedPrecondition, match="shorter"):
        await client.upload(document, BUCKET)
    assert len(gateway.asked("AbortUpload")) == 1


async def test_a_file_that_changes_while_it_is_uploaded_is_told_and_aborted(
    gateway: FakeGateway, client: DocPreviewClient, storage: FakeStorage, document: Path
) -> None:
    """Of the same length, too."""

    def begun(_: object) -> Upload:
        document.write_bytes(CONTENT[::-1])
        os.utime(document, ns=(0, 1))
        return upload(storage, len(CONTENT))

    gateway.will("CreateUpload", begun)
    with pytest.raises(FailedPrecondition, match=r"a\.pdf has changed"):
        await client.upload(document, BUCKET)
    assert len(gateway.asked("AbortUpload")) == 1
    assert gateway.asked("CompleteUpload") == []


async def test_a_part_that_the_storage_refuses_since_the_file_has_changed_tells_the_change(
    gateway: FakeGateway, client: DocPreviewClient, storage: FakeStorage, document: Path
) -> None:
    """Its MD5 is not the one that was announced."""

    def begun(_: object) -> Upload:
        os.utime(document, ns=(0, 1))
        return upload(storage, len(CONTENT))

    gateway.will("CreateUpload", begun)
    storage.faults["/u1/1"] = [400]
    with pytest.raises(FailedPrecondition, match="has changed"):
        await client.upload(document, BUCKET)


async def test_an_empty_document_is_an_invalid_request_before_anything_is_asked(
    gateway: FakeGateway, client: DocPreviewClient, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.pdf"
    empty.touch()
    with pytest.raises(InvalidRequest, match=f"{empty} is empty"):
        await client.upload(empty, BUCKET)
    with pytest.raises(InvalidRequest, match="is empty"):
        await client.upload(b"", BUCKET, "in/a.pdf")
    assert gateway.calls == []


async def test_a_cancelled_upload_is_aborted(
    gateway: FakeGateway, client: DocPreviewClient, storage: FakeStorage, document: Path
) -> None:
    gateway.will("CreateUpload", upload(storage, len(CONTENT)))
    storage.gathering = threading.Barrier(2)  # the reply waits for the test
    uploading = asyncio.create_task(client.upload(document, BUCKET))
    await asyncio.to_thread(gateway.call, "CreateUpload")
    async with asyncio.timeout(10):
        while not storage.asked:  # noqa: ASYNC110 - the storage is of another thread
            await asyncio.sleep(0.01)
    uploading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await uploading
    assert len(gateway.asked("AbortUpload")) == 1
    storage.gathering.abort()


async def test_a_large_document_is_not_read_for_a_checksum(
    gateway: FakeGateway, client: DocPreviewClient, storage: FakeStorage, tmp_path: Path
) -> None:
    large = tmp_path / "large.pdf"
    with large.open("wb") as file:
        file.truncate(16 * 1024 * 1024 + 1)
    gateway.will("CreateUpload", upload(storage, 10))
    await client.upload(large, BUCKET)
    asked = gateway.asked("CreateUpload")[0]
    assert (asked.content_length, asked.content_md5) == (16 * 1024 * 1024 + 1, b"")
