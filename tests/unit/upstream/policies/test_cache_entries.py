"""Serialised jobs of envelopes. Parsed jobs: `tests/unit/upstream/middleware/test_cached.py`."""

from __future__ import annotations

import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.upstream.policies.cache_entries import Entry, encode, fresh_job

KEY = "job:ap-chongqing:docs-1250000000:d1"
JOB = PreviewJob(job_id="d1")
CACHED = encode(KEY, Entry(JOB, read_at=100.0, fresh_until=101.0))


def test_a_fresh_cached_job_is_given_as_its_wire_bytes() -> None:
    """The bytes are those of a reply."""
    assert fresh_job(KEY, CACHED, 100.9) == JOB.SerializeToString()


def test_a_job_that_is_not_fresh_is_none() -> None:
    """A stale job is left to the caller."""
    assert fresh_job(KEY, CACHED, 101.0) is None


def test_a_cached_missing_job_is_none() -> None:
    """The envelope has no job."""
    assert fresh_job(KEY, encode(KEY, Entry(None, 100.0, 101.0)), 100.5) is None


@pytest.mark.parametrize(
    "envelope",
    [
        b"",
        CACHED[:10],
        b"\x02" + CACHED[1:],
        CACHED.replace(b"docs", b"dogs"),
        encode(KEY + "1", Entry(JOB, 100.0, 101.0)),
    ],
    ids=["empty", "cut off", "another version", "another bucket", "another job"],
)
def test_a_foreign_or_malformed_envelope_is_none(envelope: bytes) -> None:
    """Other keys, other versions and malformed bytes."""
    assert fresh_job(KEY, envelope, 100.5) is None
