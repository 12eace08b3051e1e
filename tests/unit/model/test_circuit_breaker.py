"""A breaker's states under both trip rules, by a clock that the test sets."""

from __future__ import annotations

import pytest

from docpreview_gateway.model.circuit_breaker import (
    Admission,
    CircuitBreaker,
    ConsecutiveFailures,
    FailureShare,
    State,
)

RESULTS = {"F": True, "s": False, "-": None}


def share_breaker(*, calls: int = 4, jitter: float = 1.0) -> CircuitBreaker:
    rule = FailureShare(calls=calls, share=0.5, seconds=10.0)
    return CircuitBreaker(rule, open_seconds=5.0, jitter=lambda: jitter)


def admitted(subject: CircuitBreaker, now: float) -> Admission:
    admission = subject.admit(now)
    assert admission is not None
    return admission


def pass_through(subject: CircuitBreaker, now: float, results: str) -> None:
    """Calls one after the other: F failed, s succeeded, - without a result."""
    for failed in map(RESULTS.__getitem__, results):
        subject.ended(admitted(subject, now), now, failed=failed)


def state_of(subject: CircuitBreaker) -> State:
    return subject.state


def opened(at: float = 0.0, jitter: float = 1.0) -> CircuitBreaker:
    subject = share_breaker(jitter=jitter)
    pass_through(subject, at, "FFFF")
    assert state_of(subject) is State.OPEN
    return subject


def probe(subject: CircuitBreaker, now: float) -> Admission:
    admission = admitted(subject, now)
    assert admission.probe
    return admission


class TestFailureShare:
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
    def test_the_breaker_opens_when_half_of_at_least_four_calls_failed(self, results: str, state: State) -> None:
        """It opens at a failure, never at a success; calls without a result are not counted."""
        subject = share_breaker()
        pass_through(subject, 0.0, results)
        assert state_of(subject) is state

    def test_failures_older_than_the_window_are_not_counted(self) -> None:
        """Only the last ten seconds count."""
        subject = share_breaker()
        pass_through(subject, 0.0, "FFF")
        pass_through(subject, 10.0, "F")
        assert state_of(subject) is State.CLOSED

    def test_a_breaker_without_a_least_number_of_calls_never_opens(self) -> None:
        """That is how it is turned off."""
        subject = share_breaker(calls=0)
        pass_through(subject, 0.0, "F" * 100)
        assert state_of(subject) is State.CLOSED

    def test_an_open_breaker_admits_no_call_until_its_time_is_over(self) -> None:
        """The remaining time can be asked."""
        subject = opened()
        assert subject.admit(4.9) is None
        assert subject.wait(3.0) == pytest.approx(2.0)
        assert subject.wait(6.0) == 0.0

    @pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 4.0), (1.0, 5.0)])
    def test_the_open_time_is_jittered_and_never_longer_than_configured(self, jitter: float, seconds: float) -> None:
        """Replicas do not probe all at once, and none probes later than configured."""
        assert opened(jitter=jitter).wait(0.0) == pytest.approx(seconds)

    def test_a_probe_that_succeeds_closes_the_breaker_and_the_count_begins_afresh(self) -> None:
        """Other calls fail immediately while the probe is in flight."""
        subject = opened()
        trial = probe(subject, 5.0)
        assert state_of(subject) is State.HALF_OPEN
        assert subject.admit(5.1) is None
        subject.ended(trial, 5.2, failed=False)
        assert state_of(subject) is State.CLOSED
        pass_through(subject, 5.3, "FFF")
        assert state_of(subject) is State.CLOSED

    def test_a_probe_that_fails_opens_the_breaker_for_the_whole_time_again(self) -> None:
        """The time counts from the probe's end."""
        subject = opened()
        subject.ended(probe(subject, 5.0), 6.0, failed=True)
        assert state_of(subject) is State.OPEN
        assert subject.wait(6.0) == pytest.approx(5.0)

    def test_after_a_probe_without_result_the_next_call_is_the_probe(self) -> None:
        """It follows immediately."""
        subject = opened()
        subject.ended(probe(subject, 5.0), 5.5, failed=None)
        probe(subject, 5.5)

    def test_the_next_probe_does_not_wait_for_one_that_hangs(self) -> None:
        """When the first one fails after all, that is ignored: the latest probe decides."""
        subject = opened()
        first = probe(subject, 5.0)
        second = probe(subject, 10.0)
        subject.ended(first, 14.0, failed=True)
        assert state_of(subject) is State.HALF_OPEN
        subject.ended(second, 14.5, failed=False)
        assert state_of(subject) is State.CLOSED

    def test_calls_admitted_before_the_breaker_opened_neither_close_it_nor_keep_it_open(self) -> None:
        """While most calls fail some may succeed, which is no recovery."""
        subject = share_breaker()
        early = [admitted(subject, 0.0) for _ in range(3)]
        pass_through(subject, 0.0, "FFFF")
        for admission, failed in zip(early, (False, True, None), strict=True):
            subject.ended(admission, 1.0, failed=failed)
        assert state_of(subject) is State.OPEN
        assert subject.wait(0.0) == pytest.approx(5.0)


