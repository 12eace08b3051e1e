"""Tokens in the address that the cloud calls back."""

from __future__ import annotations

import pytest

from docpreview_gateway.callbacks.tokens import WEEK_SECONDS, CallbackTokens

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
