"""Creates and pages of versions before 2.0: their stored forms, and the records that they become.

The key of such a create is a plain hash, so it is found without the old store's secret; its request is compared by a
digest that was keyed with that secret, and its job is found by an old marker, which the record has as its `render`.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.message import DecodeError

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.creates.records import IMPORTED, MAX_STORED_BYTES, Record, State, stored_request
from docpreview_gateway.upstream.wire.user_data import TOKEN_PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.creates.records import Timing

PLACE_PREFIX = "place-"
"""What keys of records of output places begin with, which only saved creates: they are left behind."""

WITHOUT_ID = IMPORTED + "page-"
"""What keys of records begin with that come from a reservation of pages alone."""

KEEP_LONGER = 3 * 86400.0
"""Seconds for which old ids are looked up after the last of them has ended."""


class OldStoreError(Exception):
    """What an earlier version has left cannot be taken over. The message names it and says what to do."""


class Stage(StrEnum):
    """Stage of a create in the old store."""

    INTENT = "intent"
    SENT = "sent"
    UNKNOWN = "unknown"
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class OldCreate:
    """A create of the old store, as far as it is needed. Instants are Unix times in seconds, of the machine's clock."""

    key: str
    fingerprint: bytes
    marker: str
    request: bytes
    stage: Stage
    expires_at: float
    sent_at: float
    fence: float
    job: bytes


@dataclass(frozen=True, slots=True)
class OldReservation:
    """Pages that the old store had reserved. `open`: they are not charged yet."""

    id: str
    caller: str
    pages: int
    day: str
    bucket: str
    made_at: float
    ledger_key: str
    job_id: str
    open: bool


class OldPages(NamedTuple):
    """Pages of ended jobs that a caller has used in a period."""

    caller: str
    period: str
    used: int


class OldStore(NamedTuple):
    """All that an earlier version has left."""

    creates: list[OldCreate]
    reservations: list[OldReservation]
    pages: list[OldPages]

    def __bool__(self) -> bool:
        return bool(self.creates or self.reservations or self.pages)


class TakenOver(NamedTuple):
    """What an old store becomes: records and when each is due, used pages, and until when its ids are looked up."""

    records: list[tuple[Record, float]]
    used: list[OldPages]
    until: float


class OldIds:
    """Old ids while there may be some. Until `learn` is called it is not known whether there are."""

    def __init__(self) -> None:
        self._secret = b""
        self._until: float | None = None

    def learn(self, secret: bytes, until: float) -> None:
        """Ids of an old store with this secret are known until this time of the cloud; 0: there are none."""
        self._secret, self._until = secret, until

    def may_exist(self, now: float) -> bool:
        """Whether a record may be stored under an old key at this time of the cloud."""
        return self._until is None or now < self._until

    @staticmethod
    def key(caller: str, request: CreatePreviewJobRequest) -> str:
        """The record's key of a caller's create with `request_id`."""
        scope = f"{caller}\n{request.bucket}\n{request.request_id.lower()}"
        return IMPORTED + sha256(scope.encode()).hexdigest()

    def body(self, request: CreatePreviewJobRequest) -> bytes:
        """The digest that the old store kept of a request."""
        body = CreatePreviewJobRequest()
        body.CopyFrom(request)
        body.ClearField("request_id")
        return hmac.digest(self._secret, body.SerializeToString(deterministic=True), "sha256")


def taken_over(old: OldStore, keys: CreateKeys, timing: Timing) -> TakenOver:
    """The records and pages that an old store becomes: always the same ones."""
    reserved = {each.ledger_key: each for each in old.reservations if each.ledger_key}
    records: list[tuple[Record, float]] = []
    known: set[str] = set()
    for create in old.creates:
        known.add(create.key)
        # What was only intended was never sent; what an output place had is a saving.
        if create.stage is not Stage.INTENT and not create.key.startswith(PLACE_PREFIX):
            records.append(_of_create(create, reserved.get(create.key), keys, timing))
    for reservation in old.reservations:
        # Without a job and a create nothing was sent under its id; the pages are free again.
        gone = reservation.ledger_key and not reservation.job_id
        if reservation.open and reservation.ledger_key not in known and not gone:
            records.append(_of_reservation(reservation, timing))
    months = sorted({each.period[:7] for each in old.pages})[-2:]
    used = [each for each in old.pages if each.used and each.period[:7] in months]
    return TakenOver(records, used, _until([record for record, _ in records], timing))


