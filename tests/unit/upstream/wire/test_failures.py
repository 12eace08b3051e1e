"""Why a job failed, for programs: the meaning of the cloud's codes."""

from __future__ import annotations

import pytest

from docpreview.v1.preview_job_pb2 import JobFailure
from docpreview_gateway.upstream.wire.failures import reason_of


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("-3006", JobFailure.REASON_ENCRYPTED),
        ("-3008", JobFailure.REASON_DAMAGED),
        ("-3011", JobFailure.REASON_UNSUPPORTED),
        ("-3015", JobFailure.REASON_NO_SUCH_PAGE),
        ("-3075", JobFailure.REASON_TOO_LARGE),
        ("ResourceNotFound", JobFailure.REASON_NOT_FOUND),
        ("ResourceAccessDenied", JobFailure.REASON_PERMISSION),
        ("ConversionTimeout", JobFailure.REASON_TIMED_OUT),
    ],
)
def test_a_code_whose_meaning_is_known_has_a_reason(code: str, reason: JobFailure.Reason.ValueType) -> None:
    assert reason_of(code, has_password=False) == reason


@pytest.mark.parametrize("code", ["", "-3999", "Success", "NeverHeardOf"])
def test_a_code_whose_meaning_is_not_known_has_none(code: str) -> None:
    assert reason_of(code, has_password=True) == JobFailure.REASON_UNSPECIFIED


def test_of_a_document_that_stays_closed_the_password_tells_whether_it_was_wrong() -> None:
    assert reason_of("-3006", has_password=True) == JobFailure.REASON_WRONG_PASSWORD
    assert reason_of("-3011", has_password=True) == JobFailure.REASON_UNSUPPORTED
