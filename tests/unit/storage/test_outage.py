"""When the shared cache is left alone, by a clock of the test's own."""

from __future__ import annotations

from docpreview_gateway.storage.outage import Outage


def outage(*, since: float = 0.0) -> Outage:
    """One that three calls have just found."""
    found = Outage(failures=3, pause=1.0)
    assert [found.failed(since, since) for _ in range(3)] == [False, False, True]
    return found


def test_helper_that_answers() -> None:
    """Every call is admitted, also after a failure or two."""
    found = Outage(failures=3, pause=1.0)
    found.failed(0, 0)
    found.failed(0, 0)
    assert found.admits(0)
    assert (found.is_on, found.is_likely) == (False, True)


def test_failures_between_answers() -> None:
    """Only failures in a row count."""
    found = Outage(failures=3, pause=1.0)
    for now in range(10):
        found.failed(now + 0.1, now + 0.2)
        found.failed(now + 0.1, now + 0.2)
        assert not found.answered(now + 0.3)
    assert not found.is_likely


def test_third_failure_in_a_row() -> None:
    """Calls do without, until the pause is over."""
    found = outage()
    assert found.is_on
    assert not found.admits(0)
    assert not found.admits(0.99)


def test_end_of_the_pause() -> None:
    """Exactly one call tries; the others do without."""
    found = outage()
    assert [found.admits(1.0) for _ in range(4)] == [True, False, False, False]


def test_try_that_gets_an_answer() -> None:
    """The outage is over for all, and that is told once."""
    found = outage()
    assert found.admits(1.0)
    assert found.answered(1.001)
    assert all(found.admits(1.002) for _ in range(4))
    assert not found.answered(1.003)


def test_try_that_fails() -> None:
    """The next one comes a pause after its end; the outage is not told again."""
    found = outage()
    assert found.admits(1.0)
    assert not found.failed(1.0, 1.05)
    assert not found.admits(2.0)
    assert found.admits(2.05)


def test_try_whose_caller_left() -> None:
    """It holds up nothing: another call tries a pause later."""
    found = outage()
    assert found.admits(1.0)
    assert not found.admits(1.5)
    assert found.admits(2.0)


def test_calls_that_fail_together() -> None:
    """They count once: this process may have stood still, and the next call knows better."""
    found = Outage(failures=3, pause=1.0)
    assert not any(found.failed(0.0, 0.05) for _ in range(100))
    assert not any(found.failed(0.06, 0.11) for _ in range(100))
    assert found.failed(0.12, 0.17)
    assert found.is_on


def test_crowd_that_waits_too_long_while_others_get_answers() -> None:
    """That is no outage: the helper answers as fast as it can."""
    found = Outage(failures=3, pause=1.0)
    found.answered(0.04)
    assert not any(found.failed(0.0, 0.05) for _ in range(100))
    assert found.admits(0.05)
