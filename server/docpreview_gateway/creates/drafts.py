"""Records of creates before they are begun."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from docpreview_gateway.creates.days import day_of
from docpreview_gateway.creates.keys import is_of_marker, random_key, same_body
from docpreview_gateway.creates.records import MAX_STORED_BYTES, Record, State, stored_request
from docpreview_gateway.model.errors import InvalidRequest, Violation
from docpreview_gateway.upstream.wire.user_data import TOKEN_PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Iterable

    from docpreview.v1.preview_job_pb2 import PreviewJob
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
    from docpreview_gateway.access.bucket_registry import Admitted
    from docpreview_gateway.creates.attempts import Work
    from docpreview_gateway.creates.imported import OldIds
    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.creates.records import Timing
    from docpreview_gateway.model.callers import Caller


class Drafts:
    """Makes records, with the deployment's keys and times."""

    def __init__(self, keys: CreateKeys, timing: Timing, old: OldIds | None = None) -> None:
        self._keys = keys
        self._timing = timing
        self._old = old

    def record(self, request: CreatePreviewJobRequest, admitted: Admitted, caller: Caller, day: str) -> Record:
        """The record of a request, of as much as is known before the document is looked at.

        Its body is that of the request as the caller sent it: a change of policy between repeats makes no second job.
        """
        has_id = bool(request.request_id)
        key = self._keys.record_keys(caller.name, request.bucket, request.request_id)[0] if has_id else random_key()
        stored = stored_request(admitted.request)
        if request.webhook and len(stored) > MAX_STORED_BYTES:
            why = f"must be empty with a request of more than {MAX_STORED_BYTES} bytes, which is not kept"
            raise InvalidRequest([Violation("webhook", why)])
        counted = caller.budget is not None
        return Record(
            key=key,
            body=self._keys.body(request),
            kid=self._keys.id,
            caller=caller.name,
            bucket=request.bucket,
            request=stored if len(stored) <= MAX_STORED_BYTES else b"",
            place=self._keys.place(place_of(admitted)),
            render="",
            keep=max(self._timing.keep if has_id else 0.0, caller.dedupe_seconds),
            day=day if counted else "",
            asked=caller.budget.asked(admitted.request.options) if caller.budget is not None else 0,
        )

    def old_key(self, work: Work, now: float) -> str:
        """The key under which an earlier version may have recorded the create; empty: it cannot have."""
        if self._old is None or not work.original.request_id or not self._old.may_exist(now):
            return ""
        return self._old.key(work.record.caller, work.original)

    def keys_of(self, request: CreatePreviewJobRequest, caller: Caller) -> list[str]:
        """Keys under which the id of a request may be recorded, by this version or an earlier one."""
        keys = self._keys.record_keys(caller.name, request.bucket, request.request_id)
        return keys if self._old is None else [*keys, self._old.key(caller.name, request)]

    def all_keys(self, request: CreatePreviewJobRequest, caller: Caller) -> list[str]:
        """Keys under which the request's id may be recorded; none if only that of the current secret is."""
        keys = self._keys.record_keys(caller.name, request.bucket, request.request_id) if request.request_id else []
        return keys if len(keys) > 1 else []

    @staticmethod
    def standing(found: Iterable[Record | None]) -> Record | None:
        """The record by which an id goes, of those that it has under several secrets: the same for every replica.

        After a loss that was accepted, an id may have got another job under another secret before the job of its lost
        record is taken in from the cloud's list. It stays with the job that it got later. So a create's own record goes
        before one that was made of a marker, and the one that began later before the other.
        """

        def rank(record: Record) -> tuple[bool, float, str]:
            return not is_of_marker(record.body), record.first_start, record.key

        return max((record for record in found if record is not None), key=rank, default=None)

    def as_recorded(self, record: Record, standing: Record, request: CreatePreviewJobRequest) -> Record:
        """The record of a request whose id goes by this standing record, perhaps under another secret."""
        return replace(record, key=standing.key, kid=standing.kid, body=self._keys.body(request, standing.kid))

    def opened(self, record: Record, now: float) -> Record:
        """The record with a first attempt that begins `now`."""
        return replace(record, first_start=0.0).opened(now, self._timing)

    @staticmethod
    def on_day(record: Record, day: str, now: float) -> Record:
        """The record counted to another day; without one, to that of `now`."""
        return replace(record, day=day or day_of(now))

    def body_under(self, standing: Record, work: Work) -> bytes:
        """The body of the work's request by the secret of the standing record's body."""
        if standing.is_imported and self._old is not None:
            return self._old.body(work.original)
        if is_of_marker(standing.body):
            # A marker is made with the current secret, also for a new attempt of a record that was made with another.
            bodies = [self._keys.body(work.original, kid) for kid in self._keys.ids]
            return next((body for body in bodies if same_body(standing.body, body)), bodies[0])
        return work.record.body if standing.kid == self._keys.id else self._keys.body(work.original, standing.kid)

    @staticmethod
    def alias(record: Record, job: PreviewJob, standing: Record) -> Record:
        """The record of a create that is answered with the job of another: it makes no pages."""
        kept = type(job)()
        kept.CopyFrom(job)
        kept.result.ClearField("pages")
        done = replace(record, day="", asked=0, render=standing.render, place="")
        accepted = done.accepted(kept, record.sign_start)
        return replace(accepted, state=State.CHARGED, expires_at=record.sign_start + record.keep)


def place_of(admitted: Admitted) -> str:
    """The output place of a create. A template with `${RequestToken}` has one for each document."""
    request, _, output = admitted
    words = [output.name, request.output.object]
    if TOKEN_PLACEHOLDER in request.output.object:
        words += [request.bucket, request.input_object]
    return "\n".join(words)


def has_promise(request: CreatePreviewJobRequest) -> bool:
    """Whether the caller was promised what only a record can keep: the same job for its id, an event at the end."""
    return bool(request.request_id or request.webhook)
