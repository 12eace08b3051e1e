"""The record of an idempotent create, and what may be done with it at each stage.

    (none) -> INTENT -> SENT -> ACCEPTED
                 ^        |-> UNKNOWN -> ACCEPTED
                 |------------- | (certainly absent: a new attempt)

SENT is committed before the first byte of the POST, so an INTENT whose owner died was never sent. A create is signed to
be valid for a short time only: after its fence no copy of it, however late, can be accepted any more, so a job that a
list does not show after the fence (and a bound for the list's own delay) does not exist.
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
    """How far a create has come."""

    INTENT = "intent"
    SENT = "sent"
    UNKNOWN = "unknown"
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of the ledger, in seconds.

    A create's signature is valid for `signature`; `fence_slack` is how far the cloud's clock may differ from ours;
    `visibility` is how long a new job may stay invisible to lists; `lease` is how long an owner may be silent; `keep`
    is how long an accepted create is remembered.
    """

    signature: float = 45.0
    fence_slack: float = 60.0
    visibility: float = 15.0
    lease: float = 30.0
    keep: float = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Record:
    """A create by its key. `request` is the serialised request without password; times are Unix seconds.

    `owner` and `attempt` name who may write next: every change is compared with both. `target` is a digest of input and
    output, for telling equal creates apart. `job` is the serialised job once it is ACCEPTED.
    """

    key: str
    fingerprint: bytes
    marker: str
    target: str
    request: bytes
    stage: Stage
    owner: str
    attempt: int
    lease_until: float
    expires_at: float
    sent_at: float = 0.0
    fence: float = 0.0
    job: bytes = b""

    def is_abandoned(self, now: float) -> bool:
        """Whether its owner has been silent for too long."""
        return self.stage is not Stage.ACCEPTED and now >= self.lease_until

    def sent(self, now: float, timing: Timing) -> Record:
        """About to be sent: the fence stands from now on."""
        fence = now + timing.signature + timing.fence_slack
        lease, end = now + timing.lease, now + timing.keep
        return replace(self, stage=Stage.SENT, sent_at=now, fence=fence, lease_until=lease, expires_at=end)

    def unknown(self, now: float, timing: Timing) -> Record:
        """Sent, without a usable answer."""
        return replace(self, stage=Stage.UNKNOWN, lease_until=now + timing.lease)

    def released(self, now: float) -> Record:
        """As it is, for whoever comes next."""
        return replace(self, lease_until=now)

    def accepted(self, job: PreviewJob, now: float, timing: Timing) -> Record:
        """The cloud has the job."""
        return replace(
            self, stage=Stage.ACCEPTED, job=job.SerializeToString(), lease_until=now, expires_at=now + timing.keep
        )

    def taken_over(self, owner: str, now: float, timing: Timing) -> Record:
        """The same stage, by another owner."""
        return replace(self, owner=owner, attempt=self.attempt + 1, lease_until=now + timing.lease)

    def restarted(self, now: float, timing: Timing) -> Record:
        """Certainly absent: a new attempt may be sent."""
        return replace(self, stage=Stage.INTENT, sent_at=0.0, fence=0.0, lease_until=now + timing.lease)

    def absence_provable_at(self, timing: Timing) -> float:
        """From when on a list without the job proves that there is none."""
        return self.fence + timing.visibility


def new_record(  # noqa: PLR0913 - the facts of one create
    request: CreatePreviewJobRequest, *, caller: str, secret: bytes, owner: str, now: float, timing: Timing
) -> Record:
    """The INTENT record of a request with `request_id`.

    The fingerprint is keyed with the ledger's own secret: it covers the document's password, which a plain hash would
    let others guess.
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
    """The key of a caller's create with `request_id`."""
    return sha256(_scope(request, caller)).hexdigest()


def _scope(request: CreatePreviewJobRequest, caller: str) -> bytes:
    return f"{caller}\n{request.bucket}\n{request.request_id.lower()}".encode()


def owns(record: Record, job: PreviewJob, job_marker: str, *, only_one_of_its_target: bool) -> bool:
    """Whether `job` is what the create of `record` made.

    By the marker in its user data; else, since the vendor does not document user data for this kind of job, by the
    marker in its output path; else by input and output, but only for a job without any marker and while no other
    create of the same target is open.
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
