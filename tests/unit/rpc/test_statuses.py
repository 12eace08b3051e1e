"""Mapping of errors to statuses: the contract's code for each reason, and exactly one ErrorInfo."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details
from google.rpc import status_pb2

import docpreview.v1
from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.error_reason_pb2 import ErrorReason
from docpreview_gateway.model import errors
from docpreview_gateway.model.errors import (
    ForeignReply,
    GatewayError,
    InvalidRequest,
    LimitReached,
    NotPermitted,
    ReplyTooLarge,
    UpstreamError,
    UpstreamFacts,
    Violation,
)
from docpreview_gateway.rpc.statuses import CODES, DOMAIN, RETRIES, rich_status
from docpreview_gateway.upstream.wire.refusals import RETRYABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

PROTO = Path(docpreview.v1.__path__[0]) / "error_reason.proto"
SENT = [name for name in ErrorReason.keys() if name != "ERROR_REASON_UNSPECIFIED"]  # noqa: SIM118 - protobuf's enum

Detail = TypeVar("Detail", bound=Message)


def codes_in_the_contract() -> dict[str, str]:
    """The first word of each reason's comment, by reason."""
    text = PROTO.read_text()
    found = re.finditer(r"((?:^ *//.*\n)+) *(ERROR_REASON_\w+) = \d+ \[\(retry\)", text, re.MULTILINE)
    return {match[2]: match[1].strip().removeprefix("//").split(".")[0].strip() for match in found}


def unpacked(error: GatewayError, kind: type[Detail], *, disclosed: bool = True) -> list[Detail]:
    """The details of one type in an error's status."""
    status = status_pb2.Status.FromString(rich_status(error, "r1", disclosed=disclosed).details)
    return list(_of_kind(status, kind))


def _of_kind(status: status_pb2.Status, kind: type[Detail]) -> Iterator[Detail]:
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):
            detail = kind()
            packed.Unpack(detail)
            yield detail


@pytest.mark.parametrize("name", SENT)
def test_each_reason_has_the_code_of_the_contracts_comment(name: str) -> None:
    """The comment begins with the code."""
    assert CODES[ErrorReason.Value(name)].name == codes_in_the_contract()[name]


def test_the_table_has_every_reason() -> None:
    """Except UNSPECIFIED, which is never sent."""
    assert sorted(CODES) == sorted(ErrorReason.Value(name) for name in SENT)


def limit_reached() -> LimitReached:
    return LimitReached(r.ERROR_REASON_CONCURRENCY_LIMITED, "no", subject="caller:a:concurrency", retry_after=0.5)


def every_error() -> list[GatewayError]:
    made: list[GatewayError] = [InvalidRequest([Violation("bucket", "is required")]), ReplyTooLarge(), limit_reached()]
    made.append(NotPermitted("callers.a.methods", "no"))
    for name in SENT:
        reason = ErrorReason.Value(name)
        made += [GatewayError(reason, "no", retry_after=2.5), UpstreamError(reason, "no"), ForeignReply(reason, "no")]
    return made


def test_every_kind_of_error_is_tested() -> None:
    """A new subclass must be added to this file."""
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GatewayError)}
    assert {type(error) for error in every_error()} == kinds


@pytest.mark.parametrize("error", every_error(), ids=lambda error: f"{type(error).__name__}-{error.reason}")
def test_every_error_has_one_error_info_with_its_reason_and_request_id(error: GatewayError) -> None:
    """With the domain, the reason without prefix, and the code of the status."""
    code, message, raw, retry_after, reason, _ = rich_status(error, "r1")
    assert retry_after == (None if RETRIES[error.reason] == r.RETRY_NEVER else error.retry_after)
    status = status_pb2.Status.FromString(raw)
    (info,) = _of_kind(status, details.ErrorInfo)
    assert (status.code, status.message) == (code.value[0], message) == (code.value[0], error.message)
    assert info.domain == DOMAIN == "docpreview"
    assert f"ERROR_REASON_{info.reason}" == f"ERROR_REASON_{reason}" == ErrorReason.Name(error.reason)
    assert info.metadata["request_id"] == "r1"


def test_known_facts_of_the_cloud_are_in_the_error_info() -> None:
    """Unknown ones are omitted."""
    facts = UpstreamFacts(code="NoSuchBucket", http_status=404, request_id="cloud-1")
    (info,) = unpacked(UpstreamError(r.ERROR_REASON_BUCKET_NOT_FOUND, "no", facts=facts), details.ErrorInfo)
    assert dict(info.metadata) == {
        "upstream_code": "NoSuchBucket",
        "upstream_http_status": "404",
        "upstream_request_id": "cloud-1",
        "request_id": "r1",
    }
    (bare,) = unpacked(UpstreamError(r.ERROR_REASON_BUCKET_NOT_FOUND, "no"), details.ErrorInfo)
    assert dict(bare.metadata) == {"request_id": "r1"}


