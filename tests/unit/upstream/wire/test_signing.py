"""Signatures equal those of the vendor, byte for byte."""

import base64
import json
import re
from hashlib import md5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.upstream.wire import requests, signing
from docpreview_gateway.upstream.wire.http import HttpRequest
from docpreview_gateway.upstream.wire.signing import Credentials, Window

from . import vendor_sdk
from .vectors import FOLDER

CASES = json.loads((FOLDER / "signing.json").read_text())["cases"]
KEYS = Credentials(vendor_sdk.SECRET_ID, vendor_sdk.SECRET_KEY)
BUCKET = Bucket("examplebucket-1250000000", "ap-chongqing", "main")
WINDOW = Window(1699999940, 1700000600)

any_character = st.characters(exclude_categories=["Cs"])
text = st.text(any_character, max_size=20)
path = st.text(any_character, max_size=40).map("/".__add__)
names = st.text(any_character, min_size=1, max_size=12)
VENDOR_SIGNS = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-type",
    "content-md5",
    "content-length",
    "expect",
    "expires",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
    "origin",
    "range",
    "transfer-encoding",
    "pic-operations",
]
header_name = st.one_of(
    st.sampled_from(VENDOR_SIGNS),
    st.from_regex(r"x-c(?:i|os)-[A-Za-z0-9!#$%&'*+.^_`|~-]{0,12}", fullmatch=True),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_every_published_vector_gives_its_authorization(case: dict[str, object]) -> None:
    """Vectors: tests/vectors/signing.json."""
    request = HttpRequest(case["method"], "", case["path"], tuple(case["params"].items()), case["headers"])  # type: ignore[arg-type,attr-defined]
    keys = Credentials(case["secret_id"], case["secret_key"])  # type: ignore[arg-type]
    window = Window(case["valid_from"], case["valid_until"])  # type: ignore[arg-type]
    assert signing.authorization(request, keys, window) == case["authorization"]


@pytest.mark.slow
@given(
    st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE"]),
    path,
    st.dictionaries(names, text, max_size=5),
    st.dictionaries(header_name, text, max_size=5),
)
@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
def test_any_request_has_the_signature_of_the_vendors_sdk(
    method: str, path: str, query: dict[str, str], headers: dict[str, str]
) -> None:
    """For any path, parameters and headers, in the SDK's window."""
    query, headers = _distinct(query), _distinct(headers)
    vendor = vendor_sdk.authorization(method, path, query, headers)
    begin, end = map(int, re.findall(r"q-sign-time=(\d+);(\d+)&", vendor)[0])
    request = HttpRequest(method, "", path, tuple(query.items()), headers)
    assert signing.authorization(request, KEYS, Window(begin, end)) == vendor


def _distinct(pairs: dict[str, str]) -> dict[str, str]:
    """Names that differ by more than case; of other names the SDK sends one only."""
    return dict({_folded(name): (name, value) for name, value in pairs.items()}.values())


def _folded(name: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in name)


def test_all_headers_and_parameters_of_a_request_are_signed() -> None:
    """Host and token among them; the rest of the request is unchanged."""
    request = requests.get(BUCKET, "j1")
    signed = signing.sign(request, Credentials("id", "key", "TOKEN+/=abc"), WINDOW)
    assert signed.headers["host"] == BUCKET.ci_host
    assert signed.headers["x-ci-security-token"] == "TOKEN+/=abc"
    assert "q-header-list=content-type;host;x-ci-security-token&" in signed.headers["authorization"]
    assert (signed.method, signed.path, signed.query, signed.body) == (
        request.method,
        request.path,
        request.query,
        request.body,
    )
    assert "authorization" not in request.headers


def test_permanent_keys_send_no_token_header() -> None:
    """The token of permanent keys is empty."""
    assert set(signing.sign(requests.get(BUCKET, "j1"), KEYS, WINDOW).headers) == {
        "host",
        "content-type",
        "authorization",
    }


def test_a_presigned_url_is_signed_in_its_query_for_its_host_only() -> None:
    """The signature is percent-encoded in the query."""
    signed = signing.presign(requests.read_object(BUCKET, "a b/c.jpg"), KEYS, WINDOW)
    expected = signing.authorization(
        HttpRequest("GET", BUCKET.object_host, "/a b/c.jpg", headers={"host": BUCKET.object_host}), KEYS, WINDOW
    )
    assert "&".join(f"{name}={value}" for name, value in signed.query) == expected
    assert signed.target.startswith(
        "/a%20b/c.jpg?q-sign-algorithm=sha1&q-ak=example-secret-id&q-sign-time=1699999940%3B"
    )
    assert set(signed.headers) == {"host"}


def test_a_presigned_url_of_temporary_keys_signs_their_token() -> None:
    """The token is a signed query parameter."""
    signed = signing.presign(requests.read_object(BUCKET, "c.jpg"), Credentials("id", "key", "t+k"), WINDOW)
    query = dict(signed.query)
    assert query["x-cos-security-token"] == "t+k"
    assert query["q-url-param-list"] == "x-cos-security-token"
    assert query["q-header-list"] == "host"


def test_a_window_begins_a_minute_before_now_and_ends_ten_minutes_after() -> None:
    """The lifetime is an argument."""
    assert str(Window.around(1700000000.9)) == "1699999940;1700000600"
    assert str(Window.around(1700000000, lifetime=5)) == "1699999940;1700000005"


def test_the_text_form_of_credentials_shows_the_id_only() -> None:
    """Neither key nor token are shown."""
    shown = repr(Credentials("the-id", "the-key", "the-token"))
    assert "the-id" in shown
    assert "the-key" not in shown
    assert "the-token" not in shown


def test_the_body_of_a_create_is_signed_by_its_checksum() -> None:
    """The body's MD5 and length are signed headers."""
    create = next(case for case in CASES if case["name"] == "create-full")
    body = create["body"].encode()
    assert create["headers"]["content-md5"] == base64.b64encode(md5(body, usedforsecurity=False).digest()).decode()
    assert create["headers"]["content-length"] == str(len(body))
