"""Multipart uploads over the wire, and what an object keeps of the request that brought it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import crcmod
import pytest

from docpreview_emulator import Emulator

from .cloud_client import BUCKET, COS_HOST, REGION, Cloud, Reply
from .conftest import QUICK

MIB = 1024 * 1024
LARGE, SMALL = bytes(range(256)) * 4096, b"the end"
crc64 = crcmod.mkCrcFun(0x142F0E1EBA9EA3693, initCrc=0, xorOut=2**64 - 1, rev=True)


async def begin(cloud: Cloud, key: str = "k", **headers: str) -> str:
    reply = await cloud.send("POST", f"/{key}", host=COS_HOST, params={"uploads": ""}, headers=headers, body=b"")
    assert (reply.status, reply.xml.tag) == (200, "InitiateMultipartUploadResult"), reply.body
    assert (reply.text("Bucket"), reply.text("Key")) == (BUCKET, key)
    return reply.text("UploadId")


async def put(cloud: Cloud, upload: str, number: int, data: bytes) -> Reply:
    params = {"partNumber": str(number), "uploadId": upload}
    return await cloud.send("PUT", "/k", host=COS_HOST, params=params, body=data)


async def complete(cloud: Cloud, upload: str, parts: Sequence[tuple[int, str]], **headers: str) -> Reply:
    listed = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in parts)
    body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
    sent = {"content-type": "application/xml", **headers}
    return await cloud.send("POST", "/k", host=COS_HOST, params={"uploadId": upload}, headers=sent, body=body)


async def test_parts_become_one_object_in_the_order_of_their_numbers(emulator: Emulator, cloud: Cloud) -> None:
    """Type and metadata are those of the begin. A part that is put again is replaced."""
    upload = await begin(cloud, **{"content-type": "x/y", "x-cos-meta-docpreview-upload": "0f"})
    await put(cloud, upload, 1, b"replaced")
    second = await put(cloud, upload, 2, SMALL)
    first = await put(cloud, upload, 1, LARGE)
    assert second.headers["x-cos-hash-crc64ecma"] == str(crc64(SMALL))
    listed = await cloud.send("GET", "/k", host=COS_HOST, params={"uploadId": upload})
    assert listed.texts("Part/Size") == [str(len(LARGE)), str(len(SMALL))]
    assert listed.texts("Part/ETag") == [first.headers["ETag"], second.headers["ETag"]]
    params = {"uploadId": upload, "max-parts": "1", "part-number-marker": "1"}
    paged = await cloud.send("GET", "/k", host=COS_HOST, params=params)
    assert (paged.texts("Part/PartNumber"), paged.text("IsTruncated")) == (["2"], "false")
    made = await complete(cloud, upload, [(1, first.headers["ETag"]), (2, second.headers["ETag"].strip('"'))])
    assert (made.status, made.xml.tag, made.text("Key")) == (200, "CompleteMultipartUploadResult", "k")
    assert made.text("ETag").endswith('-2"')
    assert emulator.get_object(BUCKET, REGION, "k") == LARGE + SMALL
    head = await cloud.send("HEAD", "/k", host=COS_HOST)
    assert head.headers["ETag"] == made.text("ETag")
    assert head.headers["x-cos-hash-crc64ecma"] == str(crc64(LARGE + SMALL))
    assert (head.headers["Content-Type"], head.headers["x-cos-meta-docpreview-upload"]) == ("x/y", "0f")
    gone = await complete(cloud, upload, [(1, first.headers["ETag"])])
    assert (gone.status, gone.text("Code")) == (404, "NoSuchUpload")


@pytest.mark.parametrize(
    ("numbers", "sizes", "code"),
    [
        ((2, 1), (MIB, MIB), "InvalidPartOrder"),
        ((1, 1), (MIB, MIB), "InvalidPartOrder"),
        ((1, 3), (MIB, MIB), "InvalidPart"),
        ((2, 3), (MIB, MIB), "InvalidPart"),
        ((1, 2), (MIB - 1, MIB), "EntityTooSmall"),
        ((), (), "InvalidPart"),
    ],
)
async def test_a_completion_that_breaks_the_clouds_rules_is_refused(
    cloud: Cloud, numbers: tuple[int, ...], sizes: tuple[int, ...], code: str
) -> None:
    """Parts in ascending order from 1 without gaps, of at least 1 MiB but the last."""
    upload = await begin(cloud)
    etags = [
        (number, (await put(cloud, upload, number, bytes(size))).headers["ETag"])
        for number, size in zip(numbers, sizes, strict=True)
    ]
    refused = await complete(cloud, upload, etags)
    assert (refused.status, refused.text("Code")) == (400, code)


async def test_of_completions_at_a_time_one_makes_the_object(emulator: Emulator, cloud: Cloud, tmp_path: Path) -> None:
    """The others are told that there is no such upload any more, and leave no files."""
    upload = await begin(cloud)
    parts = [(number, (await put(cloud, upload, number, LARGE * 4)).headers["ETag"]) for number in (1, 2, 3)]
    replies = await asyncio.gather(*(complete(cloud, upload, parts) for _ in range(8)))
    assert sorted(reply.status for reply in replies) == [200, *[404] * 7]
    assert {reply.text("Code") for reply in replies if reply.status != 200} == {"NoSuchUpload"}
    assert emulator.get_object(BUCKET, REGION, "k") == LARGE * 12
    assert len(list((tmp_path / "data" / "objects").iterdir())) == 2, "the object and seven.pdf"


async def test_a_completion_of_an_upload_that_is_aborted_meanwhile_finds_none(cloud: Cloud) -> None:
    """Whichever is first, and never with an error of the emulator."""
    for _ in range(5):
        upload = await begin(cloud)
        etag = (await put(cloud, upload, 1, LARGE * 4)).headers["ETag"]
        completed, aborted = await asyncio.gather(
            complete(cloud, upload, [(1, etag)]),
            cloud.send("DELETE", "/k", host=COS_HOST, params={"uploadId": upload}),
        )
        assert (completed.status, aborted.status) in {(200, 404), (404, 204)}


async def test_a_part_that_was_not_put_or_has_another_etag_is_invalid(cloud: Cloud) -> None:
    """InvalidPart."""
    upload = await begin(cloud)
    etag = (await put(cloud, upload, 1, LARGE)).headers["ETag"]
    for parts in ([(1, '"0"')], [(1, etag), (2, etag)]):
        assert (await complete(cloud, upload, parts)).text("Code") == "InvalidPart"


async def test_an_aborted_upload_is_gone_with_its_files(cloud: Cloud, tmp_path: Path) -> None:
    """Its id is known no more."""
    upload = await begin(cloud)
    await put(cloud, upload, 1, LARGE)
    aborted = await cloud.send("DELETE", "/k", host=COS_HOST, params={"uploadId": upload})
    assert aborted.status == 204
    assert (await put(cloud, upload, 1, LARGE)).text("Code") == "NoSuchUpload"
    assert (await cloud.send("DELETE", "/k", host=COS_HOST, params={"uploadId": upload})).status == 404
    sizes = [path.stat().st_size for path in (tmp_path / "data" / "objects").iterdir()]
    assert len(LARGE) not in sizes


async def test_an_upload_belongs_to_its_key_and_part_numbers_have_bounds(cloud: Cloud) -> None:
    """1 to 10000."""
    upload = await begin(cloud, "other")
    assert (await put(cloud, upload, 1, LARGE)).text("Code") == "NoSuchUpload"
    upload = await begin(cloud)
    for number in (0, 10_001):
        assert (await put(cloud, upload, number, SMALL)).text("Code") == "InvalidArgument"


async def test_an_object_is_not_overwritten_where_the_request_forbids_it(emulator: Emulator, cloud: Cloud) -> None:
    """By a put, when an upload begins and when it ends."""
    forbid = {"x-cos-forbid-overwrite": "true"}
    upload = await begin(cloud, **forbid)
    etag = (await put(cloud, upload, 1, LARGE)).headers["ETag"]
    assert (await cloud.send("PUT", "/k", host=COS_HOST, headers=forbid, body=b"old")).status == 200
    for refused in (
        await cloud.send("PUT", "/k", host=COS_HOST, headers=forbid, body=b"new"),
        await cloud.send("POST", "/k", host=COS_HOST, params={"uploads": ""}, headers=forbid, body=b""),
        await complete(cloud, upload, [(1, etag)], **forbid),
    ):
        assert (refused.status, refused.text("Code")) == (409, "FileAlreadyExists")
    assert emulator.get_object(BUCKET, REGION, "k") == b"old"
    assert (await complete(cloud, upload, [(1, etag)])).status == 200


async def test_an_upload_survives_a_restart(tmp_path: Path) -> None:
    """As objects do."""
    async with Emulator(tmp_path, settings=QUICK) as emulator, Cloud(emulator.url) as cloud:
        upload = await begin(cloud)
        etag = (await put(cloud, upload, 1, LARGE)).headers["ETag"]
    async with Emulator(tmp_path, settings=QUICK) as emulator, Cloud(emulator.url) as cloud:
        assert (await complete(cloud, upload, [(1, etag)])).status == 200
        assert emulator.get_object(BUCKET, REGION, "k") == LARGE


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 1_000_001])
async def test_the_checksum_of_an_object_is_the_clouds(cloud: Cloud, size: int) -> None:
    """CRC-64/ECMA-182, as the vendor's SDKs compute it."""
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    put = await cloud.put("k", data)
    head = await cloud.send("HEAD", "/k", host=COS_HOST)
    assert put.headers["x-cos-hash-crc64ecma"] == head.headers["x-cos-hash-crc64ecma"] == str(crc64(data))


