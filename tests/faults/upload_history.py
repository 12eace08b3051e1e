"""History of the uploads of a campaign, and the checker of the promises U1 to U6.

Objects are attributed by their bytes: each upload has a content of its own, known by its CRC-64. No marker of the
gateway is trusted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SLACK = 4.0
"""Seconds by which a time that was told may differ.

`Date` has whole seconds, and a reply that tells the time is up to two seconds late: the timeout of an attempt here.
"""

Kind = Literal["create", "put", "complete", "abort"]

TRANSIENT = frozenset(
    {
        *("UPSTREAM_INTERNAL", "UPSTREAM_UNAVAILABLE", "UPSTREAM_TIMEOUT", "UPSTREAM_UNREACHABLE"),
        *("UPSTREAM_BAD_RESPONSE", "UPSTREAM_THROTTLED", "OVERLOADED", "UNAVAILABLE", "DEADLINE_EXCEEDED"),
        *("CANCELLED", "UPSTREAM_BREAKER_OPEN"),
    }
)
"""Reasons that tell nothing about an upload."""

NOT_A_TOKEN = "INVALID_REQUEST"


@dataclass(frozen=True, slots=True)
class Write:
    """An object as it was stored; `time` is the cloud's."""

    key: str
    crc64: int
    length: int
    time: float


@dataclass(slots=True)
class Step:
    """One call, or the PUT of one part; times are Unix seconds, like the cloud's.

    `crc64` is of the object that was told, or of the content of a PUT; `part` counts from 0. `reason` of a PUT is its
    status and the cloud's code. `is_own`: with the ETags of the announced content.
    """

    kind: Kind
    caller: str
    begin: float
    end: float = 0.0
    outcome: Literal["ok", "fail", "info"] = "info"
    reason: str = ""
    details: str = ""
    object: str = ""
    length: int = 0
    crc64: int = 0
    part: int = 0
    is_own: bool = True


@dataclass(slots=True)
class Track:
    """One upload: what was announced, what CreateUpload told, and its steps in order of their end.

    `contents` are the CRC-64 of what was sent as the content of the whole object, the announced one first. `fresh`: the
    key has the id of the upload. `final` is the outcome of the last CompleteUpload, after all faults.
    """

    number: int
    caller: str
    length: int
    contents: list[int]
    parts: int = 1
    ttl: int = 900
    may_replace: bool = False
    fresh: bool = False
    announced_crc: bool = False
    key: str = ""
    expires: float = 0.0
    steps: list[Step] = field(default_factory=list)
    final: Step | None = None

    @property
    def created(self) -> Step:
        """The call that began it."""
        return self.steps[0]

    def of(self, kind: Kind) -> Iterator[Step]:
        """Its steps of one kind by its own caller, the final one included."""
        final = [] if self.final is None else [self.final]
        return (each for each in [*self.steps, *final] if each.kind == kind and each.caller == self.caller)

    def aborted_before(self, instant: float) -> bool:
        """Whether an abort may have happened."""
        return any(each.begin < instant for each in self.of("abort"))

    @property
    def is_all_put(self) -> bool:
        """Whether each part was put for certain, and nothing but the announced content was sent."""
        put = {each.part for each in self.of("put") if each.outcome == "ok"}
        return put == set(range(self.parts)) and all(each.is_own for each in self.of("put"))


@dataclass(slots=True)
class UploadHistory:
    """Uploads whose CreateUpload was answered, the refused creates of others, and all writes in the store's order.

    `parts_left` are the numbers of parts of multipart uploads that are in the store after the final abort of all;
    `lost_begins` is how many creates of several parts were not answered: nobody can put a part of these, or end them.
    """

    tracks: list[Track] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    refused: list[Step] = field(default_factory=list)
    parts_left: list[int] = field(default_factory=list)
    lost_begins: int = 0

    def states(self, key: str, step: Step) -> list[Write | None]:
        """What was at a key at some instant of a step."""
        states: list[Write | None] = [None]
        for each in self.writes:
            if each.key == key and each.time <= step.begin:
                states = [each]
            elif each.key == key and each.time <= step.end:
                states.append(each)
        return states


def upload_violations(history: UploadHistory) -> list[str]:
    """Violated promises, one line each."""
    checks = (_told_objects_are_own, _nothing_replaced, _ends, _refusals_are_true, _strangers, _left, _addresses)
    return [line for check in checks for line in check(history)]


def _told_objects_are_own(history: UploadHistory) -> Iterable[str]:
    """U1: what CompleteUpload told was there, whole, and this upload's."""
    for track in history.tracks:
        allowed = track.contents[:1] if track.announced_crc else track.contents
        for step in track.of("complete"):
            if step.outcome != "ok":
                continue
            if (step.object, step.length) != (track.key, track.length) or step.crc64 not in allowed:
                yield f"U1 {track.number}: told {step.object}, {step.length} bytes, CRC {step.crc64}"
            elif not any(_is(state, step.crc64, step.length) for state in history.states(track.key, step)):
                yield f"U1 {track.number}: told {step.object}, which was not there"


