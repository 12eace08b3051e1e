"""Names on the server, which all replicas of all versions must agree on."""

from __future__ import annotations

from docpreview_gateway.creates.redis_creates import key_names
from docpreview_gateway.storage.redis_keys import OLD_PREFIX, prefix, slot_prefix


def test_keys_keep_their_names_and_version() -> None:
    """A new name counts calls anew."""
    assert prefix("previews") == "docpreview:2:previews:"
    assert slot_prefix("previews", "rates") == "docpreview:2:{previews:rates}:"
    assert key_names("previews") == [f"docpreview:2:{{previews}}:{name}" for name in "cpdm"]
    assert OLD_PREFIX == "docpreview:1:"


def test_no_namespace_makes_the_keys_of_another() -> None:
    """Whatever is in it."""
    assert slot_prefix("a", "rates") != slot_prefix("a:rates")
    assert len({prefix(name) for name in ("a", "a:", "a}", "{a", "A")}) == 5