async def test_a_test_sees_the_uploads_that_have_not_ended_and_the_objects_as_they_are_stored(
    emulator: Emulator, cloud: Cloud
) -> None:
    """With the parts that were put; an object in its place is seen once, whatever brought it."""
    seen: list[tuple[str, int]] = []
    emulator.on_put.append(lambda stored: seen.append((stored.key, stored.size)))
    upload, other = await begin(cloud), await begin(cloud)
    etag = (await put(cloud, upload, 1, SMALL)).headers["ETag"]
    assert [(found.upload_id, len(parts)) for found, parts in emulator.multiparts] == [(upload, 1), (other, 0)]
    assert seen == []
    await complete(cloud, upload, [(1, etag)])
    assert [found.upload_id for found, _ in emulator.multiparts] == [other]
    emulator.put_object(BUCKET, REGION, "l", LARGE)
    assert seen == [("k", len(SMALL)), ("l", len(LARGE))]


async def test_a_part_is_copied_from_an_object_or_from_a_range_of_it(emulator: Emulator, cloud: Cloud) -> None:
    """As the transfer managers of the SDKs copy large objects."""
    emulator.put_object("other-1250000000", "ap-guangzhou", "a b", LARGE * 3)
    source = "other-1250000000.cos.ap-guangzhou.myqcloud.com/a%20b"
    upload = await begin(cloud)
    parts = []
    for number, cut in ((1, ""), (2, f"bytes=1-{MIB}"), (3, f"bytes={3 * MIB - 2}-")):
        copied = await copy_part(cloud, upload, number, source, cut)
        assert (copied.status, copied.xml.tag) == (200, "CopyPartResult")
        assert copied.text("ETag") == copied.headers["ETag"]
        parts.append((number, copied.text("ETag")))
    assert copied.headers["x-cos-hash-crc64ecma"] == str(crc64(LARGE[-2:]))
    assert (await complete(cloud, upload, parts)).status == 200
    assert emulator.get_object(BUCKET, REGION, "k") == LARGE * 3 + (LARGE * 2)[1 : MIB + 1] + LARGE[-2:]


