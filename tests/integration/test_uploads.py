"""Uploads from callers without cloud keys, through the gateway's addresses to the emulator, over real sockets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import crcmod
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from tests.integration.conftest import BUCKET, OTHER_BUCKET, REGION
from tests.integration.identity import Policy
from tests.integration.uploading import Uploading, md5, reason_of, uploading

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DATA = b"%PDF-1.4 a small document"
MIB = 1024 * 1024
PART = 16 * MIB
crc64 = crcmod.mkCrcFun(0x142F0E1EBA9EA3693, initCrc=0, xorOut=2**64 - 1, rev=True)


@pytest.fixture
async def world() -> AsyncIterator[Uploading]:
    async with uploading() as made:
        yield made


@pytest.fixture
async def policy(tmp_path: Path) -> Policy:
    made = Policy(tmp_path / "policy.yaml")
    rule = {"bucket": BUCKET, "prefixes": ["in/shop/"], "max_bytes": 100, "types": ["application/pdf"]}
    made.add("shop", uploads=[rule])
    made.add("admin", uploads=[{"bucket": BUCKET, "prefixes": [""], "overwrite": True}])
    made.add("reader")
    made.write()
    return made


async def refused(call: object) -> tuple[str, str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return reason_of(caught.value)


async def test_a_content_of_one_part_becomes_the_announced_object(world: Uploading) -> None:
    """Its key has the id of the upload, its type is that of its suffix, and both stages are counted."""
    upload = await world.begin(DATA, content_md5=md5(DATA))
    (part,) = upload.parts
    assert (part.offset, part.length, part.headers["content-type"]) == (0, len(DATA), "application/pdf")
    etags = await world.put_all(upload, DATA)
    made = await world.complete(upload, etags)
    assert world.emulator.get_object(BUCKET, REGION, upload.object) == DATA
    assert (made.bucket, made.object, made.content_length, made.etag) == (BUCKET, upload.object, len(DATA), etags[0])
    assert made.HasField("content_crc64")
    assert (world.counted("announced"), world.counted("completed")) == (len(DATA), len(DATA))
    assert CreatePreviewJobRequest(input_object=made.object).input_object.startswith("in/")


async def test_a_completion_can_be_repeated_and_an_abort_leaves_the_object(world: Uploading) -> None:
    """For one part and for several."""
    for size in (10, PART + 1):
        data = os.urandom(size)
        upload = await world.begin(data)
        etags = await world.put_all(upload, data)
        first = await world.complete(upload, etags)
        assert await world.complete(upload, etags) == first
        await world.abort(upload)
        assert world.emulator.get_object(BUCKET, REGION, upload.object) == data


async def test_a_content_of_40_mib_goes_in_three_parts(world: Uploading) -> None:
    """16, 16 and 8 MiB. Its CRC-64 is compared, and any order of the parts is good."""
    data = os.urandom(40 * MIB)
    upload = await world.begin(data, content_crc64=crc64(data))
    assert [(part.offset, part.length) for part in upload.parts] == [(0, PART), (PART, PART), (2 * PART, 8 * MIB)]
    etags = ["", "", ""]
    for index in (2, 0, 1):
        part = upload.parts[index]
        status, etags[index] = await world.put(part, data[part.offset : part.offset + part.length])
        assert status == 200
    assert (await world.complete(upload, etags)).content_crc64 == crc64(data)
    assert world.emulator.get_object(BUCKET, REGION, upload.object) == data


@pytest.mark.parametrize("size", [10, PART + 1])
async def test_a_content_with_another_checksum_than_announced_is_incomplete(world: Uploading, size: int) -> None:
    """The cloud computes it of what it got."""
    data = os.urandom(size)
    upload = await world.begin(data, content_crc64=crc64(data) ^ 1)
    code, reason, told = await refused(world.complete(upload, await world.put_all(upload, data)))
    assert (code, reason) == ("FAILED_PRECONDITION", "UPLOAD_INCOMPLETE")
    assert "CRC-64" in told


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("content_type", "text/html"),
        ("content_type", None),
        ("host", f"{OTHER_BUCKET}.cos.{REGION}.myqcloud.com"),
        ("x_cos_forbid_overwrite", "false"),
        ("x_cos_forbid_overwrite", None),
        ("x_cos_meta_docpreview_upload", "0" * 32),
        ("content_md5", None),
    ],
)
async def test_a_put_with_another_header_is_refused_by_the_cloud(
    world: Uploading, header: str, value: str | None
) -> None:
    """All headers of the part are signed. Through the emulator's own address the host is in the path."""
    upload = await world.begin(DATA, "in/a.pdf", content_md5=md5(DATA))
    (part,) = upload.parts
    if header == "host":
        part.url = part.url.replace(part.headers["host"], str(value))
    assert await world.put(part, DATA, **{header: value}) == (403, "SignatureDoesNotMatch")
    assert (await refused(world.complete(upload, ['"etag"'])))[1] == "UPLOAD_INCOMPLETE"


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"x", b""])
async def test_a_put_of_another_length_is_refused_by_the_cloud(world: Uploading, data: bytes) -> None:
    """Shorter, longer and empty."""
    upload = await world.begin(DATA)
    assert await world.put(upload.parts[0], data, content_length=str(len(data))) == (403, "SignatureDoesNotMatch")


