"""Names on the server, which all replicas of all versions must agree on."""

from __future__ import annotations

from docpreview_gateway.limits import redis_rates
from docpreview_gateway.storage.redis_keys import PREFIX


def test_keys_keep_their_names_and_version() -> None:
    """A new name counts calls anew."""
    assert PREFIX == "docpreview:1:"
    assert redis_rates.PREFIX == "docpreview:1:{rates}:"
