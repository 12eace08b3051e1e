"""Each operation of the suite with the vendor's SDK for Python; one JSON line for each.

The argument is a file of settings.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qcloud_cos import CosConfig, CosS3Client, CosServiceError

if TYPE_CHECKING:
    from collections.abc import Callable

logging.disable()  # the SDK writes whole requests to the log
SETTINGS: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
BUCKET, REGION, PART = SETTINGS["bucket"], SETTINGS["region"], 1024 * 1024
DOCUMENT, LARGE = (Path(SETTINGS[name]).read_bytes() for name in ("document", "large"))


def client(secret_id: str, secret_key: str, token: str | None = None) -> Any:
    config = CosConfig(
        Region=REGION,
        SecretId=secret_id,
        SecretKey=secret_key,
        Token=token,
        Scheme=SETTINGS["scheme"],
        Proxies=dict.fromkeys(("http", "https"), SETTINGS["proxy"]),
        VerifySSL=SETTINGS["ca"],
    )
    return CosS3Client(config, retry=0)


def step(operation: str, run: Callable[[], object]) -> None:
    try:
        result = {"operation": operation, "value": run()}
    except CosServiceError as error:
        refusal = {"status": error.get_status_code(), "code": error.get_error_code()}
        result = {"operation": operation, "error": refusal}
    print(json.dumps(result), flush=True)


COS = client(SETTINGS["secretId"], SETTINGS["secretKey"])
JOBS: list[str] = []


def list_objects() -> list[list[str]]:
    pages, marker = [], ""
    while True:
        answer = COS.list_objects(Bucket=BUCKET, Prefix="list/", Marker=marker, MaxKeys=2)
        pages.append([each["Key"] for each in answer.get("Contents", [])])
        if answer["IsTruncated"] != "true":
            return pages
        marker = answer["NextMarker"]


def put_and_list() -> list[list[str]]:
    for key in SETTINGS["keys"]:
        put(COS, key, key.encode())
    return list_objects()


def delete() -> list[list[str]]:
    COS.delete_object(Bucket=BUCKET, Key=SETTINGS["keys"][0])
    return list_objects()


def upload_in_parts() -> list[int]:
    where = {"Bucket": BUCKET, "Key": "parts.bin"}
    where["UploadId"] = COS.create_multipart_upload(**where)["UploadId"]
    made = [
        {"PartNumber": number, "ETag": COS.upload_part(**where, Body=LARGE[at : at + PART], PartNumber=number)["ETag"]}
        for number, at in enumerate(range(0, len(LARGE), PART), 1)
    ]
    listed = [int(part["PartNumber"]) for part in COS.list_parts(**where)["Part"]]
    COS.complete_multipart_upload(**where, MultipartUpload={"Part": made})
    return listed


def abort() -> None:
    where = {"Bucket": BUCKET, "Key": "aborted.bin"}
    where["UploadId"] = COS.create_multipart_upload(**where)["UploadId"]
    COS.upload_part(**where, Body=b"part", PartNumber=1)
    COS.abort_multipart_upload(**where)
    COS.list_parts(**where)


def transfer() -> None:
    COS.upload_file(Bucket=BUCKET, Key="transfer.bin", LocalFilePath=SETTINGS["large"], PartSize=1, MAXThread=2)


def body(key: str, **options: str) -> bytes:
    content: bytes = COS.get_object(Bucket=BUCKET, Key=key, **options)["Body"].get_raw_stream().read()
    return content


def create(using: Any = COS, key: str = "report.pdf") -> dict[str, Any]:
    output = {"OutputBucket": BUCKET, "OutputRegion": REGION, "OutputObject": "pages/${Number}.jpg"}
    job: dict[str, Any] = using.ci_create_doc_job(Bucket=BUCKET, InputObject=key, **output)["JobsDetail"]
    return job


def create_jobs() -> list[str]:
    made = [create() for _ in range(3)]
    JOBS.extend(job["JobId"] for job in made)
    return [job["State"] for job in made]


def finished_jobs() -> list[list[str]]:
    return [finished(job_id) for job_id in JOBS]


def finished(job_id: str) -> list[str]:
    while True:
        (job,) = COS.ci_get_doc_job(Bucket=BUCKET, JobID=job_id)["JobsDetail"]
        if job["State"] in {"Success", "Failed"}:
            pages = job["Operation"]["DocProcessResult"]["PageInfo"]
            return [job["State"], *(page["TgtUri"] for page in pages)]
        time.sleep(0.05)


def list_jobs(**filters: Any) -> list[list[int]]:
    pages, token = [], ""
    while True:
        answer = COS.ci_list_doc_jobs(Bucket=BUCKET, NextToken=token, **filters)
        pages.append([JOBS.index(job["JobId"]) for job in answer.get("JobsDetail", [])])
        token = answer.get("NextToken") or ""
        if not token:
            return pages


def queue() -> Any:
    (found,) = COS.ci_get_doc_queue(Bucket=BUCKET)["QueueList"]
    return found


def update_queue() -> list[str]:
    update = {"Name": "reports", "QueueID": queue()["QueueId"], "State": "Active", "NotifyConfig": SETTINGS["notify"]}
    COS.ci_update_doc_queue(Bucket=BUCKET, QueueId=update["QueueID"], Request=update)
    return [queue()["Name"], queue()["NotifyConfig"]["Url"]]


def buckets() -> list[str]:
    return [each["Name"] for each in COS.ci_get_doc_bucket(Regions=REGION, BucketName=BUCKET)["DocBucketList"]]


def put(using: Any, key: str, content: bytes) -> str:
    return str(using.put_object(Bucket=BUCKET, Key=key, Body=content)["ETag"]).strip('"')


def temporary(token: str) -> Any:
    return client(SETTINGS["temporaryId"], SETTINGS["temporaryKey"], token)


def object_steps() -> None:
    document = {"Bucket": BUCKET, "Key": "report.pdf"}
    source = {"CopySource": {**document, "Region": REGION}}
    step("create bucket", lambda: COS.create_bucket(Bucket=BUCKET) and None)
    step("head bucket", lambda: COS.head_bucket(Bucket=BUCKET) and None)
    step("put object", lambda: put(COS, "report.pdf", DOCUMENT))
    step("head object", lambda: int(COS.head_object(**document)["Content-Length"]))
    step("get object", lambda: hashlib.md5(body("report.pdf")).hexdigest())  # noqa: S324 - no secret
    step("get a range", lambda: body("report.pdf", Range="bytes=0-4").decode())
    step("copy object", lambda: COS.copy_object(Bucket=BUCKET, Key="copy.pdf", **source)["ETag"].strip('"'))
    step("list objects", put_and_list)
    step("delete object", delete)
    step("upload in parts", upload_in_parts)
    step("abort an upload", abort)
    step("transfer manager", transfer)
    step("presigned GET", lambda: COS.get_presigned_url(**document, Method="GET"))
    step("presigned PUT", lambda: COS.get_presigned_url(Bucket=BUCKET, Key="put by address.txt", Method="PUT"))


def job_steps() -> None:
    later = SETTINGS["later"]
    step("create jobs", create_jobs)
    step("get jobs", finished_jobs)
    step("list jobs", lambda: list_jobs(Size=2))
    step("list jobs, oldest first", lambda: list_jobs(OrderByTime="Asc", QueueId=queue()["QueueId"]))
    step("list jobs of a state", lambda: [list_jobs(States=state) for state in ("Failed", "Success,Running")])
    step("list jobs of a time", lambda: [list_jobs(StartCreationTime=later), list_jobs(EndCreationTime=later)])
    step("list queues", lambda: queue()["State"])
    step("update queue", update_queue)
    step("list buckets of the service", buckets)


def key_steps() -> None:
    wrong = client(SETTINGS["secretId"], "wrong")
    step("temporary key", lambda: put(temporary(SETTINGS["token"]), "t.pdf", DOCUMENT))
    step("temporary key, job", lambda: create(temporary(SETTINGS["token"]), "t.pdf")["State"])
    step("wrong token", lambda: put(temporary("wrong"), "t.pdf", DOCUMENT))
    step("wrong key", lambda: put(wrong, "k", b"x"))
    step("wrong key, job", lambda: create(wrong))
    step("no such key", lambda: body("never put"))
    step("no such bucket", lambda: COS.get_object(Bucket=SETTINGS["missingBucket"], Key="report.pdf"))
    step("no such job", lambda: COS.ci_get_doc_job(Bucket=BUCKET, JobID=SETTINGS["missingJob"])["NonExistJobIds"])
    step("job without its document", lambda: create(key="never put.pdf"))


object_steps()
job_steps()
key_steps()
