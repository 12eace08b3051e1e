"""Objects over the wire."""

from base64 import b64encode
from hashlib import md5

import pytest

from docpreview_emulator import Emulator
from docpreview_emulator.errors import ControlError

from .cloud_client import BUCKET, COS_HOST, REGION, Cloud

LARGE = bytes(range(256)) * 10_000


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
    ("asked", "status", "body"),
    [
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-2", 206, b"89"),
        ("bytes=8-99", 206, b"89"),
        ("lines=1-2", 200, b"0123456789"),
    ],
)
async def test_a_range_request_gets_one_range_and_other_units_are_ignored(
    cloud: Cloud, asked: str, status: int, body: bytes
) -> None:
    await cloud.put("k", b"0123456789")
    reply = await cloud.send("GET", "/k", host=COS_HOST, headers={"range": asked})
    assert (reply.status, reply.body) == (status, body)


async def test_a_range_beyond_the_end_is_416(cloud: Cloud) -> None:
    await cloud.put("k", b"0123456789")
    assert (await cloud.send("GET", "/k", host=COS_HOST, headers={"range": "bytes=10-"})).status == 416


async def test_lists_copies_and_sub_resources_are_refused_as_not_implemented(cloud: Cloud) -> None:
    """They are not faked."""
    assert (await cloud.send("GET", "/", host=COS_HOST)).status == 501
    assert (await cloud.send("GET", "/k", host=COS_HOST, params={"acl": ""})).text("Code") == "NotImplemented"
    assert (await cloud.send("PUT", "/k", host=COS_HOST, headers={"x-cos-copy-source": "b/k"})).status == 501
    assert (await cloud.send("POST", "/k", host=COS_HOST, body=b"")).status == 405
