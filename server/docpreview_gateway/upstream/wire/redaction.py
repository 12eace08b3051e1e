"""Texts of the cloud without what signs requests: an error may quote the request that it refuses."""

from __future__ import annotations

import re

_SECRETS = re.compile(
    r"""
      \b(?:authorization|x-cos-security-token|x-ci-security-token|security-?token|sign(?:ature)?)
        \b["']?\s*(?::|=|%3[ad])\s*.*                                   # a header or parameter: all that follows
    | q-(?:sign-algorithm|ak|sign-time|key-time|header-list|url-param-list|signature)(?:=|%3d).*  # a signature
    | \bBearer\s+\S+
    | \bdpt_\S+                                                         # tokens of this gateway
    | \beyJ[\w-]+\.[\w.-]+                                              # signed tokens
    | \bAKID\w+                                                         # ids of the cloud's keys
    | (?:(?<=/)|(?<=%2f))[\w-]{21}[AQgw](?![\w.-])                       # the end of an address that the cloud calls
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


def redacted(text: str) -> str:
    """The text with `...` in the place of signatures, keys and tokens, and of what follows them."""
    return _SECRETS.sub("...", text)