def test_the_clouds_request_id_is_left_out_unless_it_is_disclosed() -> None:
    """Callers whose reads were joined would have the same one."""
    facts = UpstreamFacts(code="SlowDown", http_status=503, request_id="cloud-1")
    error = UpstreamError(r.ERROR_REASON_UPSTREAM_THROTTLED, "slow down", facts=facts)
    (info,) = unpacked(error, details.ErrorInfo, disclosed=False)
    assert dict(info.metadata) == {"upstream_code": "SlowDown", "upstream_http_status": "503", "request_id": "r1"}


def test_violations_are_in_a_bad_request_in_order() -> None:
    """Field and description of each."""
    error = InvalidRequest([Violation("bucket", "is required"), Violation("options.quality", "must be between 1")])
    (bad,) = unpacked(error, details.BadRequest)
    assert [(found.field, found.description) for found in bad.field_violations] == [
        ("bucket", "is required"),
        ("options.quality", "must be between 1"),
    ]
    assert unpacked(GatewayError(r.ERROR_REASON_INTERNAL, "no"), details.BadRequest) == []


def test_retry_info_is_sent_only_with_a_retry_after() -> None:
    """It is there only when a retry may help."""
    (retry,) = unpacked(GatewayError(r.ERROR_REASON_SHUTTING_DOWN, "no", retry_after=2.5), details.RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 2500
    assert unpacked(GatewayError(r.ERROR_REASON_CREATE_OUTCOME_UNKNOWN, "no"), details.RetryInfo) == []


CODES_OF_RETRIES = {
    r.RETRY_NEVER: {
        *("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "PERMISSION_DENIED"),
        *("UNAUTHENTICATED", "UNIMPLEMENTED", "INTERNAL"),
        "RESOURCE_EXHAUSTED",  # what is larger than the whole limit
        "UNKNOWN",  # a create of which nobody will ever know more
    },
    r.RETRY_NOW: {"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "UNKNOWN"},
    r.RETRY_LATER: {"RESOURCE_EXHAUSTED"},
}
"""The codes of each class. UNAVAILABLE, which gRPC's own retries repeat, and DEADLINE_EXCEEDED are of one only."""


@pytest.mark.parametrize("name", SENT)
def test_each_reason_has_a_class_of_retries_that_fits_its_code_and_what_is_sent(name: str) -> None:
    """No time to wait where none helps, and no repetition by gRPC but of what is to be repeated now."""
    reason = ErrorReason.Value(name)
    assert CODES[reason].name in CODES_OF_RETRIES[RETRIES[reason]]
    error = GatewayError(reason, "no", retry_after=2.5)
    assert len(unpacked(error, details.RetryInfo)) == (RETRIES[reason] != r.RETRY_NEVER)
    assert rich_status(error, "r1").final == (RETRIES[reason] != r.RETRY_NOW)


def test_what_the_gateway_itself_repeats_is_what_callers_are_told_to_repeat() -> None:
    """Transient failures of the cloud."""
    assert {RETRIES[reason] for reason in RETRYABLE} == {r.RETRY_NOW}


def test_a_reached_limit_has_a_quota_failure_with_its_subject() -> None:
    """Beside the RetryInfo."""
    (quota,) = unpacked(limit_reached(), details.QuotaFailure)
    assert [(found.subject, found.description) for found in quota.violations] == [("caller:a:concurrency", "no")]
    assert len(unpacked(limit_reached(), details.RetryInfo)) == 1
    never = LimitReached(r.ERROR_REASON_PAGE_BUDGET_TOO_SMALL, "no", subject="s", retry_after=None)
    assert len(unpacked(never, details.QuotaFailure)) == 1
    assert unpacked(never, details.RetryInfo) == []
    assert rich_status(never, "r1")[3:] == (None, "PAGE_BUDGET_TOO_SMALL", True)
    assert unpacked(GatewayError(r.ERROR_REASON_OVERLOADED, "no"), details.QuotaFailure) == []


def test_a_status_fits_into_gRPCs_metadata_whatever_an_error_holds() -> None:  # noqa: N802 - its name
    """Message, facts and violations are cut; the first violations are told."""
    long = "\U0001f600" * 100_000
    errors = (
        NotPermitted("callers.a.methods", long),
        LimitReached(r.ERROR_REASON_RATE_LIMITED, long, subject="caller:a", retry_after=1),
        InvalidRequest([Violation(f"{long}{number}", long) for number in range(1000)]),
        InvalidRequest([Violation(f"field{number}", "must be good") for number in range(1000)]),
        UpstreamError(r.ERROR_REASON_UPSTREAM_UNMAPPED, long, facts=UpstreamFacts(long, 400, long)),
    )
    for error in errors:
        status = rich_status(error, "a" * 64)
        percent_encoded = 3 * len(status.message.encode())
        assert percent_encoded + len(status.details) * 4 / 3 < 7 * 1024
        (info,) = unpacked(error, details.ErrorInfo)
        assert info.reason
    (bad,) = unpacked(errors[3], details.BadRequest)
    assert [found.field for found in bad.field_violations][:50] == [f"field{number}" for number in range(50)]