@pytest.mark.parametrize(
    ("key", "cut", "code"),
    [
        ("missing", "", "NoSuchKey"),
        ("source", "bytes=9-", "InvalidRange"),
        ("source", "1-2", "InvalidArgument"),
        ("source", "bytes=2-1", "InvalidArgument"),
    ],
)
async def test_a_part_that_cannot_be_copied_is_refused_and_not_put(
    emulator: Emulator, cloud: Cloud, key: str, cut: str, code: str
) -> None:
    emulator.put_object(BUCKET, REGION, "source", b"123456789")
    upload = await begin(cloud)
    assert (await copy_part(cloud, upload, 1, f"{COS_HOST}/{key}", cut)).text("Code") == code
    assert emulator.multiparts[0][1] == []


async def copy_part(cloud: Cloud, upload: str, number: int, source: str, cut: str) -> Reply:
    """Copy the part; the vendor's SDK for Python sends an empty range for none."""
    headers = {"x-cos-copy-source": source, "x-cos-copy-source-range": cut}
    params = {"partNumber": str(number), "uploadId": upload}
    return await cloud.send("PUT", "/k", host=COS_HOST, params=params, headers=headers)


async def test_a_list_of_parts_in_pages_has_every_part_once_with_its_time(cloud: Cloud) -> None:
    upload = await begin(cloud)
    for number in (5, 1, 3, 10_000):
        await put(cloud, upload, number, SMALL)
    seen, marker = [], "0"
    while True:
        params = {"uploadId": upload, "max-parts": "3", "part-number-marker": marker}
        page = await cloud.send("GET", "/k", host=COS_HOST, params=params)
        assert (page.text("PartNumberMarker"), page.text("MaxParts")) == (marker, "3")
        assert all(time.endswith("Z") for time in page.texts("Part/LastModified"))
        seen.append(page.texts("Part/PartNumber"))
        if page.text("IsTruncated") == "false":
            break
        marker = page.text("NextPartNumberMarker")
    assert seen == [["1", "3", "5"], ["10000"]]
    for name, value in (("max-parts", "1001"), ("part-number-marker", "x"), ("encoding-type", "x")):
        params = {"uploadId": upload, name: value}
        assert (await cloud.send("GET", "/k", host=COS_HOST, params=params)).text("Code") == "InvalidArgument"


