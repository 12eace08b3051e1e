"""The record of a create: one for its idempotency, its deduplication, its reserved pages and its charge.

    (none) -- begin --> OPEN -- finish --> ACCEPTED -- charge --> CHARGED -- forget --> (none)
                         | release: nothing was sent, refused, or proven absent
                         | reopen: proven absent, and a caller waits

A record is immutable; what happens to a create makes another one, and a store changes one into the other if nobody else
has done so (`creates/ports.py`). Instants are the cloud's, in Unix seconds: nothing rests on this machine's clock.
"""

from __future__ import annotations

import hmac
import json
from base64 import b64decode, b64encode
from dataclasses import astuple, dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.creates.keys import MAC_BYTES, new_nonce

if TYPE_CHECKING:
    from docpreview_gateway.creates.keys import CreateKeys

MAX_STORED_BYTES = 8192
"""Largest request, and largest job, that a record keeps; of a longer one only what identifies it."""

IMPORTED = "1:"
"""What keys of records of versions before 2.0 begin with."""


class State(StrEnum):
    """State of a create."""

    OPEN = "open"
    """It may be sent, or was, and its outcome is not known."""
    ACCEPTED = "accepted"
    """The cloud has its job, whose pages are not known yet."""
    CHARGED = "charged"
    """Its pages are counted; it is remembered until `expires_at`."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations of the protocol, in seconds."""

    signature: float = 45.0
    """Validity of a create's signature after it is made. It begins 60 seconds before."""
    fence_slack: float = 60.0
    """Largest difference between the clock that the cloud judges signatures by and the `Date` that it sends."""
    visibility: float = 60.0
    """Longest time until lists show a new job."""
    keep: float = 24 * 3600.0
    """How long a `request_id` is remembered after its job was created."""

    @property
    def watch(self) -> float:
        """How long a process must itself have watched an attempt before it may conclude that there is no job."""
        return self.signature + self.fence_slack + self.visibility


class Held(NamedTuple):
    """Pages that a record counts for its caller in its periods: reserved, and used."""

    held: int = 0
    used: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """One create."""

    key: str
    """Of caller, bucket and `request_id`, or random."""
    body: bytes
    """Digest of the request."""
    kid: str
    """Id of the secret by which `key` and `body` were made."""
    caller: str
    bucket: str
    request: bytes
    """The serialised request as it was admitted, without password and `request_id`."""
    place: str
    """Digest of the output place."""
    render: str
    """Digest of the document's content and of all that shapes its pages; empty: not known."""
    keep: float
    """Seconds for which the create is remembered after its job was created."""
    day: str = ""
    """The day (UTC, such as `2026-11-29`) to which its pages are counted; empty: they are not counted."""
    asked: int = 0
    """Pages that are reserved."""
    state: State = State.OPEN
    nonce: bytes = b""
    """Of the present attempt."""
    sign_start: float = 0.0
    sign_end: float = 0.0
    """The signature of the present attempt is valid from the one to the other."""
    first_start: float = 0.0
    """`sign_start` of the first attempt."""
    job_id: str = ""
    job: bytes = b""
    """The serialised job, as it was when it was accepted."""
    made: int = 0
    """Pages that are charged."""
    expires_at: float = 0.0

    @property
    def is_imported(self) -> bool:
        """Whether it was made by a version before 2.0: `render` is then the marker of its job."""
        return self.key.startswith(IMPORTED)

    @property
    def month(self) -> str:
        """The month of `day`."""
        return self.day[:7]

    @property
    def created_at(self) -> float:
        """The cloud's time when its job was created; 0: it has none, or the cloud did not say."""
        return float(self.answer().create_time.seconds) if self.job_id else 0.0

    @property
    def counts(self) -> Held:
        """The pages that it counts."""
        if not self.day:
            return Held()
        return Held(used=self.made) if self.state is State.CHARGED else Held(held=self.asked)

    def opened(self, now: float, timing: Timing, slack: float = 60.0) -> Record:
        """A new attempt, whose signature is valid from `slack` seconds before `now` on."""
        start, end = float(int(now) - int(slack)), float(int(now + timing.signature))
        return replace(
            self,
            state=State.OPEN,
            nonce=new_nonce(),
            sign_start=start,
            sign_end=end,
            first_start=min(self.first_start or start, start),
        )

    def accepted(self, job: PreviewJob, now: float) -> Record:
        """The cloud has the job. A create whose pages are not counted is CHARGED at once."""
        created = float(job.create_time.seconds) or now
        stored = job.SerializeToString()
        if len(stored) > MAX_STORED_BYTES:
            at = job.create_time if job.HasField("create_time") else None
            least = PreviewJob(bucket=job.bucket, job_id=job.job_id, state=job.state, create_time=at)
            stored = least.SerializeToString()
        state = State.ACCEPTED if self.day else State.CHARGED
        return replace(self, state=state, job_id=job.job_id, job=stored, expires_at=created + self.keep)

    def charged(self, pages: int) -> Record:
        """Its job has ended and made this many pages."""
        return replace(self, state=State.CHARGED, made=pages)

    def answer(self) -> PreviewJob:
        """The job, as it was when it was accepted. Of ACCEPTED and CHARGED records."""
        return PreviewJob.FromString(self.job)

    def read_request(self) -> CreatePreviewJobRequest:
        """The request, without password."""
        return CreatePreviewJobRequest.FromString(self.request)


