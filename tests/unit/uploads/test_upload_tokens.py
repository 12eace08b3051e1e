"""Upload tokens: sealed, bound to the caller, readable by every replica."""

from __future__ import annotations

import pytest

from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.callers import Caller
from docpreview_gateway.model.errors import InvalidRequest
from docpreview_gateway.uploads.tokens import Announced, UploadTokens
from docpreview_gateway.upstream.wire.signing import Credentials
from tests.fakes.credentials import SECRET_KEY, FakeCredentials

BUCKET = Bucket("docs-1250000000", "ap-chongqing", "main")
UPLOAD = Announced("in/ä.pdf", "0f" * 16, 7, "application/pdf", 2**64 - 1, 1_800_000_000, "cloud-id")
SHOP = Caller("shop")


def tokens(credentials: FakeCredentials | None = None, nonce: bytes = b"n") -> UploadTokens:
    return UploadTokens(credentials or FakeCredentials(), {BUCKET.name: BUCKET}.get, lambda count: nonce * count)


def test_a_token_is_read_by_every_replica_and_by_its_caller_alone() -> None:
    """The replicas have the bucket's credentials."""
    token = tokens().encode(UPLOAD, BUCKET, SHOP)
    assert tokens(nonce=b"m").decode(token, SHOP) == (BUCKET, UPLOAD)
    with pytest.raises(InvalidRequest):
        tokens().decode(token, Caller("bank"))


def test_a_token_tells_nothing_of_the_object() -> None:
    """It is encrypted but for the bucket's name, and two of one upload differ."""
    one, other = (tokens(nonce=nonce).encode(UPLOAD, BUCKET, SHOP) for nonce in (b"1", b"2"))
    assert one != other
    assert "in/" not in one
    assert "cloud-id" not in one


def test_the_longest_token_has_4_kib() -> None:
    """Of a key of 850 bytes, and the longest id of the cloud and type."""
    long = Announced("ä" * 425, "0" * 32, 209_715_200, "a/" + "b" * 125, 2**64 - 1, 1_800_000_000, "u" * 512)
    assert len(tokens().encode(long, Bucket("b" * 40 + "-1250000000", "ap-x", "main"), SHOP)) <= 4096


def test_a_token_outlives_a_rotation_of_keys() -> None:
    """Until the old key is forgotten."""
    token = tokens().encode(UPLOAD, BUCKET, SHOP)
    rotated = FakeCredentials(main=Credentials("new", "new-key"))
    with pytest.raises(InvalidRequest):
        tokens(rotated).decode(token, SHOP)
    rotated.replaced = (SECRET_KEY,)
    assert tokens(rotated).decode(token, SHOP) == (BUCKET, UPLOAD)


def test_every_change_of_a_token_gets_the_same_answer() -> None:
    """One cut short, one with another character, one for another bucket, and any text."""
    token = tokens().encode(UPLOAD, BUCKET, SHOP)
    changed = {token[:cut] for cut in range(len(token))}
    changed |= {token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :] for at in range(len(token))}
    told = set()
    for text in changed | {"", "a", "=", "ä", token + "A"}:
        with pytest.raises(InvalidRequest) as caught:
            tokens().decode(text, SHOP)
        told.add(caught.value.violations)
    assert len(told) == 1
