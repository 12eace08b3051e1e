"""Objects over the wire."""

import asyncio
import gzip
from base64 import b64encode
from hashlib import md5
from urllib.parse import quote

import crcmod
import pytest
from yarl import URL

from docpreview_emulator import Emulator, Settings
from docpreview_emulator.errors import ControlError

from .cloud_client import BUCKET, COS_HOST, REGION, Cloud, Reply

LARGE = bytes(range(256)) * 10_000
FUTURE = "Fri, 01 Jan 2100 00:00:00 GMT"
CHECKS = ("ETag", "x-cos-hash-crc64ecma")
crc64 = crcmod.mkCrcFun(0x142F0E1EBA9EA3693, initCrc=0, xorOut=2**64 - 1, rev=True)


async def test_an_object_comes_back_as_it_went_in_until_it_is_deleted(emulator: Emulator, cloud: Cloud) -> None:
    etag = f'"{md5(LARGE, usedforsecurity=False).hexdigest()}"'
    put = await cloud.send("PUT", "/a b/中+%.bin", host=COS_HOST, headers={"content-type": "x/y"}, body=LARGE)
    assert (put.status, put.headers["ETag"], put.headers["Server"]) == (200, etag, "tencent-cos")
    got = await cloud.fetch("a b/中+%.bin")
    assert (got.body, got.headers["Content-Type"], got.headers["ETag"]) == (LARGE, "x/y", etag)
    head = await cloud.send("HEAD", "/a b/中+%.bin", host=COS_HOST)
    assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(LARGE)), b"")
    assert emulator.get_object(BUCKET, REGION, "a b/中+%.bin") == LARGE
    assert (await cloud.send("DELETE", "/a b/中+%.bin", host=COS_HOST)).status == 204
    assert (await cloud.send("HEAD", "/a b/中+%.bin", host=COS_HOST)).status == 404
    with pytest.raises(ControlError, match="no object"):
        emulator.get_object(BUCKET, REGION, "a b/中+%.bin")


async def test_an_overwritten_object_has_the_newer_bytes(emulator: Emulator, cloud: Cloud) -> None:
    await cloud.put("k", b"old")
    await cloud.put("k", b"new")
    assert (await cloud.fetch("k")).body == b"new"
    assert emulator.get_object(BUCKET, REGION, "k") == b"new"


async def test_an_upload_with_a_wrong_digest_is_not_stored(cloud: Cloud) -> None:
    headers = {"content-md5": b64encode(b"0" * 16).decode()}
    assert (await cloud.send("PUT", "/k", host=COS_HOST, headers=headers, body=b"x")).text("Code") == "BadDigest"
    assert (await cloud.fetch("k")).status == 404


@pytest.mark.parametrize(
    ("asked", "part", "body"),
    [
        ("bytes=2-4", "2-4/10", b"234"),
        ("bytes=0-0", "0-0/10", b"0"),
        ("bytes=7-", "7-9/10", b"789"),
        ("bytes=-2", "8-9/10", b"89"),
        ("bytes=-99", "0-9/10", b"0123456789"),
        ("bytes=8-99", "8-9/10", b"89"),
        ("bytes=8-" + "9" * 30, "8-9/10", b"89"),
        ("Bytes=9-9", "9-9/10", b"9"),
    ],
)
async def test_a_range_request_gets_its_bytes_and_is_told_which_they_are(
    cloud: Cloud, asked: str, part: str, body: bytes
) -> None:
    """Checksum and ETag stay those of the whole object; HEAD gets the same headers."""
    put = await cloud.put("k", b"0123456789")
    reply = await cloud.send("GET", "/k", host=COS_HOST, headers={"range": asked})
    head = await cloud.send("HEAD", "/k", host=COS_HOST, headers={"range": asked})
    assert (reply.status, reply.body, head.body) == (206, body, b"")
    for each in (reply, head):
        assert (each.headers["Content-Range"], each.headers["Content-Length"]) == (f"bytes {part}", str(len(body)))
        assert [each.headers[name] for name in CHECKS] == [put.headers[name] for name in CHECKS]


