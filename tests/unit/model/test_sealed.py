"""Sealed values: opened by whoever has the secret, for their purpose and bond only."""

from __future__ import annotations

import pytest

from docpreview_gateway.model.sealed import NONCE_BYTES, SEAL_BYTES, from_text, opened, seal, to_text

NONCE = bytes(NONCE_BYTES)
SEALED = seal(b"value", "secret", b"purpose", b"bond", NONCE)


def test_a_value_is_opened_by_one_of_several_secrets() -> None:
    """As after a rotation."""
    assert opened(SEALED, ("new", "secret"), b"purpose", b"bond") == b"value"
    assert len(SEALED) == len(b"value") + SEAL_BYTES
    assert b"value" not in SEALED


@pytest.mark.parametrize(
    ("sealed", "secret", "purpose", "bond"),
    [
        (SEALED, "other", b"purpose", b"bond"),
        (SEALED, "secret", b"other", b"bond"),
        (SEALED, "secret", b"purpose", b"other"),
        (SEALED[:-1], "secret", b"purpose", b"bond"),
        (SEALED + b"x", "secret", b"purpose", b"bond"),
        (b"", "secret", b"purpose", b"bond"),
    ],
)
def test_anything_else_opens_nothing(sealed: bytes, secret: str, purpose: bytes, bond: bytes) -> None:
    """Another secret, purpose or bond, or other bytes."""
    assert opened(sealed, (secret,), purpose, bond) is None


@pytest.mark.parametrize("text", ["=", "a", "AB", "AA==", "A A", "A+", "ä"])
def test_bytes_have_one_text_only(text: str) -> None:
    """Other spellings, paddings and alphabets are none."""
    assert from_text(to_text(b"\xff\xfe")) == b"\xff\xfe"
    assert from_text(text) is None