async def test_a_put_of_another_content_is_refused_by_its_md5(world: Uploading) -> None:
    """The length alone would let it pass."""
    upload = await world.begin(DATA, content_md5=md5(DATA))
    assert await world.put(upload.parts[0], DATA[::-1]) == (400, "BadDigest")


async def test_an_expired_address_is_refused_by_the_cloud(world: Uploading) -> None:
    """Of a second, and of 15 minutes, the default."""
    short = await world.begin(DATA, ttl=Duration(seconds=1))
    usual = await world.begin(DATA)
    assert 890 <= usual.expire_time.seconds - short.expire_time.seconds <= 900
    world.emulator.clock.offset_seconds = 3
    assert await world.put(short.parts[0], DATA) == (403, "AccessDenied")
    assert (await world.put(usual.parts[0], DATA))[0] == 200


async def test_the_address_of_a_part_brings_no_other_part_and_no_other_upload(world: Uploading) -> None:
    """Number and upload are signed with the length."""
    data = os.urandom(2 * PART)
    upload, other = await world.begin(data), await world.begin(data)
    part = upload.parts[0]
    part.url = part.url.replace("partNumber=1", "partNumber=2")
    assert await world.put(part, data[:PART]) == (403, "SignatureDoesNotMatch")
    ids = [url.partition("uploadId=")[2].partition("&")[0] for url in (upload.parts[1].url, other.parts[1].url)]
    upload.parts[1].url = upload.parts[1].url.replace(ids[0], ids[1])
    assert (await world.put(upload.parts[1], data[PART:]))[0] == 403
    short = await world.put(other.parts[1], data[:10], content_length="10")
    assert short == (403, "SignatureDoesNotMatch")


async def test_an_upload_whose_parts_are_not_all_there_is_incomplete(world: Uploading) -> None:
    """A missing part, and the ETags in another order. It can be completed later."""
    data = os.urandom(PART + 10)
    upload = await world.begin(data)
    first, second = upload.parts
    _, etag = await world.put(first, data[:PART])
    code, reason, told = await refused(world.complete(upload, [etag, '"0"']))
    assert (code, reason) == ("FAILED_PRECONDITION", "UPLOAD_INCOMPLETE")
    assert "InvalidPart" in told
    _, last = await world.put(second, data[PART:])
    assert (await refused(world.complete(upload, [last, etag])))[1] == "UPLOAD_INCOMPLETE"
    assert "etags must have 2 items" in (await refused(world.complete(upload, [etag])))[2]
    assert (await world.complete(upload, [etag, last])).content_length == len(data)


async def test_an_aborted_upload_is_gone_and_a_second_abort_is_no_error(world: Uploading) -> None:
    """Its parts are deleted in the cloud."""
    data = os.urandom(PART + 10)
    upload = await world.begin(data)
    etags = await world.put_all(upload, data)
    await world.abort(upload)
    await world.abort(upload)
    assert (await refused(world.complete(upload, etags)))[:2] == ("NOT_FOUND", "UPLOAD_NOT_FOUND")
    assert await world.put(upload.parts[0], data[:PART]) == (404, "NoSuchUpload")


async def test_an_object_that_exists_is_not_replaced(world: Uploading) -> None:
    """Not by one part, nor when a multipart upload begins, nor when it ends."""
    world.emulator.put_object(BUCKET, REGION, "in/fixed.pdf", b"theirs")
    upload = await world.begin(b"mine!!", "in/fixed.pdf")
    assert await world.put(upload.parts[0], b"mine!!") == (409, "FileAlreadyExists")
    _, reason, told = await refused(world.complete(upload, [f'"{md5(b"mine!!").hex()}"']))
    assert reason == "OBJECT_EXISTS"
    assert "an object of this key exists already" in told
    data = os.urandom(PART + 1)
    code, reason, told = await refused(world.begin(data, "in/fixed.pdf"))
    assert (code, reason) == ("ALREADY_EXISTS", "OBJECT_EXISTS")
    assert "${UploadId}" in told
    late = await world.begin(data, "in/late.pdf")
    etags = await world.put_all(late, data)
    world.emulator.put_object(BUCKET, REGION, "in/late.pdf", b"theirs")
    assert (await refused(world.complete(late, etags)))[1] == "OBJECT_EXISTS"
    assert world.emulator.get_object(BUCKET, REGION, "in/late.pdf") == b"theirs"


