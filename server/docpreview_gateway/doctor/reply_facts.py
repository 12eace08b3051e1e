"""What is told of a reply of the cloud: its form, and of its texts only words that are the vendor's own.

No name, key, id, address, user data or signature is in it, whatever the reply has.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.wire import origin
from docpreview_gateway.upstream.wire import xml as xml_codec
from docpreview_gateway.upstream.wire.http import unix_time

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

    from docpreview_gateway.upstream.wire.http import HttpReply

MOST_ELEMENTS = 200
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9.]{0,63}")
_VENDORS_WORDS = frozenset({"Code", "State", "Tag"})


def facts_of(reply: HttpReply, now: float) -> dict[str, Any]:
    """Status, sender, the difference of its `Date` to this machine's clock, and its elements."""
    date = unix_time(reply.headers.get("date", ""))
    facts: dict[str, Any] = {
        "status": reply.status,
        "from_ci": origin.is_from_ci(reply),
        "headers": sorted(name for name in reply.headers if _NAME.fullmatch(name)),
        "date_minus_local_seconds": None if date is None else round(date - now, 1),
        "bytes": len(reply.body),
    }
    try:
        root = xml_codec.read(reply.body)
    except UpstreamError:
        return facts | {"xml": False}
    if not facts["from_ci"]:
        return facts | {"xml": True}  # of a stranger's reply even the names of elements may be anything
    return facts | {"xml": True, "elements": _elements(root), "words": _words(root)}


def creation_offset(reply: HttpReply) -> str | None:
    """The offset to UTC in the first `CreationTime` of a reply, such as +0800; None: it has none."""
    try:
        texts = (found.text or "" for found in xml_codec.read(reply.body).iter("CreationTime"))
        found = re.search(r"(Z|[+-][0-9]{2}:?[0-9]{2})$", next(texts, "").strip())
    except UpstreamError:
        return None
    return found[0] if found else None


def _elements(root: Element) -> list[str]:
    """The paths of the elements, each once."""
    found: dict[str, None] = {}

    def walk(element: Element, above: str) -> None:
        name = str(element.tag)
        path = f"{above}/{name if _NAME.fullmatch(name) else '?'}"
        if len(found) < MOST_ELEMENTS:
            found[path] = None
            for child in element:
                walk(child, path)

    walk(root, "")
    return list(found)


def _words(root: Element) -> dict[str, list[str]]:
    """The vendor's codes and states in a reply."""
    found: dict[str, list[str]] = {}
    for name in sorted(_VENDORS_WORDS):
        texts = {(element.text or "").strip() for element in root.iter(name)}
        if words := sorted(text for text in texts if _WORD.fullmatch(text)):
            found[name] = words
    return found
