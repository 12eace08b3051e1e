"""What is read from an envelope without reading the job in it. Reading jobs: `tests/unit/upstream/test_cached.py`."""

from __future__ import annotations

import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.upstream.policies.cache_entries import Entry, encode, fresh_job

KEY = "job:ap-chongqing:docs-1250000000:d1"
JOB = PreviewJob(job_id="d1")
KEPT = encode(KEY, Entry(JOB, read_at=100.0, fresh_until=101.0))


def test_a_fresh_cached_job_is_given_as_its_wire_bytes() -> None:
    """Its bytes, as they would be sent."""
    assert fresh_job(KEY, KEPT, 100.9) == JOB.SerializeToString()


def test_job_that_is_no_longer_fresh() -> None:
    """None."""
    assert fresh_job(KEY, KEPT, 101.0) is None


def test_answer_that_there_is_no_job() -> None:
    """None: it has no bytes."""
    assert fresh_job(KEY, encode(KEY, Entry(None, 100.0, 101.0)), 100.5) is None


@pytest.mark.parametrize(
    "envelope",
    [b"", KEPT[:10], b"\x02" + KEPT[1:], KEPT.replace(b"docs", b"dogs"), encode(KEY + "1", Entry(JOB, 100.0, 101.0))],
    ids=["empty", "cut off", "another version", "another bucket", "another job"],
)
def test_envelope_of_somebody_else(envelope: bytes) -> None:
    """None."""
    assert fresh_job(KEY, envelope, 100.5) is None
