"""The vendor's SDK against the emulator, with documented settings of the SDK only.

The SDK builds its hosts itself (`<bucket>.ci.<region>.myqcloud.com`), so the emulator is given to it as its HTTP proxy:
requests and signatures are those that the cloud would get.
"""

import asyncio
import io
from typing import Any
from urllib.request import urlopen

import pypdfium2 as pdfium
import pytest
from qcloud_cos import CosConfig, CosS3Client, CosServiceError

from docpreview_emulator import Credential, Emulator

BUCKET, REGION = "examplebucket-1250000000", "ap-chongqing"
SECRET_ID, SECRET_KEY = "example-secret-id", "EXAMPLEsecretKEY00000000000000000"


@pytest.fixture
def sdk(docpreview_emulator: Emulator) -> Any:
    return client(docpreview_emulator)


def client(emulator: Emulator, **settings: Any) -> Any:
    key = {"SecretId": SECRET_ID, "SecretKey": SECRET_KEY, **settings}
    return CosS3Client(CosConfig(Region=REGION, Scheme="http", Proxies={"http": emulator.url}, **key), retry=0)


def pdf(pages: int) -> bytes:
    document, file = pdfium.PdfDocument.new(), io.BytesIO()
    for _ in range(pages):
        document.new_page(200, 100)
    document.save(file)
    document.close()
    return file.getvalue()


def create(sdk: Any, **options: Any) -> dict[str, Any]:
    output = {"OutputBucket": BUCKET, "OutputRegion": REGION, "OutputObject": "/test_doc/normal/abc_${Number}.jpg"}
    answer: dict[str, Any] = sdk.ci_create_doc_job(Bucket=BUCKET, InputObject="normal.pdf", **output, **options)
    return answer


def test_the_vendors_sample_uploads_converts_and_downloads(docpreview_emulator: Emulator, sdk: Any) -> None:
    """The sample of the vendor's documentation."""
    put = sdk.put_object(Bucket=BUCKET, Key="normal.pdf", Body=pdf(7))
    assert put["ETag"]
    job = create(sdk, Quality=109, PageRanges="1,3")["JobsDetail"]
    assert (job["State"], job["Code"], job["StartTime"]) == ("Submitted", "Success", "-")
    assert job["Operation"]["DocProcess"]["Quality"] == "109"

    asyncio.run(docpreview_emulator.wait_for_job(job["JobId"]))
    (done,) = sdk.ci_get_doc_job(Bucket=BUCKET, JobID=job["JobId"])["JobsDetail"]
    result = done["Operation"]["DocProcessResult"]
    assert (done["State"], result["TotalPageCount"], result["SuccPageCount"]) == ("Success", "7", "2")
    assert result["PageInfo"] == [
        {"PageNo": "1", "TgtUri": "/test_doc/normal/abc_1.jpg"},
        {"PageNo": "3", "TgtUri": "/test_doc/normal/abc_3.jpg"},
    ]
    page = sdk.get_object(Bucket=BUCKET, Key="test_doc/normal/abc_3.jpg")["Body"].get_raw_stream().read()
    assert page.startswith(b"\xff\xd8")


def test_queues_are_found_and_their_jobs_listed(sdk: Any) -> None:
    """Page by page."""
    sdk.put_object(Bucket=BUCKET, Key="normal.pdf", Body=pdf(1))
    (queue,) = sdk.ci_get_doc_queue(Bucket=BUCKET)["QueueList"]
    made = [create(sdk, QueueId=queue["QueueId"])["JobsDetail"]["JobId"] for _ in range(3)]
    first = sdk.ci_list_doc_jobs(Bucket=BUCKET, QueueId=queue["QueueId"], Size=2)
    second = sdk.ci_list_doc_jobs(Bucket=BUCKET, QueueId=queue["QueueId"], Size=2, NextToken=first["NextToken"])
    listed = [job["JobId"] for page in (first, second) for job in page["JobsDetail"]]
    assert listed == made[::-1]
    assert not second["NextToken"]


