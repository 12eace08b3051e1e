"""Fair queueing: callers by weight, calls of one caller by deadline."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docpreview_gateway.upstream.policies.fair_queue import FairQueue

if TYPE_CHECKING:
    from docpreview_gateway.upstream.policies.fair_queue import Entry


def put(queue: FairQueue[str], flow: str, *, weight: float = 1.0, deadline: float = 10.0, item: str = "") -> Entry[str]:
    return queue.push(item or flow, flow=flow, weight=weight, deadline=deadline)


def popped(queue: FairQueue[str], count: int) -> list[str | None]:
    return [queue.pop() for _ in range(count)]


def test_an_empty_queue_has_no_next_call() -> None:
    """`pop` returns None."""
    assert FairQueue[str]().pop() is None


def test_calls_of_one_caller_are_served_by_deadline() -> None:
    """Calls with equal deadlines are served in order of arrival."""
    queue = FairQueue[str]()
    for item, deadline in (("late", 9.0), ("first", 5.0), ("second", 5.0), ("urgent", 1.0)):
        put(queue, "a", item=item, deadline=deadline)
    assert popped(queue, 5) == ["urgent", "first", "second", "late", None]


def test_callers_are_served_by_weight() -> None:
    """While five callers wait, each gets its share within 5 %, whatever its number of calls."""
    queue = FairQueue[str]()
    for weight in range(1, 6):
        for _ in range(3000):
            put(queue, f"c{weight}", weight=weight)
    turns = Counter(popped(queue, 3000))
    for weight in range(1, 6):
        assert turns[f"c{weight}"] == pytest.approx(3000 * weight / 15, rel=0.05)


def test_a_single_call_waits_one_turn_of_a_greedy_caller() -> None:
    """The other 999 calls of the greedy caller come later."""
    queue = FairQueue[str]()
    for _ in range(1000):
        put(queue, "greedy")
    popped(queue, 10)
    put(queue, "modest")
    assert "modest" in popped(queue, 2)


def test_leaving_and_returning_gains_no_turn() -> None:
    """A caller that leaves the queue for a moment resumes at its virtual time."""
    queue = FairQueue[str]()
    for _ in range(100):
        put(queue, "steady")
    turns = Counter[str | None]()
    for _ in range(50):
        put(queue, "nimble")
        turns.update(popped(queue, 1))
    assert turns["nimble"] == pytest.approx(25, abs=2)


def test_an_idle_caller_saves_up_no_turns() -> None:
    """It starts at the current virtual time."""
    queue = FairQueue[str]()
    for _ in range(200):
        put(queue, "steady")
    popped(queue, 100)
    for _ in range(100):
        put(queue, "idle")
    assert Counter(popped(queue, 100))["steady"] == pytest.approx(50, abs=1)


def test_removed_calls_take_no_turn() -> None:
    """Their caller's next call is not delayed."""
    queue = FairQueue[str]()
    for entry in [put(queue, "a", deadline=1.0) for _ in range(50)]:
        queue.remove(entry)
        queue.remove(entry)
    put(queue, "a")
    put(queue, "b")
    assert len(queue) == 2
    assert sorted(str(item) for item in popped(queue, 2)) == ["a", "b"]
    assert queue.pop() is None


def test_greediest_is_the_least_urgent_call_of_the_busiest_caller() -> None:
    """Busiest by weight; a caller never evicts a call of its own."""
    queue = FairQueue[str]()
    for number in range(10):
        put(queue, "greedy", item=f"greedy {number}", deadline=number)
    last = queue.greediest(flow="modest", weight=1.0)
    assert last is not None
    assert last.item == "greedy 9"
    assert queue.greediest(flow="greedy", weight=1.0) is None
    queue.remove(last)
    put(queue, "heavy", weight=5.0)
    assert len(queue) == 10
    assert FairQueue[str]().greediest(flow="a", weight=1.0) is None


def test_turns_ahead_count_more_urgent_own_calls_and_others_by_weight() -> None:
    """The calls of other callers count by the turns that their weight gives them in that time."""
    queue = FairQueue[str]()
    assert queue.ahead(flow="a", weight=1.0, deadline=5.0) == 0
    for _ in range(100):
        put(queue, "greedy")
    for deadline in (1.0, 9.0):
        put(queue, "a", deadline=deadline)
    assert queue.ahead(flow="a", weight=1.0, deadline=5.0) == 1 + 2
    assert queue.ahead(flow="greedy", weight=1.0, deadline=20.0) == 100 + 2


@given(
    st.lists(
        st.tuples(st.sampled_from(["push", "pop", "remove"]), st.sampled_from("abc"), st.integers(0, 9)), max_size=200
    )
)
def test_any_sequence_of_operations_loses_and_repeats_no_call(steps: list[tuple[str, str, int]]) -> None:
    """The length is right after each operation."""
    queue = FairQueue[str]()
    waiting: dict[str, Entry[str]] = {}
    for number, (step, flow, deadline) in enumerate(steps):
        if step == "push":
            name = f"{flow}{number}"
            weight = 1.0 + "abc".index(flow)
            waiting[name] = queue.push(name, flow=flow, weight=weight, deadline=deadline)
        elif step == "remove" and waiting:
            queue.remove(waiting.pop(list(waiting)[deadline % len(waiting)]))
        elif (item := queue.pop()) is not None:
            served = waiting.pop(item)
            assert all(other.flow is not served.flow or not other < served for other in waiting.values())
        assert len(queue) == len(waiting)
    assert sorted(str(item) for item in popped(queue, len(waiting))) == sorted(waiting)
    assert queue.pop() is None
