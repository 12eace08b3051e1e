"""Tokens in the address that the cloud calls back."""

from __future__ import annotations

import pytest

from docpreview_gateway.callbacks.tokens import WEEK_SECONDS, CallbackTokens
from docpreview_gateway.upstream.wire.redaction import redacted

NOW = 100.5 * WEEK_SECONDS
OLD, NEW = b"o" * 32, b"n" * 32
BUCKETS = ["docs-1250000000", "archive-1250000000"]


@pytest.mark.parametrize(("weeks", "known"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_a_token_is_known_in_its_week_and_in_those_beside_it(weeks: int, *, known: bool) -> None:
    """Callbacks of jobs from before the change of the week count, and no replica's clock is exact."""
    tokens = CallbackTokens([NEW], "previews")
    found = tokens.bucket(tokens.token(BUCKETS[0], NOW), BUCKETS, NOW + weeks * WEEK_SECONDS)
    assert found == (BUCKETS[0] if known else None)


def test_a_token_of_the_secret_before_is_known_while_the_secret_is_in_the_file() -> None:
    """New tokens are made by the new secret at once."""
    before = CallbackTokens([OLD], "previews").token(BUCKETS[0], NOW)
    assert CallbackTokens([NEW, OLD], "previews").bucket(before, BUCKETS, NOW) == BUCKETS[0]
    assert CallbackTokens([NEW, OLD], "previews").token(BUCKETS[0], NOW) != before
    assert CallbackTokens([NEW], "previews").bucket(before, BUCKETS, NOW) is None


def test_a_token_is_of_one_bucket_one_deployment_and_is_22_characters() -> None:
    one, other = CallbackTokens([NEW], "previews"), CallbackTokens([NEW], "others")
    made = {each.token(bucket, NOW) for each in (one, other) for bucket in BUCKETS}
    assert len(made) == 4
    assert {len(each) for each in made} == {22}
    assert one.bucket(other.token(BUCKETS[0], NOW), BUCKETS, NOW) is None


@pytest.mark.parametrize("weeks", [-100, 0, 1000])
def test_the_token_of_queues_is_known_for_ever_and_is_another_one_than_that_of_creates(weeks: int) -> None:
    """A queue keeps its address until somebody writes another one."""
    tokens = CallbackTokens([NEW], "previews")
    token = tokens.queue_token(BUCKETS[1])
    assert tokens.bucket(token, BUCKETS, NOW + weeks * WEEK_SECONDS) == BUCKETS[1]
    assert token != tokens.token(BUCKETS[1], NOW)
    assert len(token) == 22


def test_the_token_of_queues_is_of_one_bucket_one_deployment_and_its_secrets() -> None:
    old, both = CallbackTokens([OLD], "previews"), CallbackTokens([NEW, OLD], "previews")
    token = old.queue_token(BUCKETS[0])
    assert both.bucket(token, BUCKETS, NOW) == BUCKETS[0]
    assert both.queue_token(BUCKETS[0]) != token
    assert both.is_queue_token(token, BUCKETS[0])
    assert not both.is_queue_token(token, BUCKETS[1])
    assert not both.is_queue_token(both.token(BUCKETS[0], NOW), BUCKETS[0])
    assert CallbackTokens([NEW], "previews").bucket(token, BUCKETS, NOW) is None
    assert CallbackTokens([OLD], "others").bucket(token, BUCKETS, NOW) is None


def test_an_error_of_the_cloud_that_quotes_an_address_is_shown_without_its_token() -> None:
    for week in range(200):
        token = CallbackTokens([NEW], "docs").token("docs", week * 604_800.0)
        assert redacted(f"bad value https://h/cb/{token} in it") == "bad value https://h/cb/... in it"
