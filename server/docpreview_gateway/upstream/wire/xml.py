"""XML writer, and a hardened XML reader for untrusted replies.

The reader rejects document types (and so entities), encodings other than UTF-8, deep nesting and too many elements. It
fetches and expands nothing. Every failure is an `UpstreamError` with the reason UPSTREAM_BAD_RESPONSE.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias, Union

from lxml import etree

from docpreview_gateway.model.errors import ReplyTooLarge, bad_response
from docpreview_gateway.upstream.wire.http import MAX_REPLY_BYTES

MAX_DEPTH = 32
MAX_ELEMENTS = 200_000

Tree: TypeAlias = Iterable[tuple[str, Union[str, "Tree"]]]
"""Elements in order: name, and text or children."""

_PARSER = etree.XMLParser(
    encoding="utf-8",  # overrides the declaration: no other encoding can hide a document type
    resolve_entities=False,
    no_network=True,
    load_dtd=False,
    huge_tree=False,
    remove_comments=True,
    remove_pis=True,
)
_too_deep = etree.XPath("boolean(" + "/*" * (MAX_DEPTH + 1) + ")")


def write(root: str, children: Tree) -> bytes:
    """A document in UTF-8. ValueError when a text has a character that XML 1.0 forbids."""
    element = etree.Element(root)
    _append(element, children)
    return etree.tostring(element, xml_declaration=True, encoding="utf-8")


def _append(parent: etree._Element, children: Tree) -> None:
    for name, content in children:
        child = etree.SubElement(parent, name)
        if isinstance(content, str):
            child.text = content
        else:
            _append(child, content)


def read(body: bytes, root: str | None = None) -> etree._Element:
    """The root element of a document, which must have the name `root` when one is given.

    ReplyTooLarge when it has more than MAX_REPLY_BYTES or MAX_ELEMENTS.
    """
    if len(body) > MAX_REPLY_BYTES:
        raise ReplyTooLarge
    if b"<!DOCTYPE" in body:
        raise bad_response("reply with a document type")
    tags = body.count(b"<")
    if tags > 2 * MAX_ELEMENTS or tags - body.count(b"</") > MAX_ELEMENTS:
        raise ReplyTooLarge
    try:
        element = etree.fromstring(body, _PARSER)
    except (etree.XMLSyntaxError, ValueError):
        # The parser's own message can quote the reply, which may contain a document's password.
        raise bad_response("reply is not well-formed XML") from None
    if _too_deep(element):
        raise bad_response(f"reply nested deeper than {MAX_DEPTH} elements")
    if root is not None and element.tag != root:
        raise bad_response(f"reply is not a <{root}>")
    return element


def text(element: etree._Element | None, path: str) -> str:
    """The text at `path` below `element`, stripped; empty when there is none."""
    found = None if element is None else element.findtext(path)
    return found.strip() if found else ""


def texts(element: etree._Element | None) -> dict[str, str]:
    """Stripped texts by name of the children that have a text; of children with the same name, the last one's."""
    if element is None:
        return {}
    return {child.tag: content for child in element if (content := (child.text or "").strip())}