async def test_a_list_of_parts_has_its_key_encoded_on_demand(cloud: Cloud) -> None:
    upload = await begin(cloud, "a b+中")
    for coding, key in (({}, "a b+中"), ({"encoding-type": "url"}, "a%20b%2B%E4%B8%AD")):
        params = {"uploadId": upload, **coding}
        assert (await cloud.send("GET", "/a b+中", host=COS_HOST, params=params)).text("Key") == key


@pytest.mark.parametrize("size", [1, 2, 3, 10])
async def test_uploads_that_have_not_ended_are_listed_by_key_and_begin(cloud: Cloud, size: int) -> None:
    """In pages, with a prefix and a delimiter; completed ones are not among them."""
    ended = await begin(cloud)
    await complete(cloud, ended, [(1, (await put(cloud, ended, 1, SMALL)).headers["ETag"])])
    keys = ["b/2", "a", "b/1", "a", "b/c/3"]
    made = [(key, await begin(cloud, key)) for key in keys]
    wanted = sorted(made, key=lambda each: each[0])
    assert await listed(cloud, size) == wanted
    assert await listed(cloud, size, prefix="b/") == wanted[2:]
    top = await cloud.send("GET", "/", host=COS_HOST, params={"uploads": "", "delimiter": "/"})
    assert (top.xml.tag, top.texts("CommonPrefixes/Prefix")) == ("ListMultipartUploadsResult", ["b/"])
    assert top.texts("Upload/UploadId") == [upload for _, upload in wanted[:2]]
    coded = await cloud.send("GET", "/", host=COS_HOST, params={"uploads": "", "encoding-type": "url", "prefix": "b/"})
    assert (coded.text("EncodingType"), coded.text("Upload/Initiator/ID")) == ("url", "1250000000")


async def listed(cloud: Cloud, size: int, **params: str) -> list[tuple[str, str]]:
    """Keys and ids of the uploads on each page, to the end of the list."""
    found: list[tuple[str, str]] = []
    markers: dict[str, str] = {}
    while True:
        sent = {"uploads": "", "max-uploads": str(size), **params, **markers}
        page = await cloud.send("GET", "/", host=COS_HOST, params=sent)
        found += zip(page.texts("Upload/Key"), page.texts("Upload/UploadId"), strict=True)
        if page.text("IsTruncated") == "false":
            return found
        markers = {"key-marker": page.text("NextKeyMarker"), "upload-id-marker": page.text("NextUploadIdMarker")}