def stored_request(request: CreatePreviewJobRequest) -> bytes:
    """The request as a record keeps it."""
    kept = CreatePreviewJobRequest()
    kept.CopyFrom(request)
    kept.DiscardUnknownFields()
    kept.ClearField("request_id")
    kept.options.ClearField("password")
    return kept.SerializeToString(deterministic=True)


class RecordError(Exception):
    """A stored record that was not written by this deployment, or is damaged."""


class Index(NamedTuple):
    """What a store needs of a record without reading all of it; it is written before the packed record."""

    state: str
    nonce: str
    caller: str
    day: str
    held: int
    used: int
    place: str
    render: str
    bucket: str
    job_id: str
    first_start: float


def index_of(record: Record) -> Index:
    """The record's `Index`."""
    held, used = record.counts
    return Index(
        record.state.value,
        record.nonce.hex(),
        record.caller,
        record.day,
        held,
        used,
        record.place,
        record.render,
        record.bucket,
        record.job_id,
        record.first_start,
    )


_NAMES = [field.name for field in fields(Record)]
_BYTES = frozenset({"body", "request", "nonce", "job"})


def packed(record: Record, keys: CreateKeys) -> bytes:
    """The record as a store keeps it: the id of the secret, a MAC of the rest, and the fields as JSON."""
    values = [b64encode(value).decode() if isinstance(value, bytes) else value for value in astuple(record)]
    text = json.dumps(values, separators=(",", ":")).encode()
    return keys.id.encode() + keys.mac(_signed(text, keys), keys.id) + text


def unpacked(stored: bytes, keys: CreateKeys) -> Record:
    """The record that `packed` made. RecordError for any other bytes."""
    kid, mac, text = stored[:8], stored[8 : 8 + MAC_BYTES], stored[8 + MAC_BYTES :]
    try:
        expected = keys.mac(_signed(text, keys), kid.decode())
        if not hmac.compare_digest(mac, expected):
            raise RecordError("its MAC does not match: it was changed, or made with another secret")
        values: dict[str, Any] = dict(zip(_NAMES, json.loads(text), strict=True))
        for name in _BYTES:
            values[name] = b64decode(values[name])
        return Record(**{**values, "state": State(values["state"])})
    except KeyError as error:
        raise RecordError("it was made with a secret that is not configured") from error
    except (ValueError, TypeError) as error:
        raise RecordError("it cannot be read by this version") from error


def _signed(text: bytes, keys: CreateKeys) -> bytes:
    return keys.namespace.encode() + b"\n" + text