async def test_a_completion_whose_reply_was_lost_is_found_out(world: Uploading) -> None:
    """The upload is gone, and the object says which upload made it."""
    data = os.urandom(PART + 1)
    upload = await world.begin(data)
    etags = await world.put_all(upload, data)
    world.emulator.add_fault("drop_after", "object")
    code, reason, _ = await refused(world.complete(upload, etags))
    assert (code, reason) == ("UNAVAILABLE", "UPSTREAM_UNAVAILABLE")
    assert (await world.complete(upload, etags)).content_length == len(data)


async def test_the_policy_decides_on_bucket_prefix_size_and_type(policy: Policy) -> None:
    """Each refusal names its rule, and nothing is sent."""
    async with uploading(policy={"file": str(policy.path)}) as world:
        world.token = policy.tokens["shop"]
        for key, data, more, rule in (
            ("in/bank/a.pdf", DATA, {}, "prefixes"),
            ("in/shop/../bank/a.pdf", DATA, {}, "prefixes"),
            ("in/shop/a.pdf", b"x" * 101, {}, "max_bytes"),
            ("in/shop/a.pptx", DATA, {}, "types"),
            ("in/shop/a.pdf", DATA, {"content_type": "text/html"}, "types"),
        ):
            code, reason, told = await refused(world.begin(data, key, **more))
            if ".." in key:
                assert reason == "INVALID_REQUEST"
                continue
            assert (code, reason) == ("PERMISSION_DENIED", "NOT_PERMITTED")
            assert f"callers.shop.uploads[{BUCKET}].{rule}" in told
        world.token = policy.tokens["reader"]
        code, reason, told = await refused(world.begin(DATA))
        assert (code, reason) == ("PERMISSION_DENIED", "NOT_PERMITTED")
        assert "callers.reader.uploads does not name" in told
        assert not world.emulator.requests
        world.token = policy.tokens["shop"]
        upload = await world.begin(DATA, "in/shop/${UploadId}.pdf")
        assert (await world.complete(upload, await world.put_all(upload, DATA))).content_length == len(DATA)
        assert world.counted("completed", "shop") == len(DATA)


