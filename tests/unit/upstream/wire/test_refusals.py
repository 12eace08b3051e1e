"""Reasons of the cloud's error replies."""

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.error_reason_pb2 import ErrorReason
from docpreview_gateway.model.errors import ForeignReply, ReplyTooLarge, UpstreamError
from docpreview_gateway.upstream.wire import refusals
from docpreview_gateway.upstream.wire.http import HttpReply

CODES = {
    "UPSTREAM_INVALID_ARGUMENT": "InvalidArgument InvalidUrl",
    "GATEWAY_MALFORMED_REQUEST": "MissingContent InvalidContent InvalidContentType MalformedXML BadDigest "
    "MissingContentLength MethodNotAllowed",
    "UPSTREAM_HOST_REJECTED": "InvalidHost",
    "INPUT_OBJECT_NOT_FOUND": "ResourceNotFound",
    "INPUT_OBJECT_UNREADABLE": "ResourceAccessDenied ResourceDownloadFailed",
    "CI_ROLE_MISSING": "CIRoleNotExist",
    "OUTPUT_BUCKET_DENIED": "WriteTargetBucketDenied",
    "DOC_SERVICE_NOT_ENABLED": "DocBucketUnBinded MediaBucketUnBinded PicBucketUnBinded AIBucketUnBinded",
    "QUEUE_NOT_FOUND": "QueueNotFound NoSuchQueue QueueNotExist InvalidQueueId",
    "UPSTREAM_QUOTA": "QueueNumLimit BindedBucketNumLimit",
    "BUCKET_NOT_FOUND": "NoSuchBucket",
    "OBJECT_NOT_FOUND": "NoSuchKey",
    "JOB_NOT_FOUND": "NoSuchJob",
    "UPSTREAM_ACCESS_DENIED": "AccessDenied",
    "CLOCK_SKEW": "RequestTimeTooSkewed SignatureExpired RequestHasExpired",
    "UPSTREAM_CREDENTIALS": "InvalidAccessKeyId SecretidNotExist SignatureDoesNotMatch MissingAuthorization "
    "InvalidAuthorization ExpiredToken",
    "UPSTREAM_THROTTLED": "SlowDown KmsFreqControl RequestLimitExceeded",
    "UPSTREAM_INTERNAL": "InternalError",
    "UPSTREAM_UNAVAILABLE": "ServiceUnavailable",
    "UPSTREAM_TIMEOUT": "RequestTimeout",
    "WRONG_REGION": "PermanentRedirect TemporaryRedirect",
    "ACCOUNT_BLOCKED": "UnavailableForLegalReasons PaymentRequired",
    "UPSTREAM_NOT_IMPLEMENTED": "NotImplemented",
}
"""Every code that the vendor's pages and SDKs name (documents 436/53983, 436/7730), by the reason that callers see."""

BY_CODE = [(code, reason) for reason, codes in CODES.items() for code in codes.split()]

STATUSES = {
    "WRONG_REGION": [301, 302, 307, 308, 300],
    "UPSTREAM_CREDENTIALS": [401, 407],
    "UPSTREAM_UNMAPPED": [400, 404, 409, 418, 499],
    "ACCOUNT_BLOCKED": [402, 451],
    "UPSTREAM_ACCESS_DENIED": [403],
    "GATEWAY_MALFORMED_REQUEST": [405, 411],
    "UPSTREAM_TIMEOUT": [408],
    "UPSTREAM_THROTTLED": [429],
    "UPSTREAM_INTERNAL": [500],
    "UPSTREAM_NOT_IMPLEMENTED": [501],
    "UPSTREAM_UNAVAILABLE": [502, 503, 504, 505, 599],
}
BY_STATUS = [(status, reason) for reason, statuses in STATUSES.items() for status in statuses]

BODIES_WITHOUT_CODE = {
    "empty": b"",
    "HTML": b"<html><body>Bad Gateway</body></html>",
    "JSON of another form": b'["code"]',
    "JSON that is a number": b"7",
    "JSON nested too deep": b"[" * 100_000,
    "XML of another form": b"<Response><Code>SlowDown</Code></Response>",
    "empty elements": b"<Error><Code/><Message/></Error>",
    "code that is a text": b"<Error><Code>go away; please</Code></Error>",
    "bytes": bytes(range(256)),
}


