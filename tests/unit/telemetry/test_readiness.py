"""What `/readyz` says of a process and of what it depends on."""

from __future__ import annotations

from docpreview_gateway.telemetry.readiness import Dependency, Readiness, readiness, why_unready

WELL = {"cloud": Dependency(), "records": Dependency()}
FULL = {"cloud": Dependency(), "records": Dependency("creates.db: disk is full")}
BOTH = FULL | {"cloud": Dependency("no answer")}


def test_a_process_is_ready_when_all_its_dependencies_are_well() -> None:
    assert readiness(None, WELL) == Readiness(200, "ready\n")
    assert readiness(None, WELL, verbose=True) == Readiness(200, "ready\ncloud ok\nrecords ok\n")


def test_a_dependency_that_nobody_has_asked_yet_is_not_told_to_be_well() -> None:
    found = {"cloud": Dependency(is_known=False), "records": Dependency()}
    assert readiness(None, found, verbose=True) == Readiness(200, "ready\ncloud not known yet\nrecords ok\n")


def test_a_failing_dependency_makes_the_process_unready_and_is_named() -> None:
    assert readiness(None, FULL) == Readiness(503, "records failing: creates.db: disk is full\n")
    expected = "not ready\ncloud ok\nrecords failing: creates.db: disk is full\n"
    assert readiness(None, FULL, verbose=True) == Readiness(503, expected)
    assert why_unready(None, BOTH) == "cloud failing: no answer\nrecords failing: creates.db: disk is full"


def test_an_excluded_dependency_does_not_count_and_is_still_named() -> None:
    assert readiness(None, FULL, exclude=["records"]) == Readiness(200, "ready\n")
    expected = "ready\ncloud ok\nrecords failing: creates.db: disk is full (excluded)\n"
    assert readiness(None, FULL, exclude=["records"], verbose=True) == Readiness(200, expected)
    assert readiness(None, BOTH, exclude=["records"]).status == 503
    assert readiness(None, BOTH, exclude=["records", "cloud"]).status == 200


def test_a_problem_of_some_creates_only_leaves_the_process_ready_and_is_named() -> None:
    found = {"records": Dependency("1 records cannot be read", blocks=False)}
    assert readiness(None, found) == Readiness(200, "ready\n")
    assert readiness(None, found, verbose=True) == Readiness(200, "ready\nrecords failing: 1 records cannot be read\n")


def test_a_process_that_starts_or_stops_cannot_be_excluded() -> None:
    assert readiness("stopping", WELL, exclude=["cloud", "records"]) == Readiness(503, "stopping\n")
    assert readiness("stopping", FULL) == Readiness(503, "stopping\n")


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    """A misspelt probe would else keep the pod out of the Service, or in it, without a reason."""
    status, text = readiness(None, WELL, exclude=["record"])
    assert (status, text) == (400, "exclude: there is no dependency record; there are: cloud, records\n")
