"""The `traceparent` header of W3C Trace Context."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docpreview_gateway.model.trace_context import Trace, parse

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(("flags", "sampled"), [("01", True), ("00", False), ("03", True), ("fe", False)])
def test_a_traceparent_gives_both_ids_and_whether_it_is_sampled(flags: str, sampled: bool) -> None:  # noqa: FBT001
    """Only the lowest flag says whether the trace is recorded."""
    assert parse(f"00-{TRACE}-{SPAN}-{flags}") == Trace(TRACE, SPAN, sampled)


def test_fields_that_later_versions_add_are_ignored() -> None:
    """They come after the flags."""
    assert parse(f"cc-{TRACE}-{SPAN}-01-what-the-future-brings") == Trace(TRACE, SPAN, sampled=True)


@pytest.mark.parametrize(
    "header",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE[:-1]}\u0661-{SPAN}-01",
    ],
)
def test_a_malformed_traceparent_is_none(header: str) -> None:
    """No exception: the call starts a new trace."""
    assert parse(header) is None


@given(st.text())
def test_any_header_is_parsed_without_an_exception(header: str) -> None:
    """Callers may send any text."""
    parse(header)
