"""The client certificate that the edge names in `x-forwarded-client-cert`. Envoy has verified its chain."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from docpreview_gateway.access.directory import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADER = "x-forwarded-client-cert"

_ELEMENT = re.compile(r'(?:By=[^,;"\\]{0,512};)*Hash=[0-9a-f]{64};Cert="([A-Za-z0-9%._~-]{1,16384})"', re.ASCII)
"""As Envoy writes it with `set_current_client_cert_details: {cert: true}`: one element; a comma would begin another."""


def forwarded(values: Sequence[str | bytes]) -> bytes:
    """The certificate as PEM, from every value of the header; empty without the header.

    Unauthenticated when it is anything but the one element that the edge writes.
    """
    if not values:
        return b""
    if len(values) > 1 or not isinstance(values[0], str):
        raise Unauthenticated(f"{HEADER} stands more than once, or is not text")
    return _pem(values[0])


@lru_cache(1024)
def _pem(value: str) -> bytes:
    found = _ELEMENT.fullmatch(value)
    if found is None:
        raise Unauthenticated(f"{HEADER} is not what the edge writes")
    return unquote_to_bytes(found[1])