def _xml(code: str, message: str = "words", request_id: str = "rid") -> bytes:
    return f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>{request_id}</RequestId></Error>".encode()


def _read(status: int, body: bytes = b"", **headers: str) -> UpstreamError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return refusals.read(HttpReply(status, named, body))


def _reason(error: UpstreamError) -> str:
    return ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")


def test_every_known_code_is_tested() -> None:
    """Except for codes that are recognised by a pattern."""
    assert refusals.BY_CODE.keys() == {code for code, _ in BY_CODE if not code.endswith("BucketUnBinded")}


@pytest.mark.parametrize(("code", "reason"), BY_CODE)
@pytest.mark.parametrize("status", [400, 500])
def test_the_error_code_decides_whatever_the_http_status(code: str, reason: str, status: int) -> None:
    """Code and request id are facts of the error."""
    error = _read(status, _xml(code))
    assert _reason(error) == reason
    assert (error.facts.code, error.facts.http_status, error.facts.request_id) == (code, status, "rid")


@pytest.mark.parametrize(("status", "reason"), BY_STATUS)
@pytest.mark.parametrize("body", BODIES_WITHOUT_CODE.values(), ids=list(BODIES_WITHOUT_CODE))
def test_the_status_decides_without_a_code(status: int, reason: str, body: bytes) -> None:
    """Empty, HTML and malformed bodies."""
    error = _read(status, body)
    assert _reason(error) == reason
    assert error.facts.code == ""
    assert f"(HTTP {status})" in error.message


@pytest.mark.parametrize(("status", "reason"), BY_STATUS)
def test_the_status_decides_for_an_unknown_code(status: int, reason: str) -> None:
    """The code is a fact of the error."""
    error = _read(status, _xml("BrandNewCode"))
    assert (_reason(error), error.facts.code) == (reason, "BrandNewCode")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Request has expired", "CLOCK_SKEW"),
        ("REQUEST HAS EXPIRED.", "CLOCK_SKEW"),
        ("Access Denied.", "UPSTREAM_ACCESS_DENIED"),
        ("", "UPSTREAM_ACCESS_DENIED"),
    ],
)
def test_access_denied_means_a_missing_right_or_a_clock_by_its_message(message: str, reason: str) -> None:
    """The code is the same for both."""
    assert _reason(_read(403, _xml("AccessDenied", message))) == reason


@pytest.mark.parametrize(
    "message",
    [
        "doc bucket unbinded",
        "the bucket's host is unavailable now",
        "Doc processing service is not activated, please come to the Console to open the service.",
    ],
)
@pytest.mark.parametrize("code", ["Whatever", "AccessDenied", "InvalidArgument", ""])
def test_a_disabled_document_service_is_recognised_by_its_message(message: str, code: str) -> None:
    """Whatever the code."""
    assert _reason(_read(400, _xml(code, message))) == "DOC_SERVICE_NOT_ENABLED"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("RequestLimitExceeded.UinLimitExceeded", "UPSTREAM_THROTTLED"),
        ("InvalidArgument.TgtType", "UPSTREAM_INVALID_ARGUMENT"),
        ("AuthFailure.SignatureExpire", "UPSTREAM_UNMAPPED"),
        ("Never_heard-of.it", "UPSTREAM_UNMAPPED"),
    ],
)
def test_an_error_code_with_dots_is_kept_and_its_first_part_decides(code: str, reason: str) -> None:
    """The whole code is a fact of the error."""
    error = _read(400, _xml(code))
    assert (_reason(error), error.facts.code) == (reason, code)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"code": 1020, "message": "m", "request_id": "rid"}', "1020"),
        (b'{"Code": "SlowDown", "Message": "m", "RequestId": "rid"}', "SlowDown"),
        (b'{"code": -3006, "request_id": "rid"}', ""),
        (b'{"code": null, "message": {"a": 1}, "request_id": "rid"}', ""),
        (b'{"code": true, "request_id": "rid\\ud800\\n"}', "True"),
    ],
)
def test_a_json_error_body_is_read_like_one_in_xml(body: bytes, code: str) -> None:
    """The same hosts send both."""
    error = _read(400, body)
    assert (error.facts.code, error.facts.request_id) == (code, "rid")


