"""Ids in callbacks of each form that the vendor shows, and in what is none."""

from __future__ import annotations

import json

import pytest

from docpreview_gateway.callbacks.bodies import MOST_JOBS, job_ids

DETAIL = {"Code": "Success", "JobId": "d1", "State": "Success", "Operation": {"JobLevel": "0"}}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (json.dumps({"EventName": "TaskFinish", "JobsDetail": [DETAIL]}), ["d1"]),
        (json.dumps({"JobsDetail": DETAIL}), ["d1"]),
        (json.dumps({"JobsDetail": [DETAIL, DETAIL, {"JobId": "d2"}]}), ["d1", "d2"]),
        ("<Response><EventName>TaskFinish</EventName><JobsDetail><JobId>d1</JobId></JobsDetail></Response>", ["d1"]),
        (
            "<Response><JobsDetail><JobId>d1</JobId></JobsDetail><JobsDetail><JobId> d2</JobId></JobsDetail>"  # noqa: ISC004
            "</Response>",
            ["d1", "d2"],
        ),
        (json.dumps({"JobsDetail": [{"JobId": f"d{number}"} for number in range(100)]}), None),
        ("", []),
        ("{", []),
        ("[]", []),
        ("[" * 100_000, []),
        (json.dumps({"JobsDetail": [{"JobId": 7}, {"JobId": "../../x"}, "d1", None]}), []),
        ("<!DOCTYPE x><Response/>", []),
        ("<Request><JobsDetail><JobId>d1</JobId></JobsDetail></Request>", []),
    ],
)
def test_the_ids_of_a_callback_are_read_and_nothing_else(body: str, found: list[str] | None) -> None:
    """Each once, and not more than a few; what is no callback has none."""
    assert job_ids(body.encode()) == ([f"d{number}" for number in range(MOST_JOBS)] if found is None else found)
