"""The arithmetic of `make bench`: ratios of subjects that took turns."""

from __future__ import annotations

import importlib

import pytest

ratios = importlib.import_module("bench.ratios")


def test_a_ratio_is_of_the_same_round_so_that_a_slow_round_costs_both_alike() -> None:
    """The second round was ten times slower for both, which the ratio does not show."""
    assert ratios.Ratio.of([200.0, 30.0, 100.0], [100.0, 10.0, 100.0]) == ratios.Ratio(1.0, 2.0, 3.0)


def test_subjects_with_different_numbers_of_rounds_are_not_compared() -> None:
    """There would be rounds without a peer."""
    with pytest.raises(ValueError, match="shorter"):
        ratios.Ratio.of([1.0, 2.0], [1.0])


def test_the_median_decides_on_promise_and_aim() -> None:
    """One good round does not reach an aim, one bad round breaks no promise."""
    comparison = ratios.Comparison("a", "b", ratios.Ratio(0.5, 1.0, 2.0), promise=1.0, aim=1.7)
    assert comparison.kept
    assert not comparison.reached
    assert "1.00 kept" in comparison.line()
    assert "1.70 not reached" in comparison.line()


def test_a_broken_promise_is_told() -> None:
    """It fails the run as well."""
    comparison = ratios.Comparison("a", "b", ratios.Ratio(0.5, 0.9, 2.0), promise=1.0)
    assert not comparison.kept
    assert "1.00 BROKEN" in ratios.table([comparison])