@pytest.mark.parametrize("code", ["InvalidArgument", "ResourceNotFound", "QueueNotFound", "BrandNewCode"])
def test_a_message_that_helps_the_caller_is_passed_on(code: str) -> None:
    """For reasons that the caller can act on."""
    assert _read(400, _xml(code, "the words")).message.endswith(": the words")


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "InvalidAccessKeyId", "AccessDenied", "InternalError"])
def test_a_message_that_may_reveal_keys_is_not_passed_on(code: str) -> None:
    """Messages about credentials may quote keys and signatures."""
    assert "AKID" not in _read(403, _xml(code, "AKIDexample signed sha1")).message


def test_a_hostile_message_is_cleaned_and_truncated() -> None:
    """Control characters are dropped."""
    error = _read(400, _xml("InvalidArgument", "a\n\u202eb&#x85;" + "x" * 5000, "r" * 5000))
    assert error.message.isprintable()
    assert len(error.message) < 400
    assert len(error.facts.request_id) <= 256


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x_ci_request_id": "ci"}, "ci"),
        ({"x_cos_request_id": "cos"}, "cos"),
        ({"x_ci_request_id": "ci", "x_cos_request_id": "cos"}, "ci"),
        ({"x_ci_request_id": "a\nb"}, ""),
        ({"x_ci_request_id": "ü"}, ""),
        ({"x_ci_request_id": "x" * 200}, "x" * 128),
        ({}, ""),
    ],
)
def test_the_request_id_of_a_header_is_used_without_one_in_the_body(headers: dict[str, str], expected: str) -> None:
    """Of either header; only text that is valid in metadata."""
    assert _read(503, b"", **headers).facts.request_id == expected


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        ("5", 5.0),
        ("120", 120.0),
        ("300", 300.0),
        ("301", 300.0),
        ("999", 300.0),
        ("0", 1.0),
        ("", 1.0),
        ("-5", 1.0),
        ("1e3", 1.0),
        ("2.5", 1.0),
        ("٣", 1.0),
        ("1000", 300.0),
        ("99999999999999999999", 300.0),
        ("9" * 5000, 300.0),
        (" 7 ", 7.0),
        ("Wed, 21 Oct 2026 07:28:20 GMT", 20.0),
        ("Wed, 21 Oct 2026 09:28:20 +0200", 20.0),
        ("Wed, 21 Oct 2026 09:28:00 GMT", 300.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", 1.0),
        ("Wed, 21 Oct 99999999999999999999 07:28:20 GMT", 1.0),
    ],
)
def test_a_valid_retry_after_is_passed_on_and_any_other_is_a_second(asked: str, seconds: float) -> None:
    """Valid: a number of seconds, or a date later than the reply's own; five minutes are the maximum."""
    date = "Wed, 21 Oct 2026 07:28:00 GMT"
    assert _read(503, _xml("SlowDown"), retry_after=asked, date=date).retry_after == seconds


def test_a_date_to_retry_at_needs_the_date_of_the_reply() -> None:
    """The clocks of gateway and cloud may differ."""
    assert _read(503, _xml("SlowDown"), retry_after="Wed, 21 Oct 2026 07:28:20 GMT").retry_after == 1.0


@pytest.mark.parametrize("code", ["InvalidArgument", "NoSuchBucket", "SignatureDoesNotMatch"])
def test_permanent_errors_have_no_retry_after(code: str) -> None:
    """Whatever the header says."""
    assert _read(400, _xml(code), retry_after="5").retry_after is None


def test_a_create_outcome_is_known_only_after_errors_before_admission() -> None:
    """Throttling, clock errors and refusals come before admission."""
    unknown = {ErrorReason.Name(reason).removeprefix("ERROR_REASON_") for reason in refusals.OUTCOME_UNKNOWN}
    assert unknown == {"UPSTREAM_INTERNAL", "UPSTREAM_UNAVAILABLE", "UPSTREAM_TIMEOUT", "UPSTREAM_BAD_RESPONSE"}


