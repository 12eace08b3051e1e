"""The registry of configured buckets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewOptions
from docpreview.v1.preview_job_service_pb2 import (
    BatchGetPreviewJobsRequest,
    CreatePreviewJobRequest,
    GetPreviewJobRequest,
    ListPreviewJobsRequest,
)
from docpreview_gateway.access.bucket_registry import BucketRegistry, BucketRequest
from docpreview_gateway.model.call import MAX_NOTED_JOBS, Call
from docpreview_gateway.model.callers import ANONYMOUS, Caller, PageBudget
from docpreview_gateway.model.errors import GatewayError, InvalidRequest
from docpreview_gateway.model.option_rules import OptionRules
from tests.fakes.policies import caller_of
from tests.unit.conftest import BUCKET, OTHER

MADE = Call("r1", deadline=0.0)
REGISTRY = BucketRegistry([BUCKET, OTHER])


def test_a_valid_request_gets_the_bucket_as_it_is_configured() -> None:
    """The same object."""
    assert REGISTRY.admit(GetPreviewJobRequest(bucket=BUCKET.name, job_id="d1"), MADE) is BUCKET
    assert REGISTRY.find(OTHER.name) is OTHER


@pytest.mark.parametrize(
    ("request_", "job_ids"),
    [
        (GetPreviewJobRequest(bucket=BUCKET.name, job_id="d1"), ("d1",)),
        (BatchGetPreviewJobsRequest(bucket=BUCKET.name, job_ids=["d1", "d2"]), ("d1", "d2")),
        (
            BatchGetPreviewJobsRequest(bucket=BUCKET.name, job_ids=[f"d{number}" for number in range(100)]),
            tuple(f"d{number}" for number in range(MAX_NOTED_JOBS)),
        ),
        (ListPreviewJobsRequest(bucket=BUCKET.name), ()),
    ],
)
def test_a_valid_request_notes_its_bucket_and_its_first_jobs_for_the_operator_page(
    request_: BucketRequest, job_ids: tuple[str, ...]
) -> None:
    REGISTRY.admit(request_, call := Call("r1", 0.0))
    assert (call.response.bucket, call.response.job_ids) == (BUCKET.name, job_ids)


@pytest.mark.parametrize("job_id", ["", "../x", "x" * 100])
def test_an_invalid_request_notes_nothing(job_id: str) -> None:
    """What a caller sends is kept only once it is valid."""
    call = Call("r1", 0.0)
    with pytest.raises(InvalidRequest):
        REGISTRY.admit(GetPreviewJobRequest(bucket=BUCKET.name, job_id=job_id), call)
    assert (call.response.bucket, call.response.job_ids) == ("", ())


@pytest.mark.parametrize("job_id", ["d1", "", "../x"])
def test_a_bucket_that_is_not_configured_is_rejected_before_validation(job_id: str) -> None:
    """Callers without the bucket learn nothing about the validity of the rest (AIP-211)."""
    with pytest.raises(GatewayError) as caught:
        REGISTRY.admit(GetPreviewJobRequest(bucket="stranger-1250000000", job_id=job_id), MADE)
    assert caught.value.reason == r.ERROR_REASON_BUCKET_NOT_CONFIGURED
    assert REGISTRY.find("stranger-1250000000") is None


@pytest.mark.parametrize("name", ["", "no appid", "a.b-1250000000", "evil.example/#-1250000000", "x" * 10_000])
def test_a_malformed_bucket_name_is_a_violation_like_others(name: str) -> None:
    """In one error with the rest."""
    with pytest.raises(InvalidRequest) as caught:
        REGISTRY.admit(GetPreviewJobRequest(bucket=name, job_id="../x"), MADE)
    assert [violation.field for violation in caught.value.violations] == ["bucket", "job_id"]


def test_a_registry_without_buckets_admits_nothing() -> None:
    """Deny by default."""
    with pytest.raises(GatewayError) as caught:
        BucketRegistry([]).admit(GetPreviewJobRequest(bucket=BUCKET.name, job_id="d1"), MADE)
    assert caught.value.reason == r.ERROR_REASON_BUCKET_NOT_CONFIGURED


def test_an_invalid_request_for_a_configured_bucket_is_rejected() -> None:
    """InvalidRequest."""
    with pytest.raises(InvalidRequest):
        REGISTRY.admit(GetPreviewJobRequest(bucket=BUCKET.name, job_id="../x"), MADE)


def test_results_go_to_the_source_bucket_unless_another_is_named() -> None:
    """The region may be given or omitted."""
    assert REGISTRY.admit_output(ObjectLocation(object="p"), BUCKET) is BUCKET
    assert REGISTRY.admit_output(ObjectLocation(bucket=OTHER.name), BUCKET) is OTHER
    assert REGISTRY.admit_output(ObjectLocation(bucket=OTHER.name, region=OTHER.region), BUCKET) is OTHER


def test_an_output_bucket_that_is_not_configured_is_rejected() -> None:
    """The cloud's key may be able to write there; callers are not allowed to."""
    with pytest.raises(GatewayError) as caught:
        REGISTRY.admit_output(ObjectLocation(bucket="stranger-1250000000"), BUCKET)
    assert caught.value.reason == r.ERROR_REASON_BUCKET_NOT_CONFIGURED


@pytest.mark.parametrize("bucket", ["", OTHER.name])
def test_an_output_region_that_is_not_the_buckets_is_a_violation(bucket: str) -> None:
    """A region is checked, never used as an address."""
    with pytest.raises(InvalidRequest) as caught:
        REGISTRY.admit_output(ObjectLocation(bucket=bucket, region="ap-beijing"), BUCKET)
    assert [violation.field for violation in caught.value.violations] == ["output.region"]


