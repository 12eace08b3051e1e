"""The keys of the cloud, as requests are signed with them and as page tokens are made from them."""

from __future__ import annotations

from docpreview_gateway.upstream.wire.signing import Credentials
from docpreview_gateway.wiring.access import HeldCredentials


def test_replaced_secret_keys_are_remembered_newest_first_and_not_for_ever() -> None:
    """Two of them. A new session token, or a key that returns, is no further key."""
    held = HeldCredentials()
    for key in ("one", "one", "two", "three", "four", "three"):
        held.replace("main", Credentials("id", key, token=f"session of {key}"))
    held.replace("other", Credentials("id", "of another set"))
    assert held.credentials("main").secret_key == "three"
    assert held.secret_keys("main") == ("three", "four", "two")
    assert held.secret_keys("other") == ("of another set",)