@pytest.mark.parametrize("asked", ["lines=1-2", "bytes=4-2", "bytes=1-2,4-5", "bytes=-", "bytes=a-b", "2-4", ""])
async def test_what_is_not_one_range_of_bytes_is_ignored(cloud: Cloud, asked: str) -> None:
    await cloud.put("k", b"0123456789")
    reply = await cloud.send("GET", "/k", host=COS_HOST, headers={"range": asked})
    assert (reply.status, reply.body) == (200, b"0123456789")
    assert "Content-Range" not in reply.headers


@pytest.mark.parametrize(
    ("data", "asked"),
    [
        (b"0123456789", "bytes=10-"),
        (b"0", f"bytes={'9' * 30}-"),
        (b"0123456789", "bytes=-0"),
        (b"", "bytes=0-"),
        (b"", "bytes=-1"),
    ],
)
async def test_a_range_without_a_byte_of_the_object_is_416_with_its_size(cloud: Cloud, data: bytes, asked: str) -> None:
    await cloud.put("k", data)
    reply = await cloud.send("GET", "/k", host=COS_HOST, headers={"range": asked})
    assert (reply.status, reply.text("Code")) == (416, "InvalidRange")
    assert reply.headers["Content-Range"] == f"bytes */{len(data)}"


async def test_headers_of_the_put_come_back_and_a_coded_body_as_it_was_sent(cloud: Cloud) -> None:
    """A body that its sender has compressed is stored compressed, with the checksum of these bytes."""
    packed = gzip.compress(b"plain")
    kept = {"content-encoding": "gzip", "cache-control": "no-store", "content-disposition": "inline", "expires": "0"}
    kept |= {"x-cos-meta-colour": "red"}
    put = await cloud.send("PUT", "/k", host=COS_HOST, headers=kept, body=packed)
    assert put.headers["ETag"] == f'"{md5(packed, usedforsecurity=False).hexdigest()}"'
    head = await cloud.send("HEAD", "/k", host=COS_HOST)
    assert {name: head.headers[name] for name in kept} == kept
    assert (head.headers["Content-Length"], head.body) == (str(len(packed)), b"")
    assert (await cloud.fetch("k")).body == b"plain", "aiohttp has unpacked it"


async def test_conditions_on_an_object_are_met_or_refused(cloud: Cloud) -> None:
    etag = (await cloud.put("k", b"data")).headers["ETag"]
    past, future = "Mon, 01 Jan 2001 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
    for headers, status in (
        ({"if-match": etag}, 200),
        ({"if-match": '"other"'}, 412),
        ({"if-none-match": etag}, 304),
        ({"if-none-match": '"other", "another"'}, 200),
        ({"if-modified-since": past}, 200),
        ({"if-modified-since": future}, 304),
        ({"if-unmodified-since": past}, 412),
        ({"if-unmodified-since": future}, 200),
        ({"if-modified-since": "yesterday"}, 200),
    ):
        reply = await cloud.send("GET", "/k", host=COS_HOST, headers=headers)
        assert (reply.status, reply.body == b"data") == (status, status == 200), headers
    assert (await cloud.send("GET", "/k", host=COS_HOST, headers={"if-match": "x"})).text("Code") == (
        "PreconditionFailed"
    )


@pytest.mark.parametrize("path", ["/missing", "/"])
async def test_an_error_of_a_head_has_no_body(path: str) -> None:
    """Not a byte comes after its headers; the same GET has the cloud's XML."""
    async with Emulator(settings=Settings(strict=path == "/")) as emulator, Cloud(emulator.url) as cloud:
        host = COS_HOST if path == "/missing" else f"absent-1250000000.cos.{REGION}.myqcloud.com"
        if path == "/missing":
            emulator.put_object(BUCKET, REGION, "k", b"")
        assert (await cloud.send("GET", path, host=host)).xml.tag == "Error"
        signed = cloud.signer.sign("HEAD", path, {}, {"host": host})
        line = "&".join(f"{name}={value}" for name, value in signed.items())
        answer = await bytes_of(cloud, f"HEAD {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {line}\r\n")
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert rest == b""