@pytest.mark.parametrize(
    ("caller", "disclosed"),
    [
        (ANONYMOUS, True),
        (caller_of("whole", {BUCKET.name: ("",)}), True),
        (caller_of("part", {BUCKET.name: ("in/",)}), False),
        (caller_of("nothing", {BUCKET.name: ()}), False),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_how_a_call_was_served_is_disclosed_to_callers_who_see_all_of_the_bucket(
    caller: Caller,
    disclosed: bool,  # noqa: FBT001
) -> None:
    """To others it would tell what happened to jobs that they do not see."""
    call = Call("r1", 0.0, caller)
    REGISTRY.admit(GetPreviewJobRequest(bucket=BUCKET.name, job_id="d1"), call)
    assert call.response.disclosed == disclosed


PAGES = st.none() | st.integers(-(2**31), 2**31 - 1) | st.integers(-2, 5002)
OPTIONS = st.builds(
    PreviewOptions,
    start_page=PAGES,
    end_page=PAGES,
    page_ranges=st.sampled_from(["", "1", "1-4,9", "4-1", "x", "0-99999999999", "1,,2", "-", "9999"]),
    single_image=st.booleans(),
    target_format=st.sampled_from(PreviewOptions.TargetFormat.values()),
)


@given(OPTIONS, OPTIONS, st.none() | st.integers(1, 5000))
@settings(max_examples=500, deadline=None, derandomize=True, database=None)
def test_any_selection_of_pages_is_within_the_limits_or_an_invalid_request(
    options: PreviewOptions, force: PreviewOptions, most: int | None
) -> None:
    """Never another error: the policy's rules are applied before the numbers are checked."""
    rules = OptionRules(force=force, max_pages=most)
    caller = caller_of("shop", {BUCKET.name: ("in/",)}, ("p/",), options=rules)
    output = ObjectLocation(object="p/${Number}.jpg" if options.single_image else "p/${Page}.jpg")
    request = CreatePreviewJobRequest(bucket=BUCKET.name, input_object="in/a.pdf", output=output, options=options)
    try:
        made = REGISTRY.admit_create(request, caller).request.options
    except InvalidRequest:
        return
    assert 0 <= made.start_page <= 5000
    assert -1 <= made.end_page <= 5000
    if most is not None and not made.page_ranges:
        assert 1 <= made.end_page - (made.start_page or 1) + 1 <= most


ASKED = Caller("hard", budget=PageBudget(per_day=10, count="asked"))
ESTIMATED = Caller("soft", budget=PageBudget(per_day=10))


def create(document: str = "in/a.pptx", **options: Any) -> CreatePreviewJobRequest:
    return CreatePreviewJobRequest(
        bucket=BUCKET.name,
        input_object=document,
        output=ObjectLocation(object="p-${SheetID}/${Number}.jpg"),
        options=PreviewOptions(**options),
    )


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (create(), ["options.page_ranges"]),
        (create(start_page=3), ["options.page_ranges"]),
        (create(end_page=-1), ["options.page_ranges"]),
        (create(target_format=PreviewOptions.TARGET_FORMAT_PDF, end_page=3), ["options.target_format"]),
        (create("in/a.xlsx"), ["options.page_ranges", "options.sheet_id"]),
        (create("in/a.xlsx", end_page=3), ["options.sheet_id"]),
        (create("in/A.XLSX", end_page=3, sheet_id=0), ["options.sheet_id"]),
        (create("in/a", source_format="csv", page_ranges="1,3"), ["options.sheet_id"]),
        (create("in/a.xls", sheet_id=1), ["options.page_ranges"]),
    ],
)
def test_a_create_that_does_not_say_how_many_pages_is_refused_if_the_budget_counts_asked_pages(
    request_: CreatePreviewJobRequest, fields: list[str]
) -> None:
    """The violations say what to set. Other budgets estimate, and shadow mode refuses nothing."""
    with pytest.raises(InvalidRequest) as caught:
        REGISTRY.admit_create(request_, ASKED)
    assert [violation.field for violation in caught.value.violations] == fields
    assert all("how many pages" in violation.description for violation in caught.value.violations)
    assert REGISTRY.admit_create(request_, ESTIMATED).request == request_
    assert REGISTRY.admit_create(request_, ANONYMOUS).request == request_
    assert REGISTRY.admit_create(request_, replace(ASKED, shadow=True)).request == request_


@pytest.mark.parametrize(
    "request_",
    [
        create(page_ranges="1,3-4"),
        create(end_page=3),
        create(start_page=2, end_page=2),
        create("in/a.xlsx", end_page=3, sheet_id=2),
        create("in/a.xlsx", page_ranges="1", sheet_id=1),
    ],
)
def test_a_create_that_says_how_many_pages_is_admitted_by_every_budget(request_: CreatePreviewJobRequest) -> None:
    """Of a spreadsheet, within one sheet."""
    assert REGISTRY.admit_create(request_, ASKED).request == request_


def test_pages_that_the_policy_selects_are_asked_for() -> None:
    """`max_pages` sets `end_page` where the caller did not."""
    caller = replace(caller_of("a", {BUCKET.name: ("",)}, options=OptionRules(max_pages=5)), budget=ASKED.budget)
    admitted = REGISTRY.admit_create(create(), caller)
    assert admitted.request.options.end_page == 5
