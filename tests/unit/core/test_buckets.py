"""Names of buckets and regions cannot lead a request elsewhere."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docpreview_gateway.core.buckets import BUCKET, REGION, Bucket

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
"""Measured with naive formatting: all but the last of these reached another host, or an odd one."""


@pytest.mark.parametrize(("name", "region"), LEADING_AWAY)
def test_name_that_leads_away(name: str, region: str) -> None:
    """Not even a configuration can make a bucket of it."""
    with pytest.raises(ValueError, match="not a bucket and region"):
        Bucket(name, region, "main")


@pytest.mark.parametrize(
    "name", ["", "a", "a-1234", "a-01234", "-a-12345", "A-12345", "a_b-12345", "a" * 51 + "-12345"]
)
def test_name_in_another_form(name: str) -> None:
    """`<name>-<appid>`, in lower case."""
    with pytest.raises(ValueError, match="not a bucket and region"):
        Bucket(name, HOME, "main")


def test_label_of_64_characters() -> None:
    """No longer than a DNS label may be, although name and number are each within their limits."""
    assert Bucket("a" * 49 + "-1234567890123", HOME, "main")
    with pytest.raises(ValueError, match="not a bucket and region"):
        Bucket("a" * 50 + "-1234567890123", HOME, "main")


@pytest.mark.slow
@given(st.one_of(st.text(max_size=20), st.from_regex(BUCKET)), st.one_of(st.text(max_size=20), st.from_regex(REGION)))
@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
def test_any_name(name: str, region: str) -> None:
    """Refused, or a host of four or more plain labels under the cloud's domain."""
    try:
        bucket = Bucket(name, region, "main")
    except ValueError:
        return
    for host in (bucket.ci_host, bucket.object_host):
        assert re.fullmatch(r"[a-z0-9-]{7,63}\.(?:ci|cos)\.[a-z0-9-]+\.myqcloud\.com", host)
        assert host.startswith(f"{name}.")


def test_hosts() -> None:
    """The hosts of the job API and of objects."""
    bucket = Bucket("examplebucket-1250000000", HOME, "main")
    assert bucket.ci_host == "examplebucket-1250000000.ci.ap-chongqing.myqcloud.com"
    assert bucket.object_host == "examplebucket-1250000000.cos.ap-chongqing.myqcloud.com"
