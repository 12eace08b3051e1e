"""Hidden jobs are told like missing ones, and nothing else is."""

from __future__ import annotations

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview_gateway.access import visibility
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import GatewayError
from tests.fakes.policies import caller_of
from tests.unit.conftest import BUCKET

CALL = Call("r1", 0.0, caller_of("shop", {BUCKET.name: ("in/",)}))


def job(key: str) -> PreviewJob:
    return PreviewJob(job_id="d1", input=ObjectLocation(object=key))


def error_of(job_or_error: PreviewJob | GatewayError) -> GatewayError:
    """The error of a read that finds this job, or fails so."""

    def read() -> None:
        if isinstance(job_or_error, GatewayError):
            raise job_or_error
        visibility.check(job_or_error, BUCKET, CALL)

    with pytest.raises(GatewayError) as caught, visibility.hidden_alike(BUCKET, "d1"):
        read()
    return caught.value


def test_a_hidden_job_is_told_like_a_missing_one() -> None:
    """In every word."""
    hidden = error_of(job("secret/a.pdf"))
    missing = error_of(GatewayError(r.ERROR_REASON_JOB_NOT_FOUND, "the cloud's own words"))
    assert (hidden.reason, hidden.message) == (missing.reason, missing.message)
    assert hidden.reason == r.ERROR_REASON_JOB_NOT_FOUND


@pytest.mark.parametrize("reason", [r.ERROR_REASON_OVERLOADED, r.ERROR_REASON_UPSTREAM_BAD_RESPONSE])
def test_any_other_error_of_a_read_stays_what_it_is(reason: r.ErrorReason.ValueType) -> None:
    """It says nothing about the job."""
    error = GatewayError(reason, "not now")
    assert error_of(error) is error


def test_a_visible_job_is_not_hidden() -> None:
    """No error is raised."""
    with visibility.hidden_alike(BUCKET, "d1"):
        visibility.check(job("in/a.pdf"), BUCKET, CALL)
