"""The errors of creates, as callers get them."""

from __future__ import annotations

import pytest

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview_gateway.creates import refusals
from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.model.callers import ANONYMOUS
from tests.fakes.policies import caller_of
from tests.unit.creates.worlds import BUCKET, name_of


def jobs(*keys: str) -> list[PreviewJob]:
    return [
        PreviewJob(
            bucket=BUCKET.name,
            job_id=f"id-of-{key}",
            input=ObjectLocation(bucket=BUCKET.name, object=key),
            output=ObjectLocation(bucket=BUCKET.name, object="out/p"),
        )
        for key in keys
    ]


def test_candidates_of_an_ambiguous_create_are_named_if_the_caller_may_see_them() -> None:
    everything = refusals.ambiguous(jobs("a/1", "b/1"), ANONYMOUS)
    assert (name_of(everything), everything.retry_after) == ("CREATE_OUTCOME_AMBIGUOUS", None)
    assert "id-of-a/1, id-of-b/1" in everything.message
    some = refusals.ambiguous(jobs("a/1", "b/1"), caller_of("one", {BUCKET.name: ("a/",)}, ("out/",)))
    assert "id-of-a/1" in some.message
    assert "id-of-b/1" not in some.message


def test_no_more_candidates_are_named_than_a_caller_can_read() -> None:
    error = refusals.ambiguous(jobs(*(f"k{n:03}" for n in range(100))), ANONYMOUS)
    assert error.message.count("id-of-") == 10


def test_a_create_without_candidates_is_ambiguous_all_the_same() -> None:
    assert "candidates" not in refusals.ambiguous((), ANONYMOUS).message


@pytest.mark.parametrize(("has_id", "text"), [(True, "is safe"), (False, "is not")])
def test_an_unknown_outcome_says_whether_a_repeat_is_safe(has_id: bool, text: str) -> None:  # noqa: FBT001
    error = refusals.unknown(99.6, has_id=has_id)
    assert (name_of(error), error.retry_after) == ("CREATE_OUTCOME_UNKNOWN", 99.6)
    assert text in error.message
    assert ("100 seconds" in error.message) is not has_id


def test_errors_before_anything_was_sent_say_so() -> None:
    for made in (refusals.not_recordable, refusals.not_countable):
        error = made(StoreError("key x", wait=7.0))
        assert "nothing was sent" in error.message
        assert "key x" not in error.message
        assert (error.retry_after, made(StoreError("")).retry_after) == (7, 1)
    occupied = refusals.occupied()
    assert "nothing was sent" in occupied.message
    assert (name_of(occupied), occupied.retry_after) == ("CREATE_IN_PROGRESS", 1)


def test_a_create_that_cannot_be_recorded_is_told_whether_one_without_id_could_pass() -> None:
    with_id, without = (refusals.not_recordable(StoreError(""), has_id=has_id) for has_id in (True, False))
    assert with_id.message.startswith("creates with request_id or webhook are not possible now")
    assert refusals.not_recordable(StoreError("")).message == with_id.message
    assert without.message.startswith("creates in this bucket are not possible now, with request_id or without")


def test_an_id_that_was_reused_is_never_to_be_repeated() -> None:
    error = refusals.reused()
    assert (name_of(error), error.retry_after) == ("REQUEST_ID_REUSED", None)
