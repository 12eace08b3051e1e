"""Static tokens and their salted hashes."""

from __future__ import annotations

import secrets

import pytest

from docpreview_gateway.access import tokens


def test_a_new_token_is_recognised_by_a_hash_that_does_not_contain_it() -> None:
    """The secret has 256 random bits."""
    token, stored = tokens.new(secrets.token_bytes)
    found = tokens.split(token)
    assert found is not None
    assert found[0] == stored.token_id
    assert stored.matches(found[1])
    assert tokens.parse_hash(str(stored)) == stored
    assert found[1] not in str(stored) + repr(stored)
    assert stored.digest.hex() not in repr(stored)
    assert len(found[1]) * 6 >= 256


def test_salts_make_hashes_of_equal_secrets_differ() -> None:
    """Equal hashes would reveal equal tokens."""
    numbers = iter(range(100))

    def counting(length: int) -> bytes:
        return bytes([next(numbers)]) * length

    hashes = {tokens.new(counting)[1].digest for _ in range(5)}
    assert len(hashes) == 5


@pytest.mark.parametrize(
    "change",
    [lambda s: s[:-1] + ("A" if s[-1] == "Q" else "Q"), lambda s: s.swapcase(), lambda _: "", lambda s: s + "A"],
)
def test_a_nearly_right_secret_does_not_match(change: object) -> None:
    """Other letters, other case, shorter or longer."""
    token, stored = tokens.new(lambda length: bytes(range(1, length + 1)))
    found = tokens.split(token)
    assert found is not None
    assert not stored.matches(change(found[1]))  # type: ignore[operator]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dpt1",
        "dpt1:a:b:c",
        "dpt1:" + "a" * 16 + ":" + "0" * 32 + ":" + "0" * 63,
        "dpt2:" + "a" * 16,
        "secret-canary",
    ],
)
def test_a_malformed_hash_is_rejected_without_being_quoted(text: str) -> None:
    """It may be the token itself."""
    with pytest.raises(ValueError, match="token new") as caught:
        tokens.parse_hash(text)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "dpt_", "dpt_aaaaaaaaaaaaaaaa_short", "dpt_AAAAAAAAAAAAAAAA_" + "a" * 43, "a.b.c"]
)
def test_text_of_another_form_is_not_a_static_token(text: str) -> None:
    """It may still be a signed token."""
    assert tokens.split(text) is None
