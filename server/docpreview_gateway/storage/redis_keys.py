"""Names of keys and channels on a Redis server, which may serve other programs too."""

from __future__ import annotations

PREFIX = "docpreview:1:"
"""Prefix of every key and channel. The number is a version; it changes when the meaning of stored values changes."""


def slot_prefix(name: str) -> str:
    """Prefix of keys that share one hash slot of a cluster, so that one script can use all of them."""
    return f"{PREFIX}{{{name}}}:"