async def test_a_copy_has_the_bytes_type_and_metadata_of_its_source(emulator: Emulator, cloud: Cloud) -> None:
    """Also of another bucket in another region; the source's key is URL-encoded."""
    other = "other-1250000000.cos.ap-guangzhou.myqcloud.com"
    headers = {"content-type": "x/y", "x-cos-meta-colour": "red"}
    put = await cloud.send("PUT", "/a b/中+%.bin", host=other, headers=headers, body=LARGE)
    copied = await copy(cloud, f"{other}/{quote('a b/中+%.bin')}", "x-cos-meta-colour", "blue")
    assert (copied.status, copied.xml.tag, copied.text("ETag")) == (200, "CopyObjectResult", put.headers["ETag"])
    assert copied.text("CRC64") == copied.headers["x-cos-hash-crc64ecma"] == put.headers["x-cos-hash-crc64ecma"]
    assert copied.text("LastModified").endswith("Z")
    head = await cloud.send("HEAD", "/copy", host=COS_HOST)
    assert (head.headers["Content-Type"], head.headers["x-cos-meta-colour"]) == ("x/y", "red")
    assert emulator.get_object(BUCKET, REGION, "copy") == LARGE


async def test_a_copy_replaces_metadata_where_it_says_so_also_of_itself(cloud: Cloud) -> None:
    await cloud.send("PUT", "/copy", host=COS_HOST, headers={"content-type": "x/y"}, body=b"data")
    same = await copy(cloud, f"{COS_HOST}/copy")
    assert (same.status, same.text("Code")) == (400, "InvalidRequest")
    replaced = {"x-cos-metadata-directive": "Replaced", "content-type": "z/z", "x-cos-meta-colour": "blue"}
    headers = {"x-cos-copy-source": f"{COS_HOST}/copy", **replaced}
    assert (await cloud.send("PUT", "/copy", host=COS_HOST, headers=headers)).status == 200
    got = await cloud.fetch("copy")
    assert (got.body, got.headers["Content-Type"], got.headers["x-cos-meta-colour"]) == (b"data", "z/z", "blue")


@pytest.mark.parametrize(
    ("source", "name", "value", "refusal"),
    [
        (f"{COS_HOST}/missing", "x-cos-meta-a", "b", (404, "NoSuchKey")),
        ("/k", "x-cos-meta-a", "b", (400, "InvalidArgument")),
        (f"{BUCKET}.ci.{REGION}.myqcloud.com/k", "x-cos-meta-a", "b", (400, "InvalidArgument")),
        (f"{COS_HOST}/k", "x-cos-metadata-directive", "Merged", (400, "InvalidArgument")),
        (f"{COS_HOST}/k?versionId=7", "x-cos-meta-a", "b", (501, "NotImplemented")),
        (f"{COS_HOST}/k", "x-cos-copy-source-if-match", '"other"', (412, "PreconditionFailed")),
        (f"{COS_HOST}/k", "x-cos-copy-source-if-modified-since", FUTURE, (412, "PreconditionFailed")),
        (f"{COS_HOST}/k", "x-cos-forbid-overwrite", "true", (409, "FileAlreadyExists")),
    ],
)
async def test_a_copy_that_cannot_be_is_refused_and_changes_nothing(
    cloud: Cloud, source: str, name: str, value: str, refusal: tuple[int, str]
) -> None:
    await cloud.put("k", b"new")
    await cloud.put("copy", b"old")
    reply = await copy(cloud, source, name, value)
    assert (reply.status, reply.text("Code")) == refusal
    assert (await cloud.fetch("copy")).body == b"old"


async def copy(cloud: Cloud, source: str, name: str = "x-cos-meta-a", value: str = "b") -> Reply:
    """Copy a source to the key `copy`, with one header more."""
    headers = {"x-cos-copy-source": source, name: value}
    return await cloud.send("PUT", "/copy", host=COS_HOST, headers=headers)


