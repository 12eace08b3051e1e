"""The part of a policy file about a target of webhooks."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from docpreview_gateway.settings.limits import Section


def _webhook_url(value: str) -> str:
    what = (
        "must be an address such as https://orders.example.com/previews, percent-encoded, without user and fragment, "
        "with a port up to 65535 if any"
    )
    try:
        parts = urlsplit(value)
        host, _ = (parts.hostname or "").encode("idna"), parts.port
    except ValueError:  # also of a port or a name that cannot be
        raise ValueError(what) from None
    if parts.username or parts.password or parts.fragment or not host or not value.isascii() or " " in value:
        raise ValueError(what)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ValueError("must begin with https://; http:// is for a receiver on this machine, such as 127.0.0.1")
    return value


_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

WebhookUrl = Annotated[str, AfterValidator(_webhook_url)]


class WebhookPart(Section):
    """A target of webhooks: its address, and the file with the secrets that sign what it gets."""

    # The file is not read here: one that is missing for a moment is a failing target, and must not keep a policy from
    # being loaded, by which callers are admitted and turned away.

    url: WebhookUrl
    secret_file: Path
