"""Names of buckets and regions cannot lead a request to another host."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docpreview_gateway.model.buckets import BUCKET, REGION, Bucket

GOOD, HOME = "b-12345", "ap-chongqing"

LEADING_AWAY = [
    ("evil.com/", HOME),
    ("x@evil.com#", HOME),
    ("a-125.evil.com/?", HOME),
    (GOOD, "evil.com/#"),
    ("127.0.0.1:80/", HOME),
    ("[::1]/", HOME),
    (GOOD, "ap。evil"),
    (GOOD, "ap-x\\evil"),
    (GOOD, "ap-%2e"),
    (GOOD, "ap-ü"),
    ("a\r\nHost: evil.com\r\n-12345", HOME),
    (GOOD, "ap-x\n"),
    (GOOD + "\n", HOME),
]
"""With naive formatting all but the last of these reached another or a malformed host."""


@pytest.mark.parametrize(("name", "region"), LEADING_AWAY)
def test_a_name_that_could_lead_to_another_host_is_rejected(name: str, region: str) -> None:
    """Even a configuration cannot make a bucket of it."""
    with pytest.raises(ValueError, match="not a bucket and region"):
        Bucket(name, region, "main")


@pytest.mark.parametrize(
    "name", ["", "a", "a-1234", "a-01234", "-a-12345", "A-12345", "a_b-12345", "a" * 51 + "-12345"]
)
def test_a_name_of_another_form_is_rejected(name: str) -> None:
    """The form is `<name>-<appid>`, in lower case."""
    with pytest.raises(ValueError, match="not a bucket and region"):
        Bucket(name, HOME, "main")


def test_a_name_of_64_characters_is_rejected() -> None:
    """A DNS label has at most 63, although name and number are each within their limits."""
    assert Bucket("a" * 49 + "-1234567890123", HOME, "main")
    with pytest.raises(ValueError, match="not a bucket and region"):
        Bucket("a" * 50 + "-1234567890123", HOME, "main")


@pytest.mark.slow
@given(st.one_of(st.text(max_size=20), st.from_regex(BUCKET)), st.one_of(st.text(max_size=20), st.from_regex(REGION)))
@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
def test_any_name_is_rejected_or_a_host_in_the_clouds_domain(name: str, region: str) -> None:
    """A host has four or more plain labels under the cloud's domain."""
    try:
        bucket = Bucket(name, region, "main")
    except ValueError:
        return
    for host in (bucket.ci_host, bucket.object_host):
        assert re.fullmatch(r"[a-z0-9-]{7,63}\.(?:ci|cos)\.[a-z0-9-]+\.myqcloud\.com", host)
        assert host.startswith(f"{name}.")


def test_a_bucket_has_a_host_for_the_job_api_and_one_for_objects() -> None:
    """Both are built from name and region."""
    bucket = Bucket("examplebucket-1250000000", HOME, "main")
    assert bucket.ci_host == "examplebucket-1250000000.ci.ap-chongqing.myqcloud.com"
    assert bucket.object_host == "examplebucket-1250000000.cos.ap-chongqing.myqcloud.com"
