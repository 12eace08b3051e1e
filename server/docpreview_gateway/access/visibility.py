"""Visibility of jobs: to a caller without rights to it, a job is indistinguishable from one that does not exist."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.model.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call


class _HiddenError(Exception):
    """The job exists, and the caller may not see it."""


def may_hide(bucket: Bucket, call: Call) -> bool:
    """Whether the bucket may have jobs that the caller may not see."""
    rights = call.caller.rights
    return rights is not None and not rights.sees_all(bucket.name)


def seen(jobs: Sequence[PreviewJob], bucket: Bucket, call: Call) -> Sequence[PreviewJob]:
    """The jobs that the caller may see."""
    rights = call.caller.rights
    if rights is None or not may_hide(bucket, call):
        return jobs
    return [job for job in jobs if rights.sees(job, bucket.name)]


def check(job: PreviewJob, bucket: Bucket, call: Call) -> None:
    """Raise unless the caller may see the job. Only within `hidden_alike`."""
    rights = call.caller.rights
    if rights is not None and not rights.sees(job, bucket.name):
        raise _HiddenError


@contextmanager
def hidden_alike(bucket: Bucket, job_id: str) -> Iterator[None]:
    """Raise the same JOB_NOT_FOUND for hidden and for missing jobs. For calls from which jobs may be hidden."""
    try:
        yield
    except (GatewayError, _HiddenError) as error:
        if isinstance(error, GatewayError) and error.reason != reasons.ERROR_REASON_JOB_NOT_FOUND:
            raise
        message = f"no job {job_id} in bucket {bucket.name}"
        raise GatewayError(reasons.ERROR_REASON_JOB_NOT_FOUND, message) from None
