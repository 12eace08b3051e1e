"""Records of creates before they are begun."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions
from docpreview_gateway.access.bucket_registry import BucketRegistry
from docpreview_gateway.creates.drafts import Drafts, place_of
from docpreview_gateway.creates.records import MAX_STORED_BYTES, Record, State
from tests.fakes.recorded import KEYS
from tests.unit.creates.worlds import BUCKET, COUNTED, DEDUPES, EXCLUSIVE, NOON, ONE, TIMING, request

if TYPE_CHECKING:
    from docpreview_gateway.model.callers import Caller

REGISTRY = BucketRegistry([BUCKET, EXCLUSIVE])
DRAFTS = Drafts(KEYS, TIMING)


def draft(asked: object = None, caller: Caller = ONE, day: str = "2026-11-15") -> Record:
    sent = asked or request()
    return DRAFTS.record(sent, REGISTRY.admit_create(sent, caller), caller, day)  # type: ignore[arg-type]


def place(**fields: object) -> str:
    asked = request(**fields)  # type: ignore[arg-type]
    return place_of(REGISTRY.admit_create(asked, ONE))


def test_a_record_keeps_the_request_without_password_and_id() -> None:
    asked = request(user_data="mine", options=PreviewOptions(password="CANARY", quality=80))
    record = draft(asked)
    kept = record.read_request()
    assert (kept.user_data, kept.options.quality, kept.options.password, kept.request_id) == ("mine", 80, "", "")
    assert b"CANARY" not in record.request
    assert draft(request(asked.request_id)).body != record.body


def test_a_request_that_is_too_large_is_not_kept() -> None:
    asked = request(options=PreviewOptions(image_params="\U0001f4c4" * 2048))
    assert len(asked.SerializeToString()) > MAX_STORED_BYTES
    assert draft(asked).request == b""


@pytest.mark.parametrize(("more", "is_kept"), [(0, True), (1, False)])
def test_a_request_of_the_largest_size_is_kept(more: int, is_kept: bool) -> None:  # noqa: FBT001
    asked = request("", options=PreviewOptions(image_params="\U0001f4c4" * 2035))
    rest = MAX_STORED_BYTES - len(draft(asked).request)
    asked.options.image_params += "p" * (rest + more)
    assert (len(draft(asked).request) == MAX_STORED_BYTES) is is_kept


def test_only_a_caller_with_a_budget_reserves_pages() -> None:
    assert (draft().day, draft().asked) == ("", 0)
    assert (draft(caller=COUNTED).day, draft(caller=COUNTED).asked) == ("2026-11-15", 40)


@pytest.mark.parametrize(
    ("name", "caller", "keep"),
    [(None, ONE, TIMING.keep), ("", ONE, 0.0), ("", DEDUPES, 3600.0), (None, DEDUPES, TIMING.keep)],
)
def test_an_id_is_remembered_for_its_time_and_a_place_for_its_own(
    name: str | None, caller: Caller, keep: float
) -> None:
    assert draft(request(name), caller).keep == keep


def test_keys_without_an_id_are_random() -> None:
    assert draft(request("")).key != draft(request("")).key
    asked = request()
    assert draft(asked).key == draft(asked).key


def test_documents_share_a_place_unless_its_template_has_a_token() -> None:
    token = ObjectLocation(object="${RequestToken}/${Number}.jpg")
    assert place() == place(input_object="b.pdf")
    assert place() == place(output=ObjectLocation(bucket=BUCKET.name, object="out/p-${Page}.jpg"))
    assert place() != place(output=ObjectLocation(bucket=EXCLUSIVE.name, object="out/p-${Page}.jpg"))
    assert place() != place(output=ObjectLocation(object="out/q-${Page}.jpg"))
    assert place(output=token) == place(output=token)
    assert place(output=token) != place(output=token, input_object="b.pdf")


def test_an_attempt_is_signed_for_its_window_and_another_try_has_another_one() -> None:
    first = DRAFTS.opened(draft(), NOON)
    second = DRAFTS.opened(first, NOON + 10)
    assert (first.sign_start, first.sign_end, first.first_start) == (NOON - 60, NOON + 45, NOON - 60)
    assert (second.sign_start, second.first_start) == (NOON - 50, NOON - 50)
    assert first.nonce != second.nonce


def test_a_record_is_counted_to_the_stores_day_or_that_of_the_cloud() -> None:
    assert DRAFTS.on_day(draft(caller=COUNTED), "2026-11-14", NOON).day == "2026-11-14"
    assert DRAFTS.on_day(draft(caller=COUNTED), "", NOON).day == "2026-11-15"


def test_an_alias_has_the_job_of_another_create_and_no_pages_of_its_own() -> None:
    job = PreviewJob(bucket=BUCKET.name, job_id="d1", state=PreviewJob.STATE_SUCCESS)
    job.result.pages.add(object="out/p-1.jpg")
    mine = DRAFTS.opened(draft(caller=COUNTED), NOON)
    alias = DRAFTS.alias(mine, job, draft(caller=COUNTED))
    assert (alias.key, alias.job_id, alias.state, alias.counts) == (mine.key, "d1", State.CHARGED, (0, 0))
    assert alias.expires_at == pytest.approx(NOON + TIMING.keep, abs=61)
    assert alias.place == ""
    assert not alias.answer().result.pages
    assert job.result.pages
