"""Ledger records of creates and their stages.

    (none) -> INTENT -> SENT -> ACCEPTED
                 ^        |-> UNKNOWN -> ACCEPTED
                 |------------- | (provably absent: a new attempt)

SENT is committed before the first byte of the POST, so an INTENT whose owner died was never sent. A create is signed
with a short lifetime: the cloud accepts no copy of it after its fence, so a job that a list does not show after the
fence (and the longest delay of the list) does not exist.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING

from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.upstream.wire.user_data import marker

if TYPE_CHECKING:
    from docpreview.v1.preview_job_pb2 import PreviewJob


class Stage(StrEnum):
    """Stage of a create."""

    INTENT = "intent"
    SENT = "sent"
    UNKNOWN = "unknown"
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations of the ledger, in seconds."""

    signature: float = 45.0
    """Validity of a create's signature."""
    fence_slack: float = 60.0
    """Largest difference between the cloud's clock and ours."""
    visibility: float = 15.0
    """Longest time until lists show a new job."""
    lease: float = 30.0
    """Time without a write of the owner after which another process may take a record over."""
    keep: float = 24 * 3600.0
    """Lifetime of a record."""


@dataclass(frozen=True, slots=True)
class Record:
    """The ledger's record of one create. Instants are Unix times in seconds."""

    key: str
    fingerprint: bytes
    """Keyed digest of the request, to recognise another request with the same id."""
    marker: str
    """What the job carries in its user data, to be found again."""
    target: str
    """Digest of input and output, the same for creates that cannot be told apart without markers."""
    request: bytes
    """The serialised request without its password."""
    stage: Stage
    owner: str
    """The process that may write next; with `attempt` the condition of every write (compare and set)."""
    attempt: int
    lease_until: float
    expires_at: float
    sent_at: float = 0.0
    """0: not sent."""
    fence: float = 0.0
    """The cloud accepts no copy of the create after this instant; 0: not sent."""
    job: bytes = b""
    """The serialised job of an ACCEPTED create."""

    def is_abandoned(self, now: float) -> bool:
        """Whether the lease of an unfinished create has expired."""
        return self.stage is not Stage.ACCEPTED and now >= self.lease_until

    def sent(self, now: float, timing: Timing) -> Record:
        """The record to commit just before the create is sent; sets the fence."""
        fence = now + timing.signature + timing.fence_slack
        lease, end = now + timing.lease, now + timing.keep
        return replace(self, stage=Stage.SENT, sent_at=now, fence=fence, lease_until=lease, expires_at=end)

    def unknown(self, now: float, timing: Timing) -> Record:
        """The record of a create that was sent and got no usable answer."""
        return replace(self, stage=Stage.UNKNOWN, lease_until=now + timing.lease)

    def released(self, now: float) -> Record:
        """The record with its lease ended, so that any process may take it over."""
        return replace(self, lease_until=now)

    def accepted(self, job: PreviewJob, now: float, timing: Timing) -> Record:
        """The record of a create whose job the cloud has."""
        return replace(
            self, stage=Stage.ACCEPTED, job=job.SerializeToString(), lease_until=now, expires_at=now + timing.keep
        )

    def taken_over(self, owner: str, now: float, timing: Timing) -> Record:
        """The record at the same stage, with a new owner and attempt."""
        return replace(self, owner=owner, attempt=self.attempt + 1, lease_until=now + timing.lease)

    def restarted(self, now: float, timing: Timing) -> Record:
        """The record of a create whose job is provably absent: it may be sent again."""
        return replace(self, stage=Stage.INTENT, sent_at=0.0, fence=0.0, lease_until=now + timing.lease)

    def absence_provable_at(self, timing: Timing) -> float:
        """The instant from which on a list without the job proves that there is none."""
        return self.fence + timing.visibility


def new_record(  # noqa: PLR0913 - the facts of one create
    request: CreatePreviewJobRequest, *, caller: str, secret: bytes, owner: str, now: float, timing: Timing
) -> Record:
    """The INTENT record of a request with `request_id`.

    The fingerprint is keyed with the ledger's own secret: it covers the document's password, which could be guessed
    from a plain hash.
    """
    scope = _scope(request, caller)
    body = CreatePreviewJobRequest()
    body.CopyFrom(request)
    body.ClearField("request_id")
    fingerprint = hmac.digest(secret, body.SerializeToString(deterministic=True), "sha256")
    body.options.ClearField("password")
    target = f"{request.bucket}\n{request.input_object}\n{request.output.bucket}\n{request.output.object}"
    return Record(
        key=sha256(scope).hexdigest(),
        fingerprint=fingerprint,
        marker=marker(secret, scope),
        target=sha256(target.encode()).hexdigest(),
        request=body.SerializeToString(deterministic=True),
        stage=Stage.INTENT,
        owner=owner,
        attempt=1,
        lease_until=now + timing.lease,
        expires_at=now + timing.keep,
    )


def record_key(request: CreatePreviewJobRequest, caller: str) -> str:
    """The key in the ledger of a caller's create with `request_id`."""
    return sha256(_scope(request, caller)).hexdigest()


def _scope(request: CreatePreviewJobRequest, caller: str) -> bytes:
    return f"{caller}\n{request.bucket}\n{request.request_id.lower()}".encode()


def owns(record: Record, job: PreviewJob, job_marker: str, *, only_one_of_its_target: bool) -> bool:
    """Whether the create of `record` made `job`.

    Decided by the marker in the job's user data; else by the marker in its output path, since the vendor does not
    document user data for this kind of job; else by input and output, but only for a job without any marker and while
    no other create with the same target is unfinished.
    """
    if job_marker or record.marker in job.output.object:
        return job_marker == record.marker or record.marker in job.output.object
    if not only_one_of_its_target:
        return False
    request = CreatePreviewJobRequest.FromString(record.request)
    output_bucket = request.output.bucket or request.bucket
    return (job.input.object, job.output.bucket, job.output.object) == (
        request.input_object,
        output_bucket,
        request.output.object,
    )
