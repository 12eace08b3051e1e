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
    from docpreview_gateway.upstream.wire.http import HttpReply
    from docpreview_gateway.upstream.wire.xml import Node

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
        name, root = xml_codec.read_any(reply.body)
    except UpstreamError:
        return facts | {"xml": False}
    if not facts["from_ci"]:
        return facts | {"xml": True}  # of a stranger's reply even the names of elements may be anything
    return facts | {"xml": True, "elements": _elements(name, root), "words": _words(root)}


def creation_offset(reply: HttpReply) -> str | None:
    """The offset to UTC in the first `CreationTime` of a reply, such as +0800; None: it has none."""
    try:
        _, root = xml_codec.read_any(reply.body)
    except UpstreamError:
        return None
    times = (node.get("", "").strip() for name, node in xml_codec.below(root) if name == "CreationTime")
    found = re.search(r"(Z|[+-][0-9]{2}:?[0-9]{2})$", next(times, ""))
    return found[0] if found else None


def _elements(name: str, root: Node) -> list[str]:
    """The paths of the elements, each once."""
    found: dict[str, None] = {}

    def walk(name: str, node: Node, above: str) -> None:
        path = f"{above}/{name if _NAME.fullmatch(name) else '?'}"
        if len(found) < MOST_ELEMENTS:
            found[path] = None
            for below, child in xml_codec.children(node):
                walk(below, child, path)

    walk(name, root, "")
    return list(found)


def _words(root: Node) -> dict[str, list[str]]:
    """The vendor's codes and states in a reply."""
    found: dict[str, set[str]] = {}
    for name, node in xml_codec.below(root):
        word = node.get("", "").strip()
        if name in _VENDORS_WORDS and _WORD.fullmatch(word):
            found.setdefault(name, set()).add(word)
    return {name: sorted(words) for name, words in sorted(found.items())}
