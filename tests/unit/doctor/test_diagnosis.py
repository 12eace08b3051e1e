"""What `doctor` says of clocks."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from docpreview_gateway.doctor.diagnosis import of_clock

NOW = 1_800_000_000.0


@pytest.mark.parametrize("into_the_second", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("on_the_way", [0.0, 0.2, 0.9])
def test_a_clock_that_is_right_agrees_with_a_date_of_whole_seconds(into_the_second: float, on_the_way: float) -> None:
    date = formatdate(int(NOW + into_the_second), usegmt=True)
    assert of_clock(date, NOW + into_the_second + on_the_way).result == "agrees with the cloud's"


@pytest.mark.parametrize(
    ("ahead", "said"), [(20.4, "is 20 s ahead of"), (-20.4, "is 21 s behind"), (3.0, "is 2 s ahead")]
)
def test_a_clock_that_is_off_is_told_with_seconds_and_direction(ahead: float, said: str) -> None:
    """To the second, as `Date` is."""
    assert said in of_clock(formatdate(NOW, usegmt=True), NOW + ahead).result


def test_a_date_of_1970_is_none_to_compare_with() -> None:
    """It is of something on the way without a clock: this machine's may be right."""
    assert of_clock(formatdate(0, usegmt=True), NOW).ok
