"""Fair shares of a process's places: how many one caller may hold, and that others always find one."""

from __future__ import annotations

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview_gateway.limits.fair_shares import FairShares
from docpreview_gateway.model.errors import LimitReached
from tests.fakes.telemetry import FakeTelemetry


def taken(shares: FairShares, caller: str, most: int = 1000) -> int:
    """Number of places that a caller takes until it is refused."""
    for number in range(most):
        try:
            shares.enter(caller)
        except LimitReached:
            return number
    return most


@pytest.mark.parametrize(("places", "alone"), [(1, 1), (2, 1), (4, 3), (40, 30), (1000, 750)])
def test_one_caller_alone_gets_three_quarters(places: int, alone: int) -> None:
    """Of few places at least one, and where there are two, one is left."""
    assert taken(FairShares(places, "calls", FakeTelemetry()), "greedy", places) == alone


def test_several_places_are_taken_together_or_not_at_all() -> None:
    """Within three quarters of what is free; none are as good as nothing."""
    shares = FairShares(1000, "jobs", FakeTelemetry())
    with pytest.raises(LimitReached, match="a has 0 concurrent jobs; 751 more exceed its fair share"):
        shares.enter("a", 751)
    shares.enter("a", 750)
    shares.leave("a", 250)
    shares.leave("a", 500)
    shares.leave("a", 0)
    shares.enter("b", 0)
    assert taken(shares, "c") == 750


def test_every_further_caller_finds_room_and_as_many_places_as_the_others() -> None:
    """Within what the others leave; those that hold more get no further ones."""
    shares = FairShares(1000, "calls", FakeTelemetry())
    got = [taken(shares, f"c{number}") for number in range(4)]
    assert got == [750, 187, 47, 12]
    for _ in range(650):
        shares.leave("c0")
    assert taken(shares, "c0") == 0 or taken(shares, "c1") > 0


def test_callers_who_come_and_go_get_equal_shares() -> None:
    """Two that always want more have three sevenths each once places have changed hands."""
    shares = FairShares(700, "calls", FakeTelemetry())
    held = {"a": taken(shares, "a"), "b": taken(shares, "b")}
    for _ in range(2000):
        name = max(held, key=lambda name: held[name])
        shares.leave(name)
        held[name] -= 1
        for other in ("b", "a"):
            held[other] += taken(shares, other)
    assert held["a"] == pytest.approx(300, abs=5)
    assert held["b"] == pytest.approx(300, abs=5)


def test_a_refusal_names_the_caller_and_its_share_and_is_counted() -> None:
    """Admitted calls are not: they are the rule."""
    shares = FairShares(2, "waits and watches", telemetry := FakeTelemetry())
    shares.enter("greedy")
    with pytest.raises(LimitReached, match="greedy has 1 concurrent waits and watches") as caught:
        shares.enter("greedy")
    assert (caught.value.reason, caught.value.subject) == (r.ERROR_REASON_CONCURRENCY_LIMITED, "caller:greedy:share")
    assert telemetry.limits == [("greedy", "share", "refused")]
    shares.enter("honest")
    shares.leave("greedy")
    shares.enter("greedy")
