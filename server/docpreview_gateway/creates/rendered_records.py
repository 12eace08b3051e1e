"""Deduplication records: the last job per output location and a fingerprint of its input.

They are `Record`s of the ledger that are never sent. Their key is the output location, not the input: a create that
overwrites the results of an earlier one replaces its record.
"""

from __future__ import annotations

import hmac
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.creates.records import Record, Stage
from docpreview_gateway.upstream.wire.user_data import TOKEN_PLACEHOLDER

if TYPE_CHECKING:
    from docpreview_gateway.model.buckets import Bucket

_USABLE = frozenset(
    {PreviewJob.STATE_SUBMITTED, PreviewJob.STATE_RUNNING, PreviewJob.STATE_PAUSED, PreviewJob.STATE_SUCCESS}
)


def is_usable(job: PreviewJob) -> bool:
    """Whether the job has made its pages, or still may make them."""
    return job.state in _USABLE


def location_key(request: CreatePreviewJobRequest, output: Bucket) -> str:
    """The key of a create's output location.

    A template with `${RequestToken}` has a location for each document: its creates do not overwrite each other.
    """
    words = [output.name, request.output.object]
    if TOKEN_PLACEHOLDER in request.output.object:
        words += [request.bucket, request.input_object]
    return "place-" + sha256("\n".join(words).encode()).hexdigest()


def fingerprint(request: CreatePreviewJobRequest, output: Bucket, *, caller: str, tag: str, secret: bytes) -> bytes:
    """A digest of the caller, the document's content (`tag`) and everything that affects the result.

    It is keyed with the ledger's own secret: it covers the document's password, which could be guessed from a plain
    hash. The queue and the user data do not affect the result.
    """
    body = CreatePreviewJobRequest(
        bucket=request.bucket,
        input_object=request.input_object,
        output=ObjectLocation(bucket=output.name, object=request.output.object),
        options=request.options,
    )
    text = f"rendered\n{caller}\n{tag}\n".encode() + body.SerializeToString(deterministic=True)
    return hmac.digest(secret, text, "sha256")


def claim(location: str, fingerprint: bytes, *, owner: str, now: float, seconds: float) -> Record:
    """The record of an output location (its key) before the create is sent: it has no job yet.

    It expires `seconds` after `now`. An empty fingerprint equals no other: the document's content is unknown.
    """
    return Record(
        key=location,
        fingerprint=fingerprint,
        marker="",
        target="",
        request=b"",
        stage=Stage.ACCEPTED,
        owner=owner,
        attempt=1,
        lease_until=now,
        expires_at=now + seconds,
    )


def reclaimed(standing: Record, claim: Record) -> Record:
    """`claim` as the replacement of `standing`, which its owner can no longer fill in."""
    return replace(claim, attempt=standing.attempt + 1)


def filled(claim: Record, job: PreviewJob, *, now: float, seconds: float) -> Record:
    """`claim` with the job that its create made. Equal creates return it for `seconds` from `now`."""
    reference = PreviewJob(bucket=job.bucket, job_id=job.job_id)
    return replace(claim, job=reference.SerializeToString(), expires_at=now + seconds)


def reused(record: Record, job: PreviewJob, *, now: float, keep: float) -> Record:
    """The INTENT `record` of a create with `request_id`, ACCEPTED with an existing job.

    It expires `keep` seconds after `now`. The job is stored without its pages, which may be many.
    """
    stored = PreviewJob()
    stored.CopyFrom(job)
    stored.result.ClearField("pages")
    return replace(record, stage=Stage.ACCEPTED, job=stored.SerializeToString(), lease_until=now, expires_at=now + keep)


def is_reused(record: Record) -> bool:
    """Whether the create of a record got an existing job and was never sent."""
    return record.stage is Stage.ACCEPTED and not record.sent_at
