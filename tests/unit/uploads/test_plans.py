"""Parts and types of contents."""

from __future__ import annotations

import pytest

from docpreview_gateway.model.documents import SUFFIXES
from docpreview_gateway.model.validation import MAX_DOCUMENT_BYTES
from docpreview_gateway.uploads.plans import PART_BYTES, Part, parts_of, type_of


def test_a_content_of_one_part_size_is_one_part() -> None:
    """And one byte more are two."""
    assert parts_of(1) == [Part(1, 0, 1)]
    assert parts_of(PART_BYTES) == [Part(1, 0, PART_BYTES)]
    assert parts_of(PART_BYTES + 1) == [Part(1, 0, PART_BYTES), Part(2, PART_BYTES, 1)]


def test_the_largest_content_has_parts_that_the_contract_promises() -> None:
    """At most 200, without gaps, all of one size but the last."""
    parts = parts_of(MAX_DOCUMENT_BYTES)
    assert len(parts) == 13
    assert sum(part.length for part in parts) == MAX_DOCUMENT_BYTES
    assert all(part.offset == (part.number - 1) * PART_BYTES for part in parts)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("in/a.PDF", "application/pdf"),
        ("a.pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
        ("a.csv", "text/csv"),
        ("a.wps", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
def test_the_type_is_that_of_the_suffix(key: str, expected: str) -> None:
    """Others are bytes."""
    assert type_of(key) == expected


def test_every_type_can_be_sent() -> None:
    """As a header, and as the contract bounds it."""
    for suffix in SUFFIXES:
        assert len(type_of(f"a.{suffix}")) <= 127
