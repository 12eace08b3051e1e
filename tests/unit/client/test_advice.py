"""The hint below an error of the command: it names what its reader can do, and nothing that is known to be right."""

from __future__ import annotations

import grpc
import pytest

from docpreview.v1.error_reason_pb2 import ErrorReason
from docpreview.v1.preview_job_pb2 import JobFailure
from docpreview_client import errors
from docpreview_client.cli.advice import advice, advice_on_failure
from docpreview_client.cli.exit_codes import ExitCode, of_error
from docpreview_client.errors import ErrorFacts

REASONS = [name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()[1:]]
KINDS = [
    errors.InvalidRequest,
    errors.NotFound,
    errors.Unauthenticated,
    errors.PermissionDenied,
    errors.FailedPrecondition,
    errors.Throttled,
    errors.BudgetExhausted,
    errors.Unavailable,
    errors.DeadlineExceeded,
    errors.OutcomeUnknown,
    errors.InternalError,
]


def hint(kind: type[errors.DocPreviewError], reason: str = "", code: grpc.StatusCode = grpc.StatusCode.UNKNOWN) -> str:
    return advice(kind("message", code=code, facts=ErrorFacts(reason=reason)))


@pytest.mark.parametrize("reason", REASONS)
def test_no_error_with_a_reason_doubts_the_address_because_a_gateway_has_answered(reason: str) -> None:
    assert [kind for kind in KINDS if "--target" in hint(kind, reason)] == []


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_has_a_hint_of_its_own_whatever_the_kind_of_error(reason: str) -> None:
    assert len({hint(kind, reason) for kind in KINDS}) == 1


@pytest.mark.parametrize("reason", REASONS)
def test_a_script_is_not_told_to_try_again_where_a_person_or_a_period_has_to_make_room(reason: str) -> None:
    """By the contract's own table of what to do about each reason."""
    error = errors.Throttled("message", code=grpc.StatusCode.RESOURCE_EXHAUSTED, facts=ErrorFacts(reason=reason))
    assert (of_error(error) is ExitCode.USED_UP) == (error.retry == "later")


@pytest.mark.parametrize("reason", JobFailure.Reason.values())
def test_every_reason_of_a_failed_job_has_a_hint(reason: JobFailure.Reason.ValueType) -> None:
    hints = [advice_on_failure(one) for one in JobFailure.Reason.values()]
    assert hints.count(advice_on_failure(reason)) == 1
    assert advice_on_failure(reason).endswith(".")


def test_an_address_where_no_gateway_answers_is_in_doubt() -> None:
    assert hint(errors.Unavailable) == "Check --target, or try again later."
    assert hint(errors.InternalError, code=grpc.StatusCode.UNIMPLEMENTED).startswith("Check --target")
    assert "--target" not in hint(errors.InternalError)


@pytest.mark.parametrize(
    ("kind", "reason", "words"),
    [
        (errors.Unavailable, "LEDGER_UNAVAILABLE", "with or without --request-id"),
        (errors.Unavailable, "LIMITER_UNAVAILABLE", "cannot count"),
        (errors.Unavailable, "IDENTITY_UNAVAILABLE", "issuer"),
        (errors.Unavailable, "CLOCK_SKEW", "operators"),
        (errors.Unavailable, "CREATE_IN_PROGRESS", "same --request-id"),
        (errors.Unavailable, "OVERLOADED", "Try again later."),
        (errors.InvalidRequest, "REQUEST_ID_REUSED", "new --request-id"),
        (errors.NotFound, "INPUT_OBJECT_NOT_FOUND", "name of the document"),
        (errors.NotFound, "BUCKET_NOT_FOUND", "operators"),
        (errors.NotFound, "JOB_NOT_FOUND", "for a month"),
        (errors.Throttled, "REPLY_TOO_LARGE", "fewer jobs"),
        (errors.Throttled, "UPSTREAM_QUOTA", "operators"),
        (errors.FailedPrecondition, "UPSTREAM_UNMAPPED", "operators"),
        (errors.InternalError, "UPSTREAM_NOT_IMPLEMENTED", "does not offer"),
    ],
)
def test_the_hint_fits_the_reason_and_not_only_the_status_code(
    kind: type[errors.DocPreviewError], reason: str, words: str
) -> None:
    assert words in hint(kind, reason)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_error_has_a_hint_also_with_a_reason_of_a_newer_gateway(
    kind: type[errors.DocPreviewError],
) -> None:
    assert hint(kind, "SOMETHING_NEW").endswith(".")


def test_a_storage_that_is_not_reached_is_in_doubt_and_not_the_gateway() -> None:
    """Its address comes from the gateway."""
    for what in ("The document could not be uploaded", "o/1.jpg could not be fetched"):
        text = f"{what}: ConnectionRefusedError at 127.0.0.1:8089."
        found = advice(errors.Unavailable(text, code=grpc.StatusCode.UNAVAILABLE))
        assert "upstream.object_url_base" in found
        assert "--target" not in found
