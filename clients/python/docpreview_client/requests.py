"""Builders of the contract's requests from keyword arguments. The .proto files document the fields."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from google.protobuf.timestamp_pb2 import Timestamp

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview_client.call import CallFields

LARGEST_PAGE: Final = 100
"""The gateway's maximum of jobs or queues in a page of a list."""


class CreateFields(CallFields, total=False):
    """Optional fields of a create, beside those of every call.

    Keys:
        output_bucket: Bucket of the results. Default: the bucket of the source document.
        options: Options of the conversion. Default: the cloud's defaults.
        queue_id: Default: the queue configured for the bucket.
        user_data: At most 960 printable ASCII characters.
        request_id: A UUID, such as `str(uuid.uuid4())`. Reuse it with the same request after any failure: all
            of the attempts together make one job. Default: a new one for each call (`ClientOptions.request_ids`).
        preset: Name of options that the gateway's policy has for this caller; `options` overrides them.
        webhook: Name of a target of the gateway's policy that is told when the job has ended.
    """

    output_bucket: str
    options: PreviewOptions
    queue_id: str
    user_data: str
    request_id: str
    preset: str
    webhook: str


class ListFields(CallFields, total=False):
    """Filters, order and page size of a list, beside the fields of every call.

    Keys:
        queue_id: Only jobs of this queue.
        states: Only jobs in these states.
        order: By creation time. Default: newest first.
        created_after: Only jobs created at or after this time. Fractions of a second are dropped: the cloud knows none.
            A time without zone is a ValueError.
        created_before: Only jobs created at or before this time. As above.
        page_size: At most this many jobs a page; the gateway's maximum is 100. Default: 100.
        include_pages: Whether `result.pages` is filled in.
    """

    queue_id: str
    states: Sequence[PreviewJob.State.ValueType]
    order: ListPreviewJobsRequest.Order.ValueType
    created_after: datetime
    created_before: datetime
    page_size: int
    include_pages: bool


def create_request(
    bucket: str, input_object: str, *, output_object: str, fields: CreateFields, request_ids: bool
) -> CreatePreviewJobRequest:
    """The request of a create; one without `request_id` gets one with `request_ids`."""
    return CreatePreviewJobRequest(
        bucket=bucket,
        input_object=input_object,
        output=ObjectLocation(bucket=fields.get("output_bucket", ""), object=output_object),
        options=fields.get("options"),
        queue_id=fields.get("queue_id", ""),
        user_data=fields.get("user_data", ""),
        request_id=fields.get("request_id") or (str(uuid4()) if request_ids else ""),
        preset=fields.get("preset", ""),
        webhook=fields.get("webhook", ""),
    )


def list_request(bucket: str, *, page_token: str, fields: ListFields) -> ListPreviewJobsRequest:
    """The request of one page of a list."""
    return ListPreviewJobsRequest(
        bucket=bucket,
        page_token=page_token,
        queue_id=fields.get("queue_id", ""),
        states=fields.get("states", ()),
        order=fields.get("order", ListPreviewJobsRequest.ORDER_UNSPECIFIED),
        created_after=_timestamp(fields.get("created_after")),
        created_before=_timestamp(fields.get("created_before")),
        page_size=fields.get("page_size") or LARGEST_PAGE,
        include_pages=fields.get("include_pages", False),
    )


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    if time.tzinfo is None:
        raise ValueError(f"{time} has no time zone: give an aware datetime.")
    stamp = Timestamp()
    stamp.FromDatetime(time.astimezone(UTC).replace(microsecond=0))
    return stamp
