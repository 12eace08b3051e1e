"""Events about jobs that have ended, as CloudEvents 1.0 in structured JSON mode: the signature covers all of it."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING
from urllib.parse import quote

from google.protobuf import json_format

from docpreview.v1.preview_job_pb2 import PreviewJob

if TYPE_CHECKING:
    from datetime import datetime

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
JOB_ENDED = "dev.docpreview.job.ended.v1"
TEST = "dev.docpreview.webhook.test.v1"
"""The type of the event that `doctor --webhooks` sends; it has no `data`."""

SOURCE = "/docpreview"


def event_id(target: str, bucket: str, job_id: str) -> str:
    """The id of the event that a job has ended: always the same for a target, so that it can tell repeats."""
    digest = hashlib.sha256(f"{target}\n{bucket}\n{job_id}".encode()).hexdigest()
    return f"evt_{digest[:32]}"


def job_ended(event: str, job: PreviewJob, now: datetime) -> str:
    """The event of this id about a job that has ended, without its pages: there may be thousands.

    `now` is its time if the job has no `end_time`.
    """
    data = PreviewJob()
    data.CopyFrom(job)
    data.result.ClearField("pages")
    time = job.end_time.ToJsonString() if job.HasField("end_time") else now.isoformat().replace("+00:00", "Z")
    return json.dumps(
        {
            "specversion": "1.0",
            "id": event,
            "source": f"{SOURCE}/buckets/{quote(job.bucket, safe='')}",
            "type": JOB_ENDED,
            "subject": job.job_id,
            "time": time,
            "datacontenttype": "application/json",
            "data": json_format.MessageToDict(data),
        },
        separators=(",", ":"),
    )
