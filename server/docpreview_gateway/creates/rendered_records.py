"""What was rendered last into a place: the memory of creates whose caller wants no job for what is there already.

It is a `Record` of the ledger that nobody sends, by the place where the results go and not by what they are made of: a
create that writes over them ends the memory of those before it.
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
    """Whether the job has made its pages, or still may."""
    return job.state in _USABLE


def place(request: CreatePreviewJobRequest, output: Bucket) -> str:
    """The key of where the results of a create go.

    A template with the gateway's token is another place for each document: its creates write nothing over.
    """
    words = [output.name, request.output.object]
    if TOKEN_PLACEHOLDER in request.output.object:
        words += [request.bucket, request.input_object]
    return "place-" + sha256("\n".join(words).encode()).hexdigest()


def fingerprint(request: CreatePreviewJobRequest, output: Bucket, *, caller: str, tag: str, secret: bytes) -> bytes:
    """A digest of who creates, of the document's content (`tag`), and of all that shapes the result.

    It is keyed with the ledger's own secret: it covers the document's password, which a plain hash would let others
    guess. The queue and the user data shape nothing.
    """
    body = CreatePreviewJobRequest(
        bucket=request.bucket,
        input_object=request.input_object,
        output=ObjectLocation(bucket=output.name, object=request.output.object),
        options=request.options,
    )
    text = f"rendered\n{caller}\n{tag}\n".encode() + body.SerializeToString(deterministic=True)
    return hmac.digest(secret, text, "sha256")


def claim(place: str, fingerprint: bytes, *, owner: str, now: float, seconds: float) -> Record:
    """The record of a place from before its create is sent; it has no job yet.

    An empty fingerprint says that nobody knows what will be there.
    """
    return Record(
        key=place,
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


def claimed_again(standing: Record, claim: Record) -> Record:
    """`claim` in the place of `standing`, so that whoever made that one can fill it in no more."""
    return replace(claim, attempt=standing.attempt + 1)


def filled(claim: Record, job: PreviewJob, *, now: float, seconds: float) -> Record:
    """The create of `claim` made this job, which is answered for so many seconds from now on."""
    kept = PreviewJob(bucket=job.bucket, job_id=job.job_id)
    return replace(claim, job=kept.SerializeToString(), expires_at=now + seconds)


def borrowed(record: Record, job: PreviewJob, *, now: float, keep: float) -> Record:
    """The INTENT of a create with `request_id` that got a job which was there; without its pages, which may be many."""
    kept = PreviewJob()
    kept.CopyFrom(job)
    kept.result.ClearField("pages")
    return replace(record, stage=Stage.ACCEPTED, job=kept.SerializeToString(), lease_until=now, expires_at=now + keep)


def is_borrowed(record: Record) -> bool:
    """Whether the create of a record got its job without having been sent."""
    return record.stage is Stage.ACCEPTED and not record.sent_at
