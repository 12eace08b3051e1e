"""Fault campaigns of uploads by callers that share keys, and the checker of their history."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.test_creates import SEED
from tests.faults.upload_clients import UploadPlan
from tests.faults.upload_history import NOT_A_TOKEN, Kind, Step, Track, UploadHistory, Write, upload_violations
from tests.faults.uploading import run_upload_campaign

if TYPE_CHECKING:
    from pathlib import Path


def soaks() -> list[UploadPlan]:
    """Plans of `make soak`."""
    return [
        UploadPlan(SEED, ids=1_500, large=60, kills=20, pauses=10, jumps=30),
        UploadPlan(SEED + 1, ids=1_500, large=60, kills=20, pauses=10, jumps=30, gateways=3),
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_callers_that_share_keys_get_their_own_uploads_or_true_refusals(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """U1 to U6."""
    caplog.set_level(logging.CRITICAL)
    report = await run_upload_campaign(UploadPlan(SEED, ids=120, large=8, kills=3, pauses=2, jumps=6), tmp_path)
    print(f"\n{report}")  # noqa: T201 - the figures
    assert report.violations == [], str(report)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("plan", soaks(), ids=str)
async def test_callers_that_share_keys_get_their_own_uploads_in_a_long_campaign(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, plan: UploadPlan
) -> None:
    """The plans of `make soak`."""
    caplog.set_level(logging.CRITICAL)
    report = await run_upload_campaign(plan, tmp_path)
    print(f"\n{report}")  # noqa: T201 - the figures
    assert report.violations == [], str(report)


KEY = "in/k"


def step(kind: Kind, begin: float, outcome: str = "ok", reason: str = "", **more: Any) -> Step:
    return Step(kind, "shop", begin, begin + 0.5, outcome, reason, **more)  # type: ignore[arg-type]  # of this module


def told(begin: float, crc64: int = 1, **more: Any) -> Step:
    usual: dict[str, Any] = {"object": KEY, "length": 7, "crc64": crc64}
    return step("complete", begin, **usual | more)


def track(number: int = 1, *steps: Step, final: Step | None = None, **more: Any) -> Track:
    """An upload of 7 bytes to KEY, whose CRC-64 is its number, begun at 0."""
    usual: dict[str, Any] = {"key": KEY, "expires": 900.0, "contents": [number]}
    last = final or told(90, number)
    return Track(number, "shop", 7, steps=[step("create", 0), *steps], final=last, **usual | more)


FIRST, SECOND = Write(KEY, 1, 7, 2.0), Write(KEY, 2, 7, 4.0)
PUT = step("put", 1.8)
EXISTS, GONE = ("fail", "OBJECT_EXISTS"), ("fail", "UPLOAD_NOT_FOUND")
NOT_PUT = ("fail", "UPLOAD_INCOMPLETE")
LOSER = track(2, step("put", 3, "fail", "409 FileAlreadyExists"), final=step("complete", 90, *EXISTS))
ABORTED = track(2, step("abort", 3), key="other", parts=2, final=step("complete", 90, *GONE))
STRANGER = Step("complete", "bank", 3, 3.5, "fail", NOT_A_TOKEN, "upload_token")
VALID = UploadHistory(
    [track(1, PUT, told(3), STRANGER, step("abort", 5)), LOSER, ABORTED],
    [FIRST],
    [step("create", 3, *EXISTS, object=KEY), step("create", 3, "info", "UNAVAILABLE", object=KEY)],
    [0],
    1,
)
BROKEN = {
    "U1 another's content is told": UploadHistory([track(1, told(3, 2), may_replace=True), track(2)], [FIRST, SECOND]),
    "U1 another length is told": UploadHistory([track(1, told(3, length=8))], [FIRST]),
    "U1 another key is told": UploadHistory([track(1, told(3, object="l"))], [FIRST]),
    "U1 an object that is not there is told": UploadHistory([track(1, told(1))], [FIRST]),
    "U1 a content that is not the announced one": UploadHistory(
        [track(1, told(5, 2), contents=[1, 2], announced_crc=True)], [FIRST, SECOND]
    ),
    "U2 replaced without the right to": UploadHistory([track(1), track(2)], [FIRST, SECOND]),
    "U2 replaced at the key of another's upload": UploadHistory(
        [track(1, fresh=True), track(2, may_replace=True)], [FIRST, SECOND]
    ),
    "U2 bytes of nobody": UploadHistory([track(1)], [FIRST, Write(KEY, 9, 7, 3.0)]),
    "U2 a part of a content": UploadHistory([track(1)], [FIRST, Write(KEY, 1, 6, 3.0)]),
    "U3 unknown at the end": UploadHistory([track(1, final=step("complete", 90, "info", "UNAVAILABLE"))], [FIRST]),
    "U3 put, and cannot be completed": UploadHistory([track(1, PUT, final=step("complete", 90, *NOT_PUT))]),
    "U3 aborted, and completed": UploadHistory(
        [track(1, step("abort", 3), parts=2, final=step("complete", 90, *NOT_PUT))]
    ),
    "U3 no other's object exists": UploadHistory([track(1, final=step("complete", 90, *EXISTS))], [FIRST]),
    "U3 no object exists at the begin": UploadHistory([], [], [step("create", 3, *EXISTS, object=KEY)]),
    "U3 no object exists at the PUT": UploadHistory(
        [track(1, step("put", 1, "fail", "409 FileAlreadyExists"))], [FIRST]
    ),
    "U3 incomplete, and it is whole": UploadHistory([track(1, step("complete", 5, *NOT_PUT))], [FIRST]),
    "U3 not put, and it was replaced": UploadHistory(
        [
            track(1, final=step("complete", 90, *NOT_PUT, details="PUT it to the address of its part before")),
            track(2, may_replace=True),
        ],
        [FIRST, SECOND],
    ),
    "U3 gone, and nobody aborted it": UploadHistory([track(1, parts=2, final=step("complete", 90, *GONE))]),
    "U3 a refusal that is of no upload": UploadHistory(
        [track(1, step("complete", 5, "fail", "INPUT_OBJECT_UNREADABLE"))], [FIRST]
    ),
    "U3 an abort is refused": UploadHistory([track(1, step("abort", 5, "fail", NOT_A_TOKEN))], [FIRST]),
    "U4 another completes it": UploadHistory([track(1, Step("complete", "bank", 3, 4, "ok"))], [FIRST]),
    "U4 another aborts it": UploadHistory([track(1, Step("abort", "bank", 3, 4, "ok"))], [FIRST]),
    "U4 another is told of it": UploadHistory(
        [track(1, Step("complete", "bank", 3, 4, "fail", "OBJECT_EXISTS"))], [FIRST]
    ),
    "U5 parts are left": UploadHistory([track(1)], [FIRST], parts_left=[1], lost_begins=1),
    "U5 an upload is left": UploadHistory([track(1)], [FIRST], parts_left=[0]),
    "U6 an address that ends late": UploadHistory([track(1, expires=90_900)], [FIRST]),
    "U6 put after the end": UploadHistory([track(1, step("put", 950))], [FIRST]),
    "U6 refused before the end": UploadHistory([track(1, step("put", 5, "fail", "403 AccessDenied"))], [FIRST]),
}


def test_uploads_that_meet_every_promise_have_no_violations() -> None:
    """One that wins a key, one that loses it, an aborted one, a stranger, and calls without an answer."""
    assert upload_violations(VALID) == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_of_uploads_is_reported_under_its_name(name: str) -> None:
    """Each line begins with the name of its promise."""
    assert name[:2] in {line[:2] for line in upload_violations(BROKEN[name])}


def test_what_was_there_at_some_instant_of_a_call_may_be_told() -> None:
    """The call of an upload that may be replaced meets the object before and after it."""
    for crc64 in (1, 2):
        history = UploadHistory([track(crc64, told(3.8, crc64), final=told(3.8, crc64))], [FIRST, SECOND])
        assert [line for line in upload_violations(history) if line.startswith("U1")] == []


def test_an_upload_that_is_made_and_replaced_within_a_call_is_not_found_by_it() -> None:
    """The same completion, twice at once: one makes the object, the other finds the one that replaced it."""
    gone = step("complete", 1.8, *GONE, details="it was aborted, its parts were deleted, or its object was replaced")
    replaced = UploadHistory(
        [track(1, told(1.8), gone, parts=2, final=gone), track(2, told(2.1, 2), may_replace=True, final=told(90, 2))],
        [FIRST, Write(KEY, 2, 7, 2.2)],
    )
    assert upload_violations(replaced) == []