class TestConsecutiveFailures:
    """The breaker of an optional dependency: it opens for a second after three failures in a row."""

    def setup_method(self) -> None:
        self.rule = ConsecutiveFailures(3)
        self.breaker = CircuitBreaker(self.rule, open_seconds=1.0)

    def call(self, begin: float, end: float, *, failed: bool = True) -> None:
        self.breaker.ended(admitted(self.breaker, begin), end, failed=failed)

    def calls_at_once(self, begin: float, end: float) -> None:
        """A hundred concurrent calls that fail at the same moment."""
        for admission in [admitted(self.breaker, begin) for _ in range(100)]:
            self.breaker.ended(admission, end, failed=True)

    def open(self, at: float = 0.0) -> None:
        states = []
        for _ in range(3):
            self.call(at, at)
            states.append(self.breaker.state)
        assert states == [State.CLOSED, State.CLOSED, State.OPEN]

    def test_two_failures_leave_the_breaker_closed_and_are_known(self) -> None:
        """Every call is admitted."""
        self.call(0, 0)
        self.call(0, 0)
        assert self.breaker.admit(0)
        assert (self.breaker.state, self.rule.is_failing) == (State.CLOSED, True)

    def test_failures_with_successes_in_between_leave_the_breaker_closed(self) -> None:
        """Only failures in a row count."""
        for now in range(10):
            self.call(now + 0.1, now + 0.2)
            self.call(now + 0.1, now + 0.2)
            self.call(now + 0.1, now + 0.3, failed=False)
            assert state_of(self.breaker) is State.CLOSED
        assert not self.rule.is_failing

    def test_three_failures_in_a_row_open_the_breaker(self) -> None:
        """No call is admitted until the open time is over."""
        self.open()
        assert self.rule.is_failing
        assert not self.breaker.admit(0)
        assert not self.breaker.admit(0.99)

    def test_exactly_one_call_is_admitted_when_the_open_time_is_over(self) -> None:
        """It is the probe."""
        self.open()
        assert [self.breaker.admit(1.0) is not None for _ in range(4)] == [True, False, False, False]

    def test_a_probe_that_succeeds_closes_the_breaker_for_all(self) -> None:
        """No failure is known any more."""
        self.open()
        self.call(1.0, 1.001, failed=False)
        assert state_of(self.breaker) is State.CLOSED
        assert all(self.breaker.admit(1.002) for _ in range(4))
        assert not self.rule.is_failing

    def test_the_next_probe_follows_an_open_time_after_one_that_fails(self) -> None:
        """The time counts from the probe's end."""
        self.open()
        self.call(1.0, 1.05)
        assert state_of(self.breaker) is State.OPEN
        assert not self.breaker.admit(2.0)
        assert self.breaker.admit(2.05)

    def test_a_probe_whose_end_is_never_reported_delays_nothing(self) -> None:
        """Its caller left. Another call is the probe an open time later."""
        self.open()
        assert self.breaker.admit(1.0)
        assert not self.breaker.admit(1.5)
        assert self.breaker.admit(2.0)

    def test_calls_that_fail_together_count_once(self) -> None:
        """This process may have stood still, and the next call finds out."""
        self.calls_at_once(0.0, 0.05)
        self.calls_at_once(0.06, 0.11)
        assert state_of(self.breaker) is State.CLOSED
        self.call(0.12, 0.17)
        assert state_of(self.breaker) is State.OPEN

    def test_failures_do_not_count_while_other_calls_succeed(self) -> None:
        """The dependency is busy with a crowd and answers as fast as it can."""
        success = admitted(self.breaker, 0.0)
        crowd = [admitted(self.breaker, 0.0) for _ in range(100)]
        self.breaker.ended(success, 0.04, failed=False)
        for admission in crowd:
            self.breaker.ended(admission, 0.05, failed=True)
        assert self.breaker.admit(0.05)
        assert state_of(self.breaker) is State.CLOSED

    def test_a_call_admitted_before_the_breaker_opened_closes_it_when_it_succeeds(self) -> None:
        """The dependency answers, so the run of failures is over."""
        early = admitted(self.breaker, 0.0)
        self.open(at=0.1)
        self.breaker.ended(early, 0.2, failed=False)
        assert state_of(self.breaker) is State.CLOSED

    def test_a_call_admitted_before_the_breaker_opened_prolongs_nothing_when_it_fails(self) -> None:
        """The open time counts from the failure that opened the breaker."""
        early = admitted(self.breaker, 0.0)
        self.open(at=0.1)
        self.breaker.ended(early, 0.9, failed=True)
        assert self.breaker.admit(1.1)

    def test_whether_a_call_failed_lately_can_be_asked(self) -> None:
        """Failures that do not count are not known either."""
        self.call(0.0, 0.05)
        assert (self.rule.failed_since(0.04), self.rule.failed_since(0.05)) == (True, False)
        self.call(0.04, 0.2)
        assert not self.rule.failed_since(0.05)
