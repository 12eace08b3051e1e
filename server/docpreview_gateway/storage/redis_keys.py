"""Names of keys and channels on a Redis server, which may serve other deployments and other programs too."""

from __future__ import annotations

from urllib.parse import quote

PREFIX = "docpreview:2:"
"""Prefix of every key and channel. The number is a version; it changes when the meaning of stored values changes."""

OLD_PREFIX = "docpreview:1:"
"""Prefix of versions before 2.0, whose keys had no namespace."""


def prefix(namespace: str) -> str:
    """Prefix of the keys and channels of one deployment."""
    return f"{PREFIX}{_word(namespace)}:"


def slot_prefix(namespace: str, name: str = "") -> str:
    """Prefix of a deployment's keys that share one hash slot of a cluster, so that one script can use all of them."""
    return f"{PREFIX}{{{':'.join(filter(None, (_word(namespace), name)))}}}:"


def _word(namespace: str) -> str:
    """The namespace without the characters that end a part of a key."""
    return quote(namespace, safe="")
