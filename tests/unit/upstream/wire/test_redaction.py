"""What is left of the cloud's texts."""

from __future__ import annotations

import pytest

from docpreview_gateway.upstream.wire.redaction import redacted

AUTHORIZATION = "q-sign-algorithm=sha1&q-ak=AKIDexample&q-sign-time=1;2&q-header-list=host&q-signature=0a1b"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"bad header {AUTHORIZATION}", "bad header ..."),
        (f"Authorization: {AUTHORIZATION}", "..."),
        (f"got authorization={AUTHORIZATION} from x", "got ..."),
        ("GET https://h/k?q-ak=AKID1&q-signature=ab", "GET https://h/k?..."),
        ("a line that ended here:q-ak=AKID1", "a line that ended here:..."),
        ("a line that ended hereq-signature=0a1b", "a line that ended here..."),
        ("GET https://h/k?a=1%26q-ak%3DAKID1", "GET https://h/k?a=1%26..."),
        ('{"x-cos-security-token": "abc/def"}', '{"...'),
        ("header Bearer abc.def is wrong", "header ... is wrong"),
        ("token dpt_aaaa_bbbb, and eyJhbGciOi.eyJzdWIi.c2ln", "token ... and ..."),
        ("no key AKIDz8krbsJ5yKBZQpn74WFkmLPx3 here", "no key ... here"),
        ("bad value https://h/cb/QkhiGdb1Ag0QlerBmIgjTw in it", "bad value https://h/cb/... in it"),
        ("CallBack=https%3A%2F%2Fh%2FQkhiGdb1Ag0QlerBmIgjTw", "CallBack=https%3A%2F%2Fh%2F..."),
    ],
)
def test_signatures_keys_and_tokens_are_left_out(text: str, left: str) -> None:
    """With all that follows where their end is unknown."""
    assert redacted(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no object docs/QkhiGdb1Ag0QlerBmIgjTw.pdf",
        "InputObject is empty",
        "the object faq-page=1 has no signature",
        "QueueId p58a510 not found",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    """They tell the caller what to correct."""
    assert redacted(text) == text