def _of_create(
    old: OldCreate, reservation: OldReservation | None, keys: CreateKeys, timing: Timing
) -> tuple[Record, float]:
    request = CreatePreviewJobRequest.FromString(old.request)
    stored = stored_request(request)
    reserved = reservation if reservation is not None and reservation.open else None
    record = Record(
        key=IMPORTED + old.key,
        body=old.fingerprint,
        kid="",
        caller=reservation.caller if reservation is not None else "",
        bucket=request.bucket,
        request=stored if len(stored) <= MAX_STORED_BYTES else b"",
        place=keys.place(_place_of(request)),
        render=old.marker,
        keep=timing.keep,
        day=reserved.day if reserved is not None else "",
        asked=reserved.pages if reserved is not None else 0,
        nonce=_nonce(old.key),
        sign_start=old.sent_at,
        sign_end=old.fence - timing.fence_slack if old.fence else 0.0,
        first_start=old.sent_at,
    )
    if old.stage is not Stage.ACCEPTED:
        return record, record.sign_end + timing.fence_slack + timing.visibility + 1
    job = PreviewJob.FromString(old.job)
    accepted = replace(record.accepted(job, old.sent_at), expires_at=old.expires_at)
    return accepted, accepted.expires_at if accepted.state is State.CHARGED else old.sent_at


def _of_reservation(old: OldReservation, timing: Timing) -> tuple[Record, float]:
    """A record without `request_id`: ACCEPTED if its job is known, else charged in full, as it may have made one."""
    record = Record(
        key=WITHOUT_ID + old.id,
        body=b"",
        kid="",
        caller=old.caller,
        bucket=old.bucket,
        request=b"",
        place="",
        render="",
        keep=timing.keep,
        day=old.day,
        asked=old.pages,
        nonce=_nonce(old.id),
        sign_start=old.made_at,
        sign_end=old.made_at + timing.signature,
        first_start=old.made_at,
    ).accepted(PreviewJob(bucket=old.bucket, job_id=old.job_id), old.made_at)
    return (record, old.made_at) if old.job_id else (record.charged(old.pages), record.expires_at)


def _place_of(request: CreatePreviewJobRequest) -> str:
    """As `drafts.place_of`, of a request alone."""
    words = [request.output.bucket or request.bucket, request.output.object]
    if TOKEN_PLACEHOLDER in request.output.object:
        words += [request.bucket, request.input_object]
    return "\n".join(words)


def _nonce(name: str) -> bytes:
    """A nonce that is the same whenever the old store is read."""
    return sha256(name.encode()).digest()[:8]


def _until(records: Iterable[Record], timing: Timing) -> float:
    ends = [
        record.expires_at or record.sign_end + timing.keep
        for record in records
        if not record.key.startswith(WITHOUT_ID)
    ]
    return max(ends) + KEEP_LONGER if ends else 0.0


_READERS: dict[str, Callable[[Any], Any]] = {
    "bytes": lambda value: memoryview(value).tobytes(),
    "str": lambda value: value.decode() if isinstance(value, bytes) else str(value),
    "int": int,
    "float": float,
    "bool": bool,
    "Stage": lambda value: Stage(value.decode() if isinstance(value, bytes) else value),
}


def old_create(values: Mapping[str, Any], where: str, remedy: str) -> OldCreate:
    """The create of stored values, by name. OldStoreError, which names `where` and `remedy`, if it cannot be read."""
    found: OldCreate = _read(OldCreate, values, where, remedy)
    try:
        request = CreatePreviewJobRequest.FromString(found.request)
        job = PreviewJob.FromString(found.job)
    except DecodeError:
        raise _unreadable(where, "its request or its job is damaged", remedy) from None
    if found.stage is Stage.INTENT or found.key.startswith(PLACE_PREFIX):
        return found
    if not request.bucket or not found.fingerprint:
        raise _unreadable(where, "it has no request", remedy)
    if found.stage is Stage.ACCEPTED and not job.job_id:
        raise _unreadable(where, "it is accepted and has no job", remedy)
    if found.stage is not Stage.ACCEPTED and not (found.sent_at and found.fence and found.marker):
        raise _unreadable(where, "it was sent, and it does not say when", remedy)
    return found


def old_reservation(values: Mapping[str, Any], where: str, remedy: str) -> OldReservation:
    """The reservation of stored values, by name. OldStoreError as above."""
    found: OldReservation = _read(OldReservation, values, where, remedy)
    return found


def _read(kind: type[Any], values: Mapping[str, Any], where: str, remedy: str) -> Any:  # noqa: ANN401 - of `kind`
    try:
        return kind(**{field.name: _READERS[str(field.type)](values[field.name]) for field in fields(kind)})
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise _unreadable(where, f"{type(error).__name__} of a value", remedy) from None


def _unreadable(where: str, why: str, remedy: str) -> OldStoreError:
    return OldStoreError(f"{where} cannot be taken over: {why}. {remedy}")
