"""HTTP values and errors: encoding, text forms, metadata."""

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.model.errors import (
    GatewayError,
    InvalidRequest,
    UpstreamError,
    UpstreamFacts,
    Violation,
    bad_response,
)
from docpreview_gateway.upstream.wire.http import HttpReply, HttpRequest, percent_encode


def test_percent_encoding_spares_unreserved_characters_only() -> None:
    """Unreserved are `A-Z a-z 0-9 - _ . ~`; hexadecimal digits are upper case, as the signature requires."""
    assert percent_encode("aZ09-_.~") == "aZ09-_.~"
    assert percent_encode(" +/=*()!'&?#%:\0中") == "%20%2B%2F%3D%2A%28%29%21%27%26%3F%23%25%3A%00%E4%B8%AD"


def test_everything_in_a_target_but_the_slashes_is_encoded() -> None:
    """In the path and in the query."""
    assert HttpRequest("GET", "h", "/a b/c?d").target == "/a%20b/c%3Fd"
    assert HttpRequest("GET", "h", "/", (("a&b", "c=d"), ("e", ""))).target == "/?a%26b=c%3Dd&e="


def test_text_forms_do_not_show_bodies() -> None:
    """Bodies may contain passwords."""
    assert "s3cret" not in repr(HttpRequest("POST", "h", "/", body=b"s3cret"))
    assert "s3cret" not in repr(HttpReply(200, {}, b"s3cret"))


def test_known_facts_of_an_upstream_error_are_metadata() -> None:
    """Unknown facts are left out."""
    facts = UpstreamFacts("SlowDown", 503, "rid")
    error = UpstreamError(reasons.ERROR_REASON_UPSTREAM_THROTTLED, "m", facts=facts, retry_after=2.0)
    assert error.metadata == {
        "upstream_code": "SlowDown",
        "upstream_http_status": "503",
        "upstream_request_id": "rid",
    }
    assert (error.reason, error.message, str(error), error.retry_after) == (18, "m", "m", 2.0)
    assert bad_response("m").metadata == {}
    assert bad_response("m").reason == reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE


def test_the_text_of_an_invalid_request_names_each_field_once() -> None:
    """All violations are in the error."""
    error = InvalidRequest(iter([Violation("a", "x"), Violation("b", "y"), Violation("a", "z")]))
    assert isinstance(error, GatewayError)
    assert error.message == "invalid request: a, b"
    assert len(error.violations) == 3
    assert (error.metadata, error.retry_after) == ({}, None)