def test_a_queue_is_told_whom_to_call_back(sdk: Any) -> None:
    (queue,) = sdk.ci_get_doc_queue(Bucket=BUCKET)["QueueList"]
    notify = {"Url": "http://x.example.com", "State": "On", "Type": "Url", "Event": "TaskFinish"}
    update = {"Name": queue["Name"], "QueueID": queue["QueueId"], "State": "Active", "NotifyConfig": notify}
    answer = sdk.ci_update_doc_queue(Bucket=BUCKET, QueueId=queue["QueueId"], Request=update)
    assert answer["Queue"][0]["NotifyConfig"]["Url"] == notify["Url"]
    (shown,) = sdk.ci_get_doc_queue(Bucket=BUCKET)["QueueList"]
    assert notify.items() <= shown["NotifyConfig"].items()


def test_the_buckets_of_a_region_are_listed(docpreview_emulator: Emulator, sdk: Any) -> None:
    """The request goes to a host without a bucket."""
    docpreview_emulator.bind_bucket(BUCKET, REGION)
    assert sdk.ci_get_doc_bucket(Regions=REGION)["DocBucketList"][0]["Name"] == BUCKET


def test_the_token_of_a_temporary_key_is_accepted_in_each_services_header(docpreview_emulator: Emulator) -> None:
    """The two services have different header names."""
    docpreview_emulator.credentials["temporary"] = Credential("temporary", SECRET_KEY, "TOKEN+/=abc")
    temporary = client(docpreview_emulator, SecretId="temporary", Token="TOKEN+/=abc")
    temporary.put_object(Bucket=BUCKET, Key="normal.pdf", Body=pdf(1))
    assert create(temporary)["JobsDetail"]["JobId"]


def test_a_url_presigned_by_the_sdk_is_served_in_its_path_form(docpreview_emulator: Emulator, sdk: Any) -> None:
    """A browser can open the URL."""
    sdk.put_object(Bucket=BUCKET, Key="a b/页.jpg", Body=b"page")
    address = sdk.get_presigned_url(Method="GET", Bucket=BUCKET, Key="a b/页.jpg", Expired=300)
    local = address.replace("http://", f"{docpreview_emulator.url}/_emulator/objects/", 1)
    assert fetch(local) == b"page"


def test_the_sdks_transfer_manager_uploads_in_parts(docpreview_emulator: Emulator, sdk: Any) -> None:
    """It begins, puts, completes, and compares the checksum of the whole with its own."""
    data = bytes(range(256)) * 4096 * 3 + b"end"
    made = sdk.upload_file_from_buffer(Bucket=BUCKET, Key="large.bin", Body=io.BytesIO(data), PartSize=1, MAXThread=2)
    assert made["ETag"].endswith('-4"')
    assert docpreview_emulator.get_object(BUCKET, REGION, "large.bin") == data


def test_the_sdk_lists_and_aborts_an_upload_in_parts(sdk: Any) -> None:
    """What was put until then is gone."""
    upload = sdk.create_multipart_upload(Bucket=BUCKET, Key="k")["UploadId"]
    etag = sdk.upload_part(Bucket=BUCKET, Key="k", Body=b"x", PartNumber=1, UploadId=upload)["ETag"]
    (part,) = sdk.list_parts(Bucket=BUCKET, Key="k", UploadId=upload)["Part"]
    assert (part["PartNumber"], part["ETag"], part["Size"]) == ("1", etag, "1")
    sdk.abort_multipart_upload(Bucket=BUCKET, Key="k", UploadId=upload)
    with pytest.raises(CosServiceError) as caught:
        sdk.list_parts(Bucket=BUCKET, Key="k", UploadId=upload)
    assert caught.value.get_error_code() == "NoSuchUpload"


def fetch(address: str) -> bytes:
    with urlopen(address) as response:  # noqa: S310 - loopback
        body: bytes = response.read()
    return body


def test_a_wrong_key_raises_the_sdks_own_error_with_its_code(docpreview_emulator: Emulator) -> None:
    """On object hosts the SDK can read the error."""
    with pytest.raises(CosServiceError) as caught:
        client(docpreview_emulator, SecretKey="wrong").put_object(Bucket=BUCKET, Key="k", Body=b"x")
    assert (caught.value.get_status_code(), caught.value.get_error_code()) == (403, "SignatureDoesNotMatch")


def test_a_missing_input_shows_the_sdk_only_the_http_status(sdk: Any) -> None:
    """Errors of CI hosts have no resource, without which the SDK cannot read the code."""
    with pytest.raises(CosServiceError) as caught:
        create(sdk)
    assert (caught.value.get_status_code(), caught.value.get_error_code()) == (400, "Unknown")
