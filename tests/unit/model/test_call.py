"""A call: what is fixed, what is filled in, and until when it matters."""

from __future__ import annotations

import pytest

from docpreview_gateway.model.call import ANSWER_MARGIN, Call, SharedRead
from docpreview_gateway.model.callers import Caller


def test_a_call_never_changes_after_its_arrival() -> None:
    """Whoever holds one may rely on it."""
    with pytest.raises(AttributeError):
        Call("r1", 10.0).caller = Caller("shop")  # type: ignore[misc]


def test_a_derived_call_fills_in_the_same_response_information() -> None:
    """What is learned for the derived one is sent back with the first one's reply."""
    call = Call("r1", 10.0)
    call._replace(caller=Caller("shop")).response.cache = "hit"
    assert call.response.cache == "hit"
    assert Call("r1", 10.0).response.cache == ""


@pytest.mark.parametrize(
    ("read", "wanted_by"),
    [(None, 10.0), (SharedRead(wanted_by=7.0), 7.0), (SharedRead(wanted_by=12.0), 10.0)],
    ids=["alone", "callers leave earlier", "read ends earlier"],
)
def test_a_result_is_wanted_until_the_deadline_or_until_the_last_caller_of_its_read_leaves(
    read: SharedRead | None, wanted_by: float
) -> None:
    """The earlier of the two."""
    assert Call("r1", 10.0, shared_read=read).wanted_by == wanted_by


def test_work_for_a_call_stops_a_margin_before_its_deadline() -> None:
    """So that the reply still reaches the caller."""
    assert Call("r1", 10.0).answer_by == 10.0 - ANSWER_MARGIN
