"""Whether the job in the reply to a create is the one that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview_gateway.model.errors import bad_response
from docpreview_gateway.model.output_templates import result_keys
from docpreview_gateway.upstream.wire.user_data import split_user_data

if TYPE_CHECKING:
    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview_gateway.upstream.operations import CreateJob


def of_this_create(job: PreviewJob, marker: str, operation: CreateJob) -> PreviewJob:
    """The job itself. UPSTREAM_BAD_RESPONSE when it has another document, output or marker: it may be another caller's.

    What the reply leaves out is not compared: only the id is sure to be in it.
    """
    request, source, output = operation.request, operation.bucket, operation.output
    wanted = (
        (job.input.bucket, source.name),
        (job.output.bucket, output.name),
        (_key(job.input.object), _key(request.input_object)),
        (marker, split_user_data(request.user_data)[1]),
    )
    if any(found not in {"", asked} for found, asked in wanted) or not _fits(job.output.object, request.output.object):
        raise bad_response("the reply to a create is about another job")
    return job


def _fits(found: str, template: str) -> bool:
    """Whether an output is absent, the template as it was sent, or a key that the template makes."""
    key, asked = _key(found), _key(template)
    return key in {"", asked} or result_keys(asked).fullmatch(key) is not None


def _key(text: str) -> str:
    """A key or template as replies have it: stripped, and with or without a leading slash."""
    return text.strip().removeprefix("/")
