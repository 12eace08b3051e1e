"""What queues have to tell this deployment, and what they tell as they are. No text here has a token in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import urlsplit

from docpreview_gateway.upstream.wire import queue_notices

if TYPE_CHECKING:
    from docpreview_gateway.callbacks.tokens import CallbackTokens
    from docpreview_gateway.upstream.wire.queue_notices import NotifyConfig

Standing: TypeAlias = Literal["wanted", "outdated", "foreign", "off"]
"""Whom a queue tells: this deployment; it too, by an earlier secret or address; somebody else; nobody."""

TOKEN = "<token>"


class QueueAddresses:
    """The addresses of a deployment's queues below `public_url`."""

    def __init__(self, public_url: str, tokens: CallbackTokens) -> None:
        self._base = public_url.rstrip("/")
        self._tokens = tokens

    def wanted(self, bucket: str) -> NotifyConfig:
        """What the queues of a bucket have to be told. It has the token."""
        return queue_notices.to_url(f"{self._base}/{self._tokens.queue_token(bucket)}")

    def standing(self, bucket: str, notify: NotifyConfig) -> Standing:
        """Whom a queue of the bucket tells."""
        if not notify.is_on:
            return "off"
        if notify.kind.lower() not in {"", "url"}:
            return "foreign"
        if notify.url == self.wanted(bucket).url:
            return "wanted"
        return "outdated" if self._is_ours(bucket, notify.url) else "foreign"

    def shown(self, bucket: str, notify: NotifyConfig) -> str:
        """Whom a queue tells, in words. Of an address of somebody else's only its host: the rest may be secret too."""
        if not notify.is_on:
            return "nobody"
        if notify.kind.lower() not in {"", "url"}:
            return f"a message queue ({notify.kind})"
        base, _, _ = notify.url.rpartition("/")
        if self._is_ours(bucket, notify.url):
            return f"{base}/{TOKEN}, as {notify.result_format or 'XML'}"
        try:
            host = urlsplit(notify.url).hostname or ""
        except ValueError:
            host = ""
        return f"another receiver, at {host}" if host else "another receiver"

    def _is_ours(self, bucket: str, url: str) -> bool:
        base, _, token = url.rpartition("/")
        return base == self._base or self._tokens.is_queue_token(token, bucket)
