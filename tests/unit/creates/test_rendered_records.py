"""Fingerprints and output locations of deduplication records."""

from __future__ import annotations

from typing import Any

import pytest

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.creates import rendered_records as rendered
from docpreview_gateway.creates.records import Timing, new_record
from docpreview_gateway.creates.rendered_records import location_key
from docpreview_gateway.model.buckets import Bucket

DOCS, PREVIEWS = (Bucket(f"{name}-1250000000", "ap-chongqing", "main") for name in ("docs", "previews"))


def request(**changes: Any) -> CreatePreviewJobRequest:
    values: dict[str, Any] = {
        "bucket": DOCS.name,
        "input_object": "a.pdf",
        "output": ObjectLocation(object="p/${Number}.jpg"),
        "options": PreviewOptions(quality=80, password="CANARY"),
    }
    return CreatePreviewJobRequest(**(values | changes))


def fingerprint(
    found: CreatePreviewJobRequest, output: Bucket = DOCS, *, caller: str = "one", tag: str = "v1", secret: bytes = b"k"
) -> bytes:
    return rendered.fingerprint(found, output, caller=caller, tag=tag, secret=secret)


@pytest.mark.parametrize(
    "same",
    [
        request(),
        request(queue_id="p1"),
        request(user_data="mine"),
        request(request_id="1"),
        request(output=ObjectLocation(bucket=DOCS.name, region=DOCS.region, object="p/${Number}.jpg")),
    ],
    ids=["equal", "queue", "user data", "request id", "defaults written out"],
)
def test_what_does_not_affect_the_result_leaves_the_fingerprint_the_same(same: CreatePreviewJobRequest) -> None:
    """Queue, user data, request id and written-out defaults do not affect the result."""
    assert fingerprint(same) == fingerprint(request())


@pytest.mark.parametrize(
    "other",
    [
        fingerprint(request(), PREVIEWS),
        fingerprint(request(), caller="two"),
        fingerprint(request(), tag="v2"),
        fingerprint(request(), secret=b"l"),
        fingerprint(request(), caller="one\nv1", tag=""),
        fingerprint(request(input_object="b.pdf")),
        fingerprint(request(bucket=PREVIEWS.name)),
        fingerprint(request(output=ObjectLocation(object="q/${Number}.jpg"))),
        fingerprint(request(options=PreviewOptions(quality=80, password="other"))),
        fingerprint(request(options=PreviewOptions(quality=81, password="CANARY"))),
    ],
    ids=["bucket", "caller", "content", "ledger", "split", "document", "source", "template", "password", "option"],
)
def test_everything_that_affects_the_result_changes_the_fingerprint(other: bytes) -> None:
    """Caller, content, location and options, the password among them, are parts of the fingerprint."""
    assert other != fingerprint(request())


def test_the_output_location_differs_by_document_only_with_a_token() -> None:
    """Without a token in the template documents share a location; with one each document has its own."""
    token = ObjectLocation(object="${RequestToken}/${Number}.jpg")
    assert location_key(request(), DOCS) == location_key(request(input_object="b.pdf", options=None), DOCS)
    assert location_key(request(), DOCS) != location_key(request(), PREVIEWS)
    with_token = [location_key(request(output=token, input_object=key), DOCS) for key in ("a.pdf", "b.pdf", "a.pdf")]
    assert with_token[0] == with_token[2] != with_token[1]


def test_a_deduplication_record_contains_nothing_of_the_request() -> None:
    """A deduplication record has digests and the job's id only."""
    claim = rendered.claim("place-1", fingerprint(request()), owner="one", now=1.0, seconds=60)
    job = PreviewJob(bucket=DOCS.name, job_id="d1", user_data="CANARY")
    filled = rendered.filled(claim, job, now=3.0, seconds=60)
    assert PreviewJob.FromString(filled.job) == PreviewJob(bucket=DOCS.name, job_id="d1")
    assert (filled.request, filled.expires_at) == (b"", 63.0)
    assert b"CANARY" not in filled.job


def test_a_reused_job_is_recognised_and_recorded_without_its_pages() -> None:
    """A record that is ACCEPTED but was never sent has a reused job, stored without its pages."""
    mine = new_record(request(request_id="1"), caller="one", secret=b"k", owner="one", now=1.0, timing=Timing())
    job = PreviewJob(job_id="d1", state=PreviewJob.STATE_SUCCESS)
    job.result.total_page_count = 1
    job.result.pages.add(object="p/1.jpg")
    reused = rendered.reused(mine, job, now=1.0, keep=60.0)
    assert rendered.is_reused(reused)
    assert not PreviewJob.FromString(reused.job).result.pages
    assert job.result.pages
    assert not rendered.is_reused(mine)
    assert not rendered.is_reused(mine.sent(1.0, Timing()).accepted(job, 2.0, Timing()))
