"""Rules of page budgets: what is reserved, what is charged, and when a budget renews."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docpreview.v1.preview_job_pb2 import PreviewJob, PreviewOptions, PreviewResult
from docpreview_gateway.creates import pages
from docpreview_gateway.creates.pages import PageCount, Pages, Periods
from docpreview_gateway.model.callers import PageBudget

COUNTS = st.integers(min_value=0, max_value=50)
LIMITS = st.none() | st.integers(min_value=0, max_value=50)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 40),
        ({"page_ranges": "1,3-5"}, 4),
        ({"start_page": 2, "end_page": 11}, 10),
        ({"end_page": 3}, 3),
        ({"start_page": 2}, 40),
        ({"end_page": -1}, 40),
        ({"sheet_id": 1}, 40),
        ({"single_image": True}, 20),
        ({"single_image": True, "end_page": 4}, 4),
    ],
)
def test_a_create_asks_for_the_pages_that_it_selects_or_the_estimate(options: dict[str, Any], expected: int) -> None:
    assert PageBudget(estimate=40).asked(PreviewOptions(**options)) == expected


def test_a_single_image_asks_for_an_estimate_that_is_smaller_than_its_limit() -> None:
    assert PageBudget(estimate=3).asked(PreviewOptions(single_image=True)) == 3


@pytest.mark.parametrize(
    ("state", "succeeded", "total", "charged"),
    [
        ("SUBMITTED", 3, 7, None),
        ("RUNNING", 3, 7, None),
        ("PAUSED", 0, 0, None),
        ("SUCCESS", 3, 7, 3),
        ("SUCCESS", 0, 7, 7),
        ("SUCCESS", 0, 0, 0),
        ("FAILED", 0, 7, 0),
        ("FAILED", 2, 7, 2),
        ("CANCELLED", 0, 7, 0),
        ("CANCELLED", 5, 7, 5),
    ],
)
def test_a_job_is_charged_the_pages_that_it_made_when_it_has_ended(
    state: str, succeeded: int, total: int, charged: int | None
) -> None:
    """A total counts only when the job succeeded and nothing else is told."""
    job = PreviewJob(
        state=PreviewJob.State.Value(f"STATE_{state}"),
        result=PreviewResult(succeeded_page_count=succeeded, total_page_count=total),
    )
    assert pages.made(job) == charged


@pytest.mark.parametrize(
    ("options", "succeeded", "total", "charged"),
    [
        ({"target_format": PreviewOptions.TARGET_FORMAT_PDF}, 1, 30, 30),
        ({"target_format": PreviewOptions.TARGET_FORMAT_PDF}, 0, 30, 30),
        ({"target_format": PreviewOptions.TARGET_FORMAT_PDF}, 1, 1, 1),
        ({"single_image": True}, 1, 12, 12),
        ({"single_image": True, "page_ranges": "1-5"}, 1, 12, 5),
        ({"single_image": True, "end_page": 5}, 1, 3, 3),
        ({"single_image": True, "start_page": 2, "end_page": 3}, 2, 12, 2),
        ({"target_format": PreviewOptions.TARGET_FORMAT_PNG}, 1, 30, 1),
    ],
)
def test_one_file_with_many_pages_is_charged_for_all_of_them(
    options: dict[str, Any], succeeded: int, total: int, charged: int
) -> None:
    """The cloud may count a PDF or a long picture as one; of a selection no more than that was made."""
    job = PreviewJob(
        state=PreviewJob.STATE_SUCCESS,
        options=PreviewOptions(**options),
        result=PreviewResult(succeeded_page_count=succeeded, total_page_count=total),
    )
    assert pages.made(job) == charged


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        ("2026-11", "2026-11-01", "2026-12-01"),
        ("2026-12", "2026-12-01", "2027-01-01"),
        ("2026-01", "2026-01-01", "2026-02-01"),
        ("2026-02", "2026-02-01", "2026-03-01"),
        ("2028-02", "2028-02-01", "2028-03-01"),
        ("2026-02-28", "2026-02-28", "2026-03-01"),
        ("2028-02-28", "2028-02-28", "2028-02-29"),
        ("2028-02-29", "2028-02-29", "2028-03-01"),
        ("2026-12-31", "2026-12-31", "2027-01-01"),
    ],
)
def test_a_period_ends_where_the_next_begins(period: str, start: str, end: str) -> None:
    assert [f"{instant:%Y-%m-%d %H:%M %z}" for instant in pages.bounds(period)] == [
        f"{start} 00:00 +0000",
        f"{end} 00:00 +0000",
    ]


def test_a_day_is_counted_to_its_month() -> None:
    assert pages.periods("2028-02-29") == Periods("2028-02-29", "2028-02")


@pytest.mark.parametrize(
    ("day", "month", "asked", "refused"),
    [
        ((0, 0), (0, 0), 100, None),
        ((0, 0), (0, 0), 101, "day"),
        ((60, 30), (60, 30), 10, None),
        ((60, 30), (60, 30), 11, "day"),
        ((0, 0), (100, 50), 50, None),
        ((0, 0), (100, 50), 51, "month"),
        ((100, 0), (150, 50), 1, "month"),
        ((120, 0), (120, 0), 0, "day"),
    ],
)
def test_pages_beyond_a_budget_are_refused_and_the_month_is_named_first(
    day: tuple[int, int], month: tuple[int, int], asked: int, refused: str | None
) -> None:
    """Used and reserved pages count alike. The month comes first because it takes longer to renew."""
    budget = PageBudget(per_day=100, per_month=200)
    assert pages.refusing(asked, PageCount(Pages(*day), Pages(*month)), budget) == refused


@given(day=st.tuples(COUNTS, COUNTS), month=st.tuples(COUNTS, COUNTS), asked=COUNTS, per_day=LIMITS, per_month=LIMITS)
def test_what_is_admitted_never_exceeds_either_budget(
    day: tuple[int, int], month: tuple[int, int], asked: int, per_day: int | None, per_month: int | None
) -> None:
    budget = PageBudget(per_day=per_day, per_month=per_month)
    fits_day = per_day is None or sum(day) + asked <= per_day
    fits_month = per_month is None or sum(month) + asked <= per_month
    refused = pages.refusing(asked, PageCount(Pages(*day), Pages(*month)), budget)
    assert refused == (None if fits_day and fits_month else "month" if not fits_month else "day")
