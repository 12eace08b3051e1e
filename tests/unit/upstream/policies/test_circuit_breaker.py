"""States of the circuit breaker, at instants that the tests choose."""

from __future__ import annotations

import pytest

from docpreview_gateway.upstream.policies.circuit_breaker import Admission, Breaker, BreakerRules, State

RULES = BreakerRules(calls=4, share=0.5, seconds=10.0, open_seconds=5.0)


def breaker(rules: BreakerRules = RULES, jitter: float = 1.0) -> Breaker:
    return Breaker(rules, lambda: jitter)


RESULTS = {"F": True, "s": False, "-": None}


def pass_through(subject: Breaker, now: float, results: str) -> None:
    """Consecutive calls: F failed, s succeeded, - without a result."""
    for failed in map(RESULTS.__getitem__, results):
        admission = subject.admit(now)
        assert admission is not None
        subject.ended(admission, now, failed=failed)


def state_of(subject: Breaker) -> State:
    return subject.state


def opened(at: float = 0.0, jitter: float = 1.0) -> Breaker:
    subject = breaker(jitter=jitter)
    pass_through(subject, at, "FFFF")
    assert state_of(subject) is State.OPEN
    return subject


def probe(subject: Breaker, now: float) -> Admission:
    admission = subject.admit(now)
    assert admission is not None
    assert admission.probe
    return admission


@pytest.mark.parametrize(
    ("results", "state"),
    [
        ("FFF", State.CLOSED),
        ("FFFF", State.OPEN),
        ("ssFF", State.OPEN),
        ("sssFF", State.CLOSED),
        ("s" * 100, State.CLOSED),
        ("---FFF", State.CLOSED),
        ("FFss", State.CLOSED),
    ],
)
def test_the_breaker_opens_when_half_of_at_least_four_calls_failed(results: str, state: State) -> None:
    """It opens at a failed call. Calls without a result do not count."""
    subject = breaker()
    pass_through(subject, 0.0, results)
    assert state_of(subject) is state


def test_failures_outside_the_window_do_not_count() -> None:
    """The window is ten seconds long."""
    subject = breaker()
    pass_through(subject, 0.0, "FFF")
    pass_through(subject, 10.0, "F")
    assert state_of(subject) is State.CLOSED


def test_a_breaker_without_a_least_number_of_calls_never_opens() -> None:
    """`calls` of 0 disables the breaker."""
    subject = breaker(BreakerRules(calls=0))
    pass_through(subject, 0.0, "F" * 100)
    assert state_of(subject) is State.CLOSED


def test_an_open_breaker_admits_no_call_until_its_time_is_over() -> None:
    """`wait` is the time left."""
    subject = opened()
    assert subject.admit(4.9) is None
    assert subject.wait(3.0) == pytest.approx(2.0)
    assert subject.wait(6.0) == 0.0


@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 4.0), (1.0, 5.0)])
def test_the_open_time_is_jittered_and_never_longer_than_configured(jitter: float, seconds: float) -> None:
    """Jitter keeps replicas from probing together."""
    assert opened(jitter=jitter).wait(0.0) == pytest.approx(seconds)


def test_a_successful_probe_closes_the_breaker() -> None:
    """Other calls are rejected during the probe; afterwards earlier failures are forgotten."""
    subject = opened()
    trial = probe(subject, 5.0)
    assert state_of(subject) is State.HALF_OPEN
    assert subject.admit(5.1) is None
    subject.ended(trial, 5.2, failed=False)
    assert state_of(subject) is State.CLOSED
    pass_through(subject, 5.3, "FFF")
    assert state_of(subject) is State.CLOSED


def test_a_failed_probe_opens_the_breaker_again() -> None:
    """For the whole open time."""
    subject = opened()
    subject.ended(probe(subject, 5.0), 6.0, failed=True)
    assert state_of(subject) is State.OPEN
    assert subject.wait(6.0) == pytest.approx(5.0)


def test_after_a_probe_without_a_result_the_next_call_is_the_probe() -> None:
    """The probe was cancelled."""
    subject = opened()
    subject.ended(probe(subject, 5.0), 5.5, failed=None)
    probe(subject, 5.5)


def test_a_hanging_probe_is_followed_by_another() -> None:
    """The late failure of the first probe does not count."""
    subject = opened()
    first = probe(subject, 5.0)
    second = probe(subject, 10.0)
    subject.ended(first, 14.0, failed=True)
    assert state_of(subject) is State.HALF_OPEN
    subject.ended(second, 14.5, failed=False)
    assert state_of(subject) is State.CLOSED


def test_results_of_calls_admitted_in_earlier_states_do_not_count() -> None:
    """Calls sent before the breaker opened neither close it nor keep it open."""
    subject = breaker()
    early = [subject.admit(0.0) for _ in range(3)]
    pass_through(subject, 0.0, "FFFF")
    for admission, failed in zip(early, (False, True, None), strict=True):
        assert admission is not None
        subject.ended(admission, 1.0, failed=failed)
    assert state_of(subject) is State.OPEN
    assert subject.wait(0.0) == pytest.approx(5.0)