CI = {"server": "tencent-ci"}


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        ("InvalidArgument", "m", "UPSTREAM_INVALID_ARGUMENT"),
        ("InternalError", "m", "UPSTREAM_INTERNAL"),
        ("NoSuchJob", "m", "JOB_NOT_FOUND"),
        ("Whatever", "Doc processing service is not activated", "DOC_SERVICE_NOT_ENABLED"),
        ("BrandNewCode", "m", "UPSTREAM_BAD_RESPONSE"),
        ("", "", "UPSTREAM_BAD_RESPONSE"),
    ],
)
def test_an_error_document_with_status_200_is_an_error(code: str, message: str, reason: str) -> None:
    """What an unknown code leaves undone is unknown: a create may have been accepted."""
    error = refusals.error_in(HttpReply(200, CI, b'<?xml version="1.0"?>\n' + _xml(code, message)))
    assert error is not None
    assert (_reason(error), error.facts.http_status) == (reason, 200)


def test_a_result_is_not_an_error_though_it_names_one() -> None:
    """The root decides."""
    assert refusals.error_in(HttpReply(200, CI, b"<Response><Error>no</Error></Response>")) is None


FOREIGN = {
    "UPSTREAM_BAD_RESPONSE": [200, 204, 301, 302, 307, 400, 401, 402, 403, 404, 405, 407, 409, 411, 413, 451],
    "UPSTREAM_UNAVAILABLE": [408, 429, 500, 501, 502, 503, 504, 599],
}


@pytest.mark.parametrize(
    ("status", "reason"), [(status, reason) for reason, statuses in FOREIGN.items() for status in statuses]
)
@pytest.mark.parametrize("body", BODIES_WITHOUT_CODE.values(), ids=list(BODIES_WITHOUT_CODE))
def test_the_reply_of_a_stranger_says_nothing_about_the_cloud(status: int, reason: str, body: bytes) -> None:
    """Neither a missing right, nor a missing job, nor a throttle, and its `Retry-After` does not count."""
    error = refusals.error_in(HttpReply(status, {"server": "nginx", "retry-after": "77"}, body))
    assert isinstance(error, ForeignReply)
    assert (_reason(error), error.facts.code, error.facts.http_status) == (reason, "", status)
    assert error.retry_after == (1.0 if reason == "UPSTREAM_UNAVAILABLE" else None)
    assert error.reason in refusals.OUTCOME_UNKNOWN
    assert refusals.is_transient(error)


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (UpstreamError(r.ERROR_REASON_UPSTREAM_TIMEOUT, "m"), True),
        (UpstreamError(r.ERROR_REASON_UPSTREAM_BAD_RESPONSE, "m"), True),
        (ReplyTooLarge(), False),
        (UpstreamError(r.ERROR_REASON_JOB_NOT_FOUND, "m"), False),
        (ValueError("m"), False),
    ],
)
def test_an_error_is_transient_when_another_read_may_succeed(error: Exception, transient: bool) -> None:  # noqa: FBT001
    """A reply that is too large stays so."""
    assert refusals.is_transient(error) is transient


@pytest.mark.parametrize("status", [400, 403, 404])
def test_an_error_without_a_code_that_carries_a_job_is_a_bad_response(status: int) -> None:
    """Its status says the contrary of its body: a job is neither missing nor refused."""
    body = b"<Response><JobsDetail><JobId>d1</JobId></JobsDetail></Response>"
    error = refusals.error_in(HttpReply(status, CI, body))
    assert error is not None
    assert _reason(error) == "UPSTREAM_BAD_RESPONSE"


@pytest.mark.parametrize(("status", "accepted"), [(199, False), (200, True), (204, True), (299, True), (300, False)])
def test_a_reply_is_accepted_with_any_status_2xx(status: int, accepted: bool) -> None:  # noqa: FBT001
    """RFC 9110, 15.3."""
    assert refusals.accepted(HttpReply(status, {}, b"")) == accepted
