"""Records of creates: what becomes of them, the pages that they count, and how a store keeps them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docpreview.v1.preview_job_pb2 import PreviewJob, PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.creates.keys import MAC_BYTES, CreateKeys
from docpreview_gateway.creates.records import (
    MAX_STORED_BYTES,
    Held,
    Record,
    RecordError,
    State,
    Timing,
    index_of,
    packed,
    stored_request,
    unpacked,
)

NOW = 1_796_000_000.75
TIMING = Timing()
OLD, NEW = b"o" * 32, b"n" * 32
KEYS = CreateKeys("production", [NEW])
NEW_RECORD = Record("key", b"body", "kid", "a", "docs-1250000000", b"request", "place", "", 3600.0, "2026-11-30", 30)
OPEN = NEW_RECORD.opened(NOW, TIMING)

TEXTS = st.text(max_size=20)
BYTES = st.binary(max_size=40)
TIMES = st.floats(allow_nan=False, allow_infinity=False)
PAGES = st.integers(0, 10**9)
RECORDS = st.builds(
    Record,
    key=TEXTS,
    body=BYTES,
    kid=TEXTS,
    caller=TEXTS,
    bucket=TEXTS,
    request=BYTES,
    place=TEXTS,
    render=TEXTS,
    keep=TIMES,
    day=TEXTS,
    asked=PAGES,
    state=st.sampled_from(State),
    nonce=BYTES,
    sign_start=TIMES,
    sign_end=TIMES,
    first_start=TIMES,
    job_id=TEXTS,
    job=BYTES,
    made=PAGES,
    expires_at=TIMES,
)


def a_job(**fields: Any) -> PreviewJob:
    job = PreviewJob(bucket="docs-1250000000", job_id="job", state=PreviewJob.STATE_SUBMITTED, **fields)
    job.create_time.FromSeconds(1_796_000_005)
    return job


# what becomes of a record


def test_an_attempt_is_signed_from_a_minute_before_its_beginning() -> None:
    """For 45 seconds more, in whole seconds: that is what is signed."""
    assert OPEN.state is State.OPEN
    assert (OPEN.sign_start, OPEN.sign_end, OPEN.first_start) == (1_795_999_940, 1_796_000_045, 1_795_999_940)


def test_a_reopened_create_has_another_nonce_and_its_first_beginning() -> None:
    """Its list is read from the first attempt on; an attempt by a slower clock moves the beginning back."""
    later = OPEN.opened(NOW + 300, TIMING)
    assert later.nonce != OPEN.nonce
    assert (later.sign_start, later.first_start) == (OPEN.sign_start + 300, OPEN.first_start)
    assert OPEN.opened(NOW - 300, TIMING).first_start == OPEN.first_start - 300


def test_an_accepted_create_has_its_job_and_expires_by_the_job_s_own_time() -> None:
    done = OPEN.accepted(a_job(), NOW)
    assert (done.state, done.job_id, done.answer()) == (State.ACCEPTED, "job", a_job())
    assert done.expires_at == 1_796_000_005 + 3600
    assert replace(done, state=OPEN.state, job_id="", job=b"", expires_at=0.0) == OPEN


def test_a_job_without_time_expires_by_that_of_its_acceptance() -> None:
    done = OPEN.accepted(PreviewJob(job_id="job"), NOW)
    assert (done.expires_at, done.created_at) == (NOW + 3600, 0)


def test_a_record_tells_when_the_cloud_created_its_job() -> None:
    assert (OPEN.created_at, OPEN.accepted(a_job(), NOW).created_at) == (0, 1_796_000_005)


def test_a_job_that_is_too_long_to_keep_is_remembered_by_its_id() -> None:
    done = OPEN.accepted(a_job(user_data="x" * MAX_STORED_BYTES), NOW)
    answer = done.answer()
    assert len(done.job) <= MAX_STORED_BYTES
    assert (answer.bucket, answer.job_id, answer.state) == ("docs-1250000000", "job", PreviewJob.STATE_SUBMITTED)
    assert (done.expires_at, done.created_at) == (1_796_000_005 + 3600, 1_796_000_005)
    undated = OPEN.accepted(PreviewJob(job_id="job", user_data="x" * MAX_STORED_BYTES), NOW)
    assert not undated.answer().HasField("create_time")


def test_a_create_whose_pages_are_not_counted_is_charged_at_once() -> None:
    done = replace(OPEN, day="").accepted(a_job(), NOW)
    assert done.state is State.CHARGED
    assert done.counts == Held()


def test_a_record_holds_what_was_asked_until_it_is_charged_what_was_made() -> None:
    done = OPEN.accepted(a_job(), NOW)
    assert OPEN.counts == done.counts == Held(held=30)
    assert done.charged(7).counts == Held(used=7)
    assert OPEN.month == "2026-11"


def test_the_time_to_watch_an_attempt_covers_signature_fence_and_lists() -> None:
    assert TIMING.watch == 45 + 60 + 60
    assert Timing(visibility=10).watch == 45 + 60 + 10


def test_a_stored_request_has_neither_password_nor_id() -> None:
    """Nor fields that this version does not know. The request itself stays as it is."""
    request = CreatePreviewJobRequest(
        bucket="b", request_id="r", options=PreviewOptions(password="secret", page_ranges="1")
    )
    request.MergeFromString(b"\xc0\x3e\x01")  # field 1000
    kept = stored_request(request)
    assert b"secret" not in kept
    assert CreatePreviewJobRequest.FromString(kept) == CreatePreviewJobRequest(
        bucket="b", options=PreviewOptions(page_ranges="1")
    )
    assert replace(OPEN, request=kept).read_request().bucket == "b"
    assert (request.request_id, request.options.password) == ("r", "secret")


# how a store keeps it


@given(RECORDS)
def test_any_record_comes_back_as_it_was_packed(record: Record) -> None:
    """Types too: a time that is a whole number stays one with a point."""
    back = unpacked(packed(record, KEYS), KEYS)
    assert back == record
    assert repr(back) == repr(record)
    assert index_of(back) == index_of(record)


@given(RECORDS, st.data())
def test_a_packed_record_with_another_byte_is_refused(record: Record, data: st.DataObject) -> None:
    stored = bytearray(packed(record, KEYS))
    position = data.draw(st.integers(0, len(stored) - 1))
    stored[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RecordError):
        unpacked(bytes(stored), KEYS)


@given(RECORDS, st.data())
def test_a_packed_record_that_was_cut_or_lengthened_is_refused(record: Record, data: st.DataObject) -> None:
    stored = packed(record, KEYS)
    with pytest.raises(RecordError):
        unpacked(stored[: data.draw(st.integers(0, len(stored) - 1))], KEYS)
    with pytest.raises(RecordError):
        unpacked(stored + data.draw(st.binary(min_size=1, max_size=9)), KEYS)


@given(st.binary(max_size=200))
def test_bytes_that_nobody_packed_are_refused(stored: bytes) -> None:
    with pytest.raises(RecordError):
        unpacked(stored, KEYS)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"{}",
        b"[]",
        json.dumps(["x"] * 20).encode(),
        json.dumps(["x"] * 21).encode(),
        json.dumps([[]] * 20).encode(),
        b"\xff",
    ],
)
def test_a_record_in_the_form_of_another_version_is_refused(text: bytes) -> None:
    """Its MAC is right: this deployment has made it."""
    stored = KEYS.id.encode() + KEYS.mac(b"production\n" + text, KEYS.id) + text
    with pytest.raises(RecordError, match="by this version"):
        unpacked(stored, KEYS)


def test_records_of_another_deployment_are_refused() -> None:
    """Of another namespace with the same secret, and of a secret that is not configured."""
    with pytest.raises(RecordError, match="secret"):
        unpacked(packed(OPEN, CreateKeys("staging", [NEW])), KEYS)
    with pytest.raises(RecordError, match="not configured"):
        unpacked(packed(OPEN, CreateKeys("production", [OLD])), KEYS)


def test_records_of_a_replaced_secret_can_be_read_and_are_packed_with_the_new_one() -> None:
    rotated = CreateKeys("production", [NEW, OLD])
    assert unpacked(packed(OPEN, CreateKeys("production", [OLD])), rotated) == OPEN
    assert unpacked(packed(OPEN, rotated), KEYS) == OPEN


def test_a_record_packed_twice_is_the_same() -> None:
    """Its length is that of its fields: what a store writes does not grow."""
    assert packed(OPEN, KEYS) == packed(unpacked(packed(OPEN, KEYS), KEYS), KEYS)
    assert len(packed(OPEN, KEYS)) < 8 + MAC_BYTES + 400


def test_the_index_says_what_the_record_counts() -> None:
    charged = OPEN.accepted(a_job(), NOW).charged(7)
    assert index_of(OPEN)[:6] == ("open", OPEN.nonce.hex(), "a", "2026-11-30", 30, 0)
    assert index_of(charged)[:6] == ("charged", OPEN.nonce.hex(), "a", "2026-11-30", 0, 7)
    assert index_of(charged)[6:] == ("place", "", "docs-1250000000", "job", OPEN.first_start)


def test_states_are_stored_under_the_same_names_by_every_version() -> None:
    assert [str(state) for state in State] == ["open", "accepted", "charged"]
