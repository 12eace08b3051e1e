"""Jobs that a caller may not know of look, in every respect, like jobs that do not exist."""

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
    """The job is there, and the caller may not know."""


def may_hide(bucket: Bucket, call: Call) -> bool:
    """Whether there may be jobs in the bucket that the caller may not know of."""
    rights = call.caller.rights
    return rights is not None and not rights.sees_all(bucket.name)


def seen(jobs: Sequence[PreviewJob], bucket: Bucket, call: Call) -> Sequence[PreviewJob]:
    """Those of a list that the caller may know of."""
    rights = call.caller.rights
    if rights is None or not may_hide(bucket, call):
        return jobs
    return [job for job in jobs if rights.sees(job, bucket.name)]


def check(job: PreviewJob, bucket: Bucket, call: Call) -> None:
    """Nothing when the caller may know of the job. Only within `hidden_alike`."""
    rights = call.caller.rights
    if rights is not None and not rights.sees(job, bucket.name):
        raise _HiddenError


@contextmanager
def hidden_alike(bucket: Bucket, job_id: str, call: Call) -> Iterator[None]:
    """One error for jobs that are hidden and for those that do not exist; for callers from whom jobs may be hidden.

    What the call learned on the way is forgotten: a cached answer or an id of the cloud would tell the two apart.
    """
    try:
        yield
    except (GatewayError, _HiddenError) as error:
        if isinstance(error, GatewayError) and error.reason != reasons.ERROR_REASON_JOB_NOT_FOUND:
            raise
        call.response.cache = call.response.upstream_request_id = ""
        message = f"no job {job_id} in bucket {bucket.name}"
        raise GatewayError(reasons.ERROR_REASON_JOB_NOT_FOUND, message) from None