async def test_a_token_is_worth_nothing_to_another_caller_or_changed(policy: Policy) -> None:
    """The answer is that for any text."""
    async with uploading(policy={"file": str(policy.path)}) as world:
        world.token = policy.tokens["shop"]
        upload = await world.begin(DATA, "in/shop/${UploadId}.pdf")
        etags = await world.put_all(upload, DATA)
        world.token = policy.tokens["admin"]
        told = {await refused(world.complete(upload, etags)), await refused(world.abort(upload))}
        upload.upload_token = upload.upload_token[:-1] + ("A" if upload.upload_token[-1] != "A" else "B")
        world.token = policy.tokens["shop"]
        told.add(await refused(world.complete(upload, etags)))
        upload.upload_token = "nothing"
        told.add(await refused(world.complete(upload, etags)))
        ((code, reason, words),) = told
        assert (code, reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
        assert "is not a token of an upload that you began" in words


async def test_only_a_caller_that_may_overwrite_replaces_an_object(policy: Policy) -> None:
    """With `overwrite: true` in the policy the header is not signed."""
    async with uploading(policy={"file": str(policy.path)}) as world:
        world.token = policy.tokens["admin"]
        for data in (b"old", b"new", os.urandom(PART + 1)):
            upload = await world.begin(data, "in/fixed.pdf")
            assert "x-cos-forbid-overwrite" not in upload.parts[0].headers
            await world.complete(upload, await world.put_all(upload, data))
            assert world.emulator.get_object(BUCKET, REGION, "in/fixed.pdf") == data


async def test_an_object_of_the_same_content_completes_an_upload_whoever_has_put_it(world: Uploading) -> None:
    """So the same content can be brought to the same key again and again."""
    world.emulator.put_object(BUCKET, REGION, "in/fixed.pdf", DATA)
    upload = await world.begin(DATA, "in/fixed.pdf")
    assert await world.put(upload.parts[0], DATA) == (409, "FileAlreadyExists")
    made = await world.complete(upload, [f'"{md5(DATA).hex()}"'])
    assert (made.object, made.content_length) == ("in/fixed.pdf", len(DATA))


async def test_an_upload_is_not_completed_by_an_older_object_of_its_length(policy: Policy) -> None:
    """A caller that may overwrite has put nothing yet."""
    async with uploading(policy={"file": str(policy.path)}) as world:
        world.token = policy.tokens["admin"]
        world.emulator.put_object(BUCKET, REGION, "in/fixed.pdf", DATA[::-1])
        upload = await world.begin(DATA, "in/fixed.pdf")
        assert (await refused(world.complete(upload, [f'"{md5(DATA).hex()}"'])))[1] == "UPLOAD_INCOMPLETE"


async def test_addresses_may_be_signed_by_a_key_of_their_own() -> None:
    """The gateway's own calls are signed by the other."""
    credentials = {
        "main": {"secret_id": "example-secret-id", "secret_key": "EXAMPLEsecretKEY00000000000000000"},
        "writer": {"secret_id": "writer-id", "secret_key": "writer-key"},
    }
    bucket = {"name": BUCKET, "region": REGION, "credentials": "main", "upload_credentials": "writer"}
    async with uploading(buckets=[bucket], credentials=credentials) as world:
        upload = await world.begin(os.urandom(PART + 1))
        assert {part.url.partition("q-ak=")[2].partition("&")[0] for part in upload.parts} == {"writer-id"}
        (begun,) = world.emulator.requests
        assert (begun.method, begun.status) == ("POST", 200)


async def test_an_upload_is_audited_without_its_address_key_or_token(
    world: Uploading, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Each call has a line, also one that fails."""
    upload = await world.begin(DATA, "in/confidential-${UploadId}.pdf")
    await refused(world.complete(upload, ['"x"']))
    await world.complete(upload, await world.put_all(upload, DATA))
    await world.abort(upload)
    log = capfdbinary.readouterr().err
    assert log.count(b'"event":"upload"') == 4
    assert log.count(b'"outcome":"UPLOAD_INCOMPLETE"') == 1
    for secret in (upload.upload_token, upload.object, "confidential", "q-signature", upload.parts[0].url):
        assert secret.encode() not in log


async def test_a_put_whose_reply_was_lost_can_be_repeated(world: Uploading) -> None:
    """The library of the test does it by itself. Under a fixed key it is refused, and the MD5 completes the upload."""
    for key, status in (("in/${UploadId}.pdf", 200), ("in/fixed.pdf", 409)):
        upload = await world.begin(DATA, key, content_md5=md5(DATA))
        world.emulator.add_fault("drop_after", "object")
        assert (await world.put(upload.parts[0], DATA))[0] == status
        assert (await world.complete(upload, [f'"{md5(DATA).hex()}"'])).content_length == len(DATA)


async def test_uploads_are_limited_by_the_rates_of_their_caller(policy: Policy) -> None:
    """As every method is."""
    policy.callers["shop"]["method_rates"] = {"CreateUpload": {"per_second": 0.01, "burst": 1}}
    policy.write()
    async with uploading(policy={"file": str(policy.path)}) as world:
        world.token = policy.tokens["shop"]
        await world.begin(DATA, "in/shop/${UploadId}.pdf")
        code, reason, _ = await refused(world.begin(DATA, "in/shop/${UploadId}.pdf"))
        assert (code, reason) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")


async def test_a_reply_to_head_that_tells_nothing_of_the_object_is_no_refusal(world: Uploading) -> None:
    """As of something on the way: it was taken for an object of another upload, which is never repeated."""
    upload = await world.begin(DATA, "in/fixed.pdf")
    etags = await world.put_all(upload, DATA)
    world.emulator.add_fault("garbage", "object")
    assert (await refused(world.complete(upload, etags)))[1] == "UPSTREAM_BAD_RESPONSE"
    assert (await world.complete(upload, etags)).content_length == len(DATA)


@pytest.mark.parametrize("size", [10, PART + 1])
async def test_an_upload_whose_object_was_replaced_since_is_told_so(policy: Policy, size: int) -> None:
    """It was told that nothing had been put, or that it had been aborted."""
    async with uploading(policy={"file": str(policy.path)}) as world:
        world.token = policy.tokens["admin"]
        data = os.urandom(size)
        upload = await world.begin(data, "in/fixed.pdf")
        etags = await world.put_all(upload, data)
        if size > PART:
            await world.complete(upload, etags)
        later = await world.begin(DATA, "in/fixed.pdf")
        await world.put_all(later, DATA)
        _, reason, told = await refused(world.complete(upload, etags))
        assert reason == ("UPLOAD_NOT_FOUND" if size > PART else "UPLOAD_INCOMPLETE")
        assert "replaced" in told