async def test_every_answer_about_a_stored_object_has_its_checksum(emulator: Emulator, cloud: Cloud) -> None:
    """Whatever brought it: a put, a copy, a test, a job."""
    made = await emulator.wait_for_job(await cloud.job_id("seven.pdf", "page/${Number}", EndPage=1))
    assert made.state == "Success"
    replies = [await cloud.put("k", b"data"), await copy(cloud, f"{COS_HOST}/k")]
    for key in ("k", "copy", "seven.pdf", "page/1"):
        replies += [await cloud.send(method, f"/{key}", host=COS_HOST) for method in ("GET", "HEAD")]
    for reply in replies:
        assert reply.headers["x-cos-hash-crc64ecma"].isdigit(), reply
    page = await cloud.fetch("page/1")
    assert page.headers["x-cos-hash-crc64ecma"] == str(crc64(page.body))


async def test_an_empty_version_is_the_object_and_others_are_refused(cloud: Cloud) -> None:
    """Some SDKs send the parameter with every request."""
    await cloud.put("k", b"data")
    for method in ("GET", "HEAD", "DELETE"):
        assert (await cloud.send(method, "/k", host=COS_HOST, params={"versionId": ""})).status in {200, 204}
    assert (await cloud.send("GET", "/k", host=COS_HOST, params={"versionId": "7"})).text("Code") == "NotImplemented"


async def test_keys_have_at_most_850_bytes_of_utf_8(cloud: Cloud) -> None:
    assert (await cloud.put("中" * 283, b"")).status == 200
    assert (await cloud.put("中" * 284, b"")).text("Code") == "KeyTooLong"
    signed = cloud.signer.sign("GET", "/\udcff", {}, {"host": COS_HOST})
    line = "&".join(f"{name}={value}" for name, value in signed.items())
    answer = await bytes_of(cloud, f"GET /%FF HTTP/1.1\r\nHost: {COS_HOST}\r\nAuthorization: {line}\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"<Code>InvalidURI</Code>" in answer


async def bytes_of(cloud: Cloud, head: str) -> bytes:
    """All that comes back for a request without a body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(cloud.url).port)
    writer.write(f"{head}Connection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer


async def test_sub_resources_and_other_methods_are_refused_with_their_names(cloud: Cloud) -> None:
    """They are not faked."""
    for path in ("/k", "/"):
        reply = await cloud.send("GET", path, host=COS_HOST, params={"acl": ""})
        assert (reply.status, reply.text("Code")) == (501, "NotImplemented")
        assert reply.text("Message").endswith(": acl.")
        assert (await cloud.send("POST", path, host=COS_HOST, body=b"")).text("Code") == "MethodNotAllowed"
    assert (await cloud.send("PUT", "/", host=f"cos.{REGION}.myqcloud.com")).text("Code") == "NotImplemented"


async def test_a_large_object_is_read_while_others_are_served_and_though_it_is_replaced(cloud: Cloud) -> None:
    """Each read has the bytes of one object, whole."""
    old, new = b"o" * 20_000_000, b"n" * 20_000_000
    await cloud.put("k", old)
    reads = [asyncio.create_task(cloud.fetch("k")) for _ in range(4)]
    await cloud.put("k", new)
    bodies = {reply.body for reply in await asyncio.gather(*reads)}
    assert bodies <= {old, new}
    assert (await cloud.fetch("k")).body == new


async def test_a_header_that_nobody_may_send_is_refused_where_it_is_asked_for(cloud: Cloud) -> None:
    await cloud.put("a.pdf", b"%PDF")
    for value in ("a\r\nX-Evil: 1", "a\x00"):
        reply = await cloud.send("GET", "/a.pdf", host=COS_HOST, params={"response-content-disposition": value})
        assert (reply.status, reply.text("Code")) == (400, "InvalidArgument")
        assert "response-content-disposition" in (reply.text("Message") or "")
