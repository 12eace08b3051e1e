"""The checker reports each broken promise, and nothing for a history that keeps all of them."""

from __future__ import annotations

import pytest

from tests.faults.history import BilledJob, Body, History, Operation, Outcome, violations


def operation(at: float, outcome: Outcome, detail: str = "", body: Body = "first") -> Operation:
    """An operation of one second; `detail` is the job of an `ok`, else the reason."""
    ok = outcome == "ok"
    return Operation("id", body, at, at + 1, outcome, detail if ok else "", "" if ok else detail)


JOB, SECOND = BilledJob("id", "first", 1.5), BilledJob("id", "first", 3.0)
VALID = History(
    [
        operation(1, "info", "UNAVAILABLE"),
        operation(3, "ok", "d1"),
        operation(5, "fail", "REQUEST_ID_REUSED", "other"),
    ],
    [operation(9, "ok", "d1")],
    {"d1": JOB},
    {"d1": JOB},
)

BROKEN = {
    "I1 two jobs of an id": History([], [], {}, {"d1": JOB, "d2": SECOND}),
    "I2 a job that does not exist": History([operation(1, "ok", "d1")]),
    "I2 a job of another id": History([operation(1, "ok", "d1")], [], {}, {"d1": BilledJob("id2", "first", 1.5)}),
    "I3 two answers of an id": History([operation(1, "ok", "d1"), operation(3, "ok", "d2")], [], {}, {"d1": JOB}),
    "I4 another body is accepted": History([operation(5, "ok", "d1", "other")]),
    "I4 a job of another body": History([], [], {}, {"d1": BilledJob("id", "other", 1.5)}),
    "I5 unknown after the final attempt": History([], [operation(9, "info", "CREATE_OUTCOME_UNKNOWN")]),
    "I6 refused while it had a job": History([operation(4, "fail", "UPSTREAM_THROTTLED")], [], {}, {"d1": JOB}),
    "I6 refused, and a job later": History([operation(1, "fail", "CLOCK_SKEW")], [], {"d1": SECOND}, {"d1": SECOND}),
    "I6 a job without document": History([], [], {}, {"d1": BilledJob("id", "missing", 1.5)}),
}


def test_a_history_that_meets_every_promise_has_no_violations() -> None:
    """A valid history, with an unknown outcome that a later attempt resolved."""
    assert violations(VALID) == []


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_reported_under_its_name(name: str) -> None:
    """Each line begins with the name of its promise."""
    found = violations(BROKEN[name])
    assert name[:2] in {line[:2] for line in found}


@pytest.mark.parametrize("store_was_lost", [False, True])
def test_an_id_that_deduplication_answered_may_get_another_job_only_after_a_loss_of_the_store(
    *, store_was_lost: bool
) -> None:
    jobs = {"d1": BilledJob("id2", "first", 0.5), "d2": BilledJob("id", "first", 3.5)}
    operations = [operation(1, "ok", "d1"), operation(3, "ok", "d2")]
    alike = {"id": "group", "id2": "group"}
    history = History(operations, [], {}, jobs, alike=alike, store_was_lost=store_was_lost)
    assert [line[:2] for line in violations(history)] == ([] if store_was_lost else ["I3"])
