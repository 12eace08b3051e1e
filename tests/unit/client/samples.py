"""Jobs and errors as the gateway sends them."""

import hashlib
from datetime import timedelta

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

from docpreview.v1.preview_job_pb2 import JobFailure, ObjectLocation, Page, PreviewJob, PreviewResult

from .fake_gateway import Failure

BUCKET = "examplebucket-1250000000"
JOB_ID = "d18a9f1d7d8f04f9e9b1f5b0d4b1b7a30"


def job(state: PreviewJob.State.ValueType = PreviewJob.STATE_RUNNING, *, job_id: str = JOB_ID) -> PreviewJob:
    return PreviewJob(
        bucket=BUCKET,
        job_id=job_id,
        queue_id="p4bdf22746b014a22a5a097b1f1d057f1",
        state=state,
        create_time=Timestamp(seconds=1_700_000_000),
        input=ObjectLocation(bucket=BUCKET, object="slides.pptx"),
    )


def succeeded(*urls: str) -> PreviewJob:
    done = job(PreviewJob.STATE_SUCCESS)
    pages = [Page(page_number=n, object=f"previews/abc_{n}.jpg", url=url) for n, url in enumerate(urls, 1)]
    done.result.CopyFrom(PreviewResult(total_page_count=9, succeeded_page_count=len(urls), pages=pages))
    return done


def failed() -> PreviewJob:
    broken = job(PreviewJob.STATE_FAILED)
    broken.failure.CopyFrom(JobFailure(code="DocTooBig", message="too [bold]big[/bold] \x1b[31mred"))
    return broken


def over_quota(reason: str, subject: str) -> Failure:
    """An error that names a limit."""
    quota = error_details_pb2.QuotaFailure.Violation(subject=subject, description="used up")
    info = error_details_pb2.ErrorInfo(domain="docpreview", reason=reason)
    details = (info, error_details_pb2.QuotaFailure(violations=[quota]))
    return Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "used up", details)


def failure(code: grpc.StatusCode, reason: str, *, retry_delay: timedelta | None = None) -> Failure:
    """An error as the gateway sends it."""
    info = error_details_pb2.ErrorInfo(domain="docpreview", reason=reason, metadata={"request_id": "req-7"})
    if retry_delay is None:
        return Failure(code, details=(info,))
    delay = Duration()
    delay.FromTimedelta(retry_delay)
    return Failure(code, details=(info, error_details_pb2.RetryInfo(retry_delay=delay)))


def invalid(**violations: str) -> Failure:
    """An error that names bad fields."""
    bad = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=name, description=text)
            for name, text in violations.items()
        ]
    )
    info = error_details_pb2.ErrorInfo(domain="docpreview", reason="INVALID_REQUEST")
    return Failure(grpc.StatusCode.INVALID_ARGUMENT, "2 fields are invalid", (info, bad))


def key_of(request_id: str, content: bytes, template: str = "in/${UploadId}.pptx") -> str:
    """The key that `preview` gives to a content of a request id."""
    text = f"{request_id}\n{hashlib.md5(content, usedforsecurity=False).hexdigest()}"
    return template.replace("${UploadId}", hashlib.md5(text.encode(), usedforsecurity=False).hexdigest())