def _nothing_replaced(history: UploadHistory) -> Iterable[str]:
    """U2: an object is replaced by uploads that may do so only, and a key with an upload's id is of that upload."""
    owner = {crc64: track for track in history.tracks for crc64 in track.contents}
    taken: dict[str, Track] = {}
    for write in history.writes:
        track = owner.get(write.crc64)
        if track is None or (track.key, track.length) != (write.key, write.length):
            yield f"U2 {write.key}: {write.length} bytes that no upload sent there"
            continue
        older = taken.get(write.key)
        if older is not None and not (track.may_replace or track.fresh):
            yield f"U2 {write.key}: upload {track.number} of {track.caller} replaced that of {older.caller}"
        if older is not None and older.fresh and older is not track:
            yield f"U2 {write.key}: upload {track.number} wrote to the key of upload {older.number}"
        taken[write.key] = track


def _ends(history: UploadHistory) -> Iterable[str]:
    """U3: what was put can be completed, unless another's object is there, and nothing stays unknown."""
    for track in history.tracks:
        final = track.final
        if final is None or final.outcome == "info":
            yield f"U3 {track.number}: unknown at the end: {final and (final.reason, final.details)}"
            continue
        others = [state for state in history.states(track.key, final) if state and state.crc64 not in track.contents]
        was_aborted = track.aborted_before(final.begin)
        if track.is_all_put and not others and final.outcome != "ok" and not (was_aborted and track.parts > 1):
            yield f"U3 {track.number}: all parts were put, but {final.reason} ({final.details})"
        made = any(each.outcome == "ok" for each in track.of("complete"))
        wrote = any(each.key == track.key and each.crc64 in track.contents for each in history.writes)
        ended = any(each.outcome == "ok" and each.end < final.begin for each in track.of("abort"))
        if track.parts > 1 and ended and not made and not wrote and final.reason != "UPLOAD_NOT_FOUND":
            yield f"U3 {track.number}: was aborted, but {final.outcome} {final.reason}"


def _refusals_are_true(history: UploadHistory) -> Iterable[str]:
    """U3: what a refusal says of the object was so at some instant of the call."""
    for step in history.refused:
        states = history.states(step.object, step)
        if step.reason not in TRANSIENT and (step.reason != "OBJECT_EXISTS" or not any(states)):
            yield f"U3 CreateUpload of {step.object}: {step.reason} ({step.details})"
    for track in history.tracks:
        for step in track.of("complete"):
            if step.outcome != "ok" and step.reason not in TRANSIENT and (why := _lie(history, track, step)):
                yield f"U3 {track.number}: {step.reason} ({step.details}), but {why}"
        for step in track.of("abort"):
            if step.outcome != "ok" and step.reason not in TRANSIENT:
                yield f"U3 {track.number}: abort refused with {step.reason} ({step.details})"


def _lie(history: UploadHistory, track: Track, step: Step) -> str:
    """What contradicts the refusal of a completion; empty: nothing."""
    states = history.states(track.key, step)
    is_others = any(state and state.crc64 not in track.contents for state in states)
    is_own = all(_is(state, track.contents[0], track.length) for state in states)
    own = [each.time for each in history.writes if each.key == track.key and each.crc64 in track.contents]
    wrote, may_have_written = any(time <= step.begin for time in own), any(time <= step.end for time in own)
    was_aborted, at_rest = track.aborted_before(step.end), is_own and step.is_own
    lies = {
        "OBJECT_EXISTS": ((not is_others, "no other's object was there"),),
        "UPLOAD_NOT_FOUND": (
            (track.parts == 1 or at_rest, "it was there"),
            (not was_aborted and not (may_have_written and "replaced" in step.details), "nobody aborted it"),
        ),
        "UPLOAD_INCOMPLETE": (
            (at_rest, "the object was whole"),
            (wrote and step.details.endswith("PUT it to the address of its part before"), "it was put"),
        ),
    }.get(step.reason, ((True, "it says nothing true of an upload"),))
    return next((why for is_lie, why in lies if is_lie), "")


def _strangers(history: UploadHistory) -> Iterable[str]:
    """U4: the token of another gets the one answer for any text that is no token."""
    for track in history.tracks:
        for step in track.steps:
            if step.caller == track.caller or step.reason in TRANSIENT:
                continue
            if (step.outcome, step.reason) != ("fail", NOT_A_TOKEN) or track.key in step.details:
                yield f"U4 {track.number}: {step.caller} was told {step.outcome} {step.reason} {step.details}"


def _left(history: UploadHistory) -> Iterable[str]:
    """U5: no part is left, and no multipart upload that anybody was told of."""
    if any(history.parts_left) or len(history.parts_left) > history.lost_begins:
        yield f"U5 {history.parts_left} parts left, of {history.lost_begins} begins without an answer"


def _addresses(history: UploadHistory) -> Iterable[str]:
    """U6: an address puts something from the moment it is told until its time, by the cloud's clock, has passed."""
    for track in history.tracks:
        created = track.created
        earliest, latest = created.begin + track.ttl - SLACK, created.end + track.ttl + SLACK
        if not earliest <= track.expires <= latest:
            yield f"U6 {track.number}: its addresses end after {track.expires - created.end:.1f} s, not {track.ttl}"
        for step in track.of("put"):
            if step.outcome == "ok" and step.begin > latest:
                yield f"U6 {track.number}: an address put something {step.begin - latest:.0f} s after its end"
            if step.reason.startswith("403") and step.end < earliest:
                yield f"U6 {track.number}: a new address was refused with {step.reason}"
            if step.reason.startswith("409") and (track.fresh or not any(history.states(track.key, step))):
                yield f"U3 {track.number}: a PUT was refused with {step.reason}, and there was no object"


def _is(state: Write | None, crc64: int, length: int) -> bool:
    return state is not None and (state.crc64, state.length) == (crc64, length)
