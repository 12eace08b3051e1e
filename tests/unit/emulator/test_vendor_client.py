"""The vendor's SDK for Python, unchanged, on buckets and objects; jobs and queues are in tests/contract."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from qcloud_cos import CosConfig, CosS3Client, CosServiceError

from docpreview_emulator import Emulator, Settings
from docpreview_emulator.threaded import running

from .cloud_client import BUCKET, REGION, SECRET_ID, SECRET_KEY

MIB = 1024 * 1024
DATA = bytes(range(256)) * 4096 * 3 + b"end"
OTHER, ELSEWHERE = "other-1250000000", "ap-guangzhou"


@pytest.fixture
def strict() -> Iterator[Emulator]:
    with running(Emulator(settings=Settings(strict=True))) as emulator:
        yield emulator


@pytest.fixture
def sdk(strict: Emulator) -> Any:
    """A client with a bucket that it has created."""
    made = client(strict)
    made.create_bucket(Bucket=BUCKET)
    return made


def client(emulator: Emulator, **settings: Any) -> Any:
    given = {"Region": REGION, "SecretId": SECRET_ID, "SecretKey": SECRET_KEY, **settings}
    return CosS3Client(CosConfig(Scheme="http", Proxies={"http": emulator.url}, **given), retry=0)


def code_of(refused: pytest.ExceptionInfo[CosServiceError]) -> tuple[int, str]:
    return refused.value.get_status_code(), refused.value.get_error_code()


def test_a_bucket_is_created_found_filled_emptied_and_deleted(strict: Emulator) -> None:
    sdk = client(strict)
    assert not sdk.bucket_exists(Bucket=BUCKET)
    with pytest.raises(CosServiceError) as refused:
        sdk.put_object(Bucket=BUCKET, Key="k", Body=b"data")
    assert code_of(refused) == (404, "NoSuchBucket")
    sdk.create_bucket(Bucket=BUCKET)
    assert sdk.bucket_exists(Bucket=BUCKET)
    assert sdk.head_bucket(Bucket=BUCKET)["x-cos-bucket-region"] == REGION
    assert not client(strict, Region=ELSEWHERE).bucket_exists(Bucket=BUCKET)
    assert [(each["Name"], each["Location"]) for each in sdk.list_buckets()["Buckets"]["Bucket"]] == [(BUCKET, REGION)]
    with pytest.raises(CosServiceError) as refused:
        sdk.create_bucket(Bucket=BUCKET)
    assert code_of(refused) == (409, "BucketAlreadyExists")
    sdk.put_object(Bucket=BUCKET, Key="k", Body=b"data")
    with pytest.raises(CosServiceError) as refused:
        sdk.delete_bucket(Bucket=BUCKET)
    assert code_of(refused) == (409, "BucketNotEmpty")
    sdk.delete_objects(Bucket=BUCKET, Delete={"Object": [{"Key": "k"}]})
    sdk.delete_bucket(Bucket=BUCKET)
    assert not sdk.bucket_exists(Bucket=BUCKET)


def test_the_sdk_lists_a_bucket_in_pages_and_folders(sdk: Any) -> None:
    keys = ["a&b <c>.pdf", "页/1 +%.jpg", "页/2.jpg", "页/深/3.jpg"]
    for key in keys:
        sdk.put_object(Bucket=BUCKET, Key=key, Body=b"12")
    seen, marker = [], ""
    while True:
        page = sdk.list_objects(Bucket=BUCKET, MaxKeys=3, Marker=marker)
        seen += [(entry["Key"], entry["Size"]) for entry in page["Contents"]]
        if page["IsTruncated"] == "false":
            break
        marker = page["NextMarker"]
    assert seen == [(key, "2") for key in keys]
    folder = sdk.list_objects(Bucket=BUCKET, Prefix="页/", Delimiter="/")
    assert [entry["Key"] for entry in folder["Contents"]] == keys[1:3]
    assert [entry["Prefix"] for entry in folder["CommonPrefixes"]] == ["页/深/"]


def test_the_sdk_copies_an_object_also_from_another_region(strict: Emulator, sdk: Any) -> None:
    client(strict, Region=ELSEWHERE).create_bucket(Bucket=OTHER)
    strict.put_object(OTHER, ELSEWHERE, "a b/页", b"data")
    source = {"Bucket": OTHER, "Key": "a b/页", "Region": ELSEWHERE}
    copied = sdk.copy(Bucket=BUCKET, Key="copy", CopySource=source)
    assert copied["x-cos-hash-crc64ecma"] == copied["CRC64"]
    assert sdk.get_object(Bucket=BUCKET, Key="copy")["Body"].get_raw_stream().read() == b"data"
    sdk.update_object_meta(Bucket=BUCKET, Key="copy", Metadata={"x-cos-meta-colour": "red"})
    assert sdk.head_object(Bucket=BUCKET, Key="copy")["x-cos-meta-colour"] == "red"


def test_the_sdk_copies_a_large_object_in_parts(strict: Emulator, sdk: Any) -> None:
    client(strict, Region=ELSEWHERE).create_bucket(Bucket=OTHER)
    strict.put_object(OTHER, ELSEWHERE, "large", DATA)
    sdk.get_conf().set_copy_part_threshold_size(MIB)
    source = {"Bucket": OTHER, "Key": "large", "Region": ELSEWHERE}
    made = sdk.copy(Bucket=BUCKET, Key="copy", CopySource=source, PartSize=1, MAXThread=2)
    assert made["ETag"].endswith('-4"')
    assert strict.get_object(BUCKET, REGION, "copy") == DATA


def test_the_sdk_goes_on_with_an_upload_that_was_interrupted(strict: Emulator, sdk: Any, tmp_path: Path) -> None:
    """It finds it among the uploads of the bucket, and puts only the parts that its list does not have."""
    upload = sdk.create_multipart_upload(Bucket=BUCKET, Key="large")["UploadId"]
    sdk.upload_part(Bucket=BUCKET, Key="large", Body=DATA[:MIB], PartNumber=1, UploadId=upload)
    (tmp_path / "large").write_bytes(DATA)
    strict.clear_requests()
    sdk.upload_file(Bucket=BUCKET, Key="large", LocalFilePath=str(tmp_path / "large"), PartSize=1, MAXThread=2)
    put = sorted(record.query.partition("&")[0] for record in strict.requests if record.method == "PUT")
    assert put == ["partNumber=2", "partNumber=3", "partNumber=4"]
    assert strict.multiparts == []
    assert strict.get_object(BUCKET, REGION, "large") == DATA


def test_the_sdk_downloads_a_large_object_in_ranges_and_checks_its_checksum(
    strict: Emulator, sdk: Any, tmp_path: Path
) -> None:
    strict.put_object(BUCKET, REGION, "large", DATA)
    target = tmp_path / "large"
    sdk.download_file(Bucket=BUCKET, Key="large", DestFilePath=str(target), PartSize=1, MAXThread=2, EnableCRC=True)
    assert target.read_bytes() == DATA
    asked = sorted(record.headers["range"] for record in strict.requests if "range" in record.headers)
    assert asked[0] == f"bytes=0-{MIB - 1}"
    assert len(asked) == 4


def test_the_sdk_reads_ranges_and_learns_of_one_that_is_not_there(sdk: Any) -> None:
    sdk.put_object(Bucket=BUCKET, Key="k", Body=b"0123456789")
    for asked, body in (("bytes=2-4", b"234"), ("bytes=-3", b"789"), ("bytes=8-", b"89")):
        assert sdk.get_object(Bucket=BUCKET, Key="k", Range=asked)["Body"].get_raw_stream().read() == body
    with pytest.raises(CosServiceError) as refused:
        sdk.get_object(Bucket=BUCKET, Key="k", Range="bytes=10-")
    assert code_of(refused) == (416, "InvalidRange")


def test_the_sdk_lists_parts_and_uploads_in_pages(sdk: Any) -> None:
    upload = sdk.create_multipart_upload(Bucket=BUCKET, Key="页")["UploadId"]
    for number in (1, 2, 3):
        sdk.upload_part(Bucket=BUCKET, Key="页", Body=b"x", PartNumber=number, UploadId=upload)
    first = sdk.list_parts(Bucket=BUCKET, Key="页", UploadId=upload, MaxParts=2)
    last = sdk.list_parts(Bucket=BUCKET, Key="页", UploadId=upload, PartNumberMarker=first["NextPartNumberMarker"])
    assert [part["PartNumber"] for part in first["Part"] + last["Part"]] == ["1", "2", "3"]
    (found,) = sdk.list_multipart_uploads(Bucket=BUCKET, Prefix="页")["Upload"]
    assert (found["Key"], found["UploadId"]) == ("页", upload)


def test_a_head_of_what_is_not_there_is_404_without_a_body(sdk: Any) -> None:
    assert not sdk.object_exists(Bucket=BUCKET, Key="missing")
    with pytest.raises(CosServiceError) as refused:
        sdk.head_object(Bucket=BUCKET, Key="missing")
    assert refused.value.get_status_code() == 404


def test_the_document_service_of_all_regions_is_listed(strict: Emulator, sdk: Any) -> None:
    strict.bind_bucket(OTHER, ELSEWHERE)
    found = sdk.ci_get_doc_bucket(Regions="All")["DocBucketList"]
    assert [(bucket["Name"], bucket["Region"]) for bucket in found] == [(BUCKET, REGION), (OTHER, ELSEWHERE)]


def test_an_address_that_the_sdk_signs_is_for_one_method(strict: Emulator, sdk: Any) -> None:
    sdk.upload_file_from_buffer(Bucket=BUCKET, Key="p.jpg", Body=io.BytesIO(b"page"))
    address = sdk.get_presigned_url(Method="GET", Bucket=BUCKET, Key="p.jpg", Expired=60)
    local = address.replace("http://", f"{strict.url}/_emulator/objects/", 1)
    with urlopen(local) as reply:  # noqa: S310 - loopback
        assert reply.read() == b"page"
