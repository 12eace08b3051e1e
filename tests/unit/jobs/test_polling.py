"""Intervals between the polls of a job."""

import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.jobs.polling import Schedule
from docpreview_gateway.model.job_states import TERMINAL


@pytest.mark.parametrize(
    ("age", "expected"),
    [(0.0, 0.5), (5.0, 0.5), (10.0, 1.0), (60.0, 6.0), (100.0, 10.0), (2_592_000.0, 10.0)],
)
def test_the_poll_interval_is_a_tenth_of_the_age_within_its_bounds(age: float, expected: float) -> None:
    """The bounds are half a second and ten seconds."""
    assert Schedule().interval(age) == pytest.approx(expected)


def test_the_poll_interval_is_jittered_by_a_fifth_to_either_side() -> None:
    """Jitter keeps pollers from synchronising."""
    assert Schedule().interval(60.0, jitter=0.0) == pytest.approx(4.8)
    assert Schedule().interval(60.0, jitter=0.999999) == pytest.approx(7.2, rel=1e-4)


@pytest.mark.parametrize(("failures", "expected"), [(0, 0.5), (1, 1.0), (2, 2.0), (4, 8.0), (5, 10.0), (10**9, 10.0)])
def test_each_failed_poll_doubles_the_interval_up_to_the_cap(failures: int, expected: float) -> None:
    """Each failure in a row doubles the interval, up to the cap."""
    assert Schedule().interval(0.0, failures=failures) == pytest.approx(expected)


def test_a_job_in_a_paused_queue_is_polled_as_seldom_as_possible() -> None:
    """The interval of a paused job is the longest one, whatever its age."""
    assert Schedule().interval(0.0, paused=True) == pytest.approx(10.0)


def test_the_bounds_of_the_poll_interval_are_settings() -> None:
    """A schedule may have any floor, cap and fraction."""
    schedule = Schedule(floor=0.01, cap=0.2, fraction=0.5)
    assert schedule.interval(0.0) == pytest.approx(0.01)
    assert schedule.interval(0.1) == pytest.approx(0.05)
    assert schedule.interval(9.0) == pytest.approx(0.2)


def test_the_end_of_a_job_is_seen_within_a_tenth_of_its_time() -> None:
    """The end of a job of any length is seen within about a tenth of the time it took, or the floor."""
    schedule = Schedule(cap=1e9)
    for length in (1.0, 10.0, 100.0, 1000.0):
        now = 0.0
        while now < length:
            now += schedule.interval(now, jitter=0.999999)
        assert now - length <= max(0.6, 0.12 * length) + 1e-6


def test_only_success_failure_and_cancellation_end_a_job() -> None:
    """Paused and unknown states are not terminal."""
    assert set(PreviewJob.State.values()) - TERMINAL == {
        PreviewJob.STATE_UNSPECIFIED,
        PreviewJob.STATE_SUBMITTED,
        PreviewJob.STATE_RUNNING,
        PreviewJob.STATE_PAUSED,
    }
