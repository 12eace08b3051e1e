"""XML writer, and a hardened XML reader for untrusted replies.

The reader rejects document types (and so entities), encodings other than UTF-8, deep nesting and too many elements. It
fetches and expands nothing. Every failure is an `UpstreamError` with the reason UPSTREAM_BAD_RESPONSE. The
namespace of the root is dropped: the cloud sends none, but its SDKs read replies with one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias, Union

from lxml import etree

from docpreview_gateway.model.errors import ReplyTooLarge, UpstreamError, bad_response
from docpreview_gateway.upstream.wire.http import MAX_REPLY_BYTES

MAX_DEPTH = 32
MAX_ELEMENTS = 200_000

Tree: TypeAlias = Iterable[tuple[str, Union[str, "Tree"]]]
"""Elements in order: name, and text or children."""

Node: TypeAlias = dict[str, Any]
"""The children of an element by name: the text of one without children (None: it is empty), else a `Node`.

A list where several have the name. A text beside children is under the name "".
"""

_PARSER = etree.XMLParser(
    encoding="utf-8",  # overrides the declaration: no other encoding can hide a document type
    resolve_entities=False,
    no_network=True,
    load_dtd=False,
    huge_tree=False,
    remove_comments=True,
    remove_pis=True,
)


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


def read(body: bytes, root: str) -> Node:
    """What is below the root element of a document, which must have the name `root`.

    ReplyTooLarge when it has more than MAX_REPLY_BYTES or MAX_ELEMENTS.
    """
    name, node = read_any(body)
    if name != root:
        raise bad_response(f"reply is not a <{root}>")
    return node


def read_any(body: bytes) -> tuple[str, Node]:
    """The name of the root element of a document, and what is below it. ReplyTooLarge as above."""
    element = _parsed(body)
    return element.tag, _nested(element)


def _parsed(body: bytes) -> etree._Element:
    if len(body) > MAX_REPLY_BYTES:
        raise ReplyTooLarge
    if b"<!DOCTYPE" in body:
        raise bad_response("reply with a document type")
    # Each element has a byte at least, so a short reply needs no count.
    if len(body) > MAX_ELEMENTS and _has_too_many_elements(body):
        raise ReplyTooLarge
    try:
        element = etree.fromstring(body, _PARSER)
    except (etree.XMLSyntaxError, ValueError):
        # The parser's own message can quote the reply, which may contain a document's password.
        raise bad_response("reply is not well-formed XML") from None
    if element.tag[0] == "{":
        _drop_namespace(element)
    return element


def _has_too_many_elements(body: bytes) -> bool:
    tags = body.count(b"<")
    return tags > 2 * MAX_ELEMENTS or tags - body.count(b"</") > MAX_ELEMENTS


def _drop_namespace(root: etree._Element) -> None:
    """Drop the root's namespace. Elements of other namespaces keep theirs, so that nothing reads them."""
    prefix = root.tag[: root.tag.rfind("}") + 1]
    for element in root.iter(f"{prefix}*"):
        element.tag = element.tag.removeprefix(prefix)


def _nested(element: etree._Element, depth: int = 1) -> Node:
    """All that is below an element, in one pass. UPSTREAM_BAD_RESPONSE when it is nested deeper than MAX_DEPTH."""
    if depth >= MAX_DEPTH:
        raise bad_response(f"reply nested deeper than {MAX_DEPTH} elements")
    found: Node = {}
    for child in element:
        name: str = child.tag
        value: Any = child.text
        if len(child):
            value = _nested(child, depth + 1) if value is None or value.isspace() else _mixed(child, value, depth)
        elif value is None and (tail := child.tail) is not None and not tail.isspace():
            # Behind an empty element it counts: an element of empty ones is one that says nothing.
            found[""] = tail
        if name not in found:
            found[name] = value
        elif type(found[name]) is list:
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found


def _mixed(element: etree._Element, beside: str, depth: int) -> Node:
    return {**_nested(element, depth + 1), "": beside}


def text(node: Node, name: str) -> str:
    """The stripped text of the child of this name; empty when it has none.

    UPSTREAM_BAD_RESPONSE when several have a text: which one is meant is unknown.
    """
    value = node.get(name)
    if type(value) is str:
        return value.strip()
    if value is None:
        return ""
    words = [word for each in parts(node, name) if (word := each.get("", "").strip())]
    if len(words) > 1:
        raise _repeated(name)
    return words[0] if words else ""


def part(node: Node, name: str) -> Node | None:
    """The child of this name; None when there is none. UPSTREAM_BAD_RESPONSE when there are several."""
    value = node.get(name)
    if type(value) is dict:
        return value
    found = parts(node, name)
    if len(found) > 1:
        raise _repeated(name)
    return found[0] if found else None


def parts(node: Node, name: str) -> list[Node]:
    """All children of this name, those without children as nodes that have a text only."""
    if name not in node:
        return []
    value = node[name]
    return [
        each if isinstance(each, dict) else {} if each is None else {"": each}
        for each in (value if isinstance(value, list) else [value])
    ]


def children(node: Node) -> Iterator[tuple[str, Node]]:
    """The names and nodes of all children."""
    return ((name, child) for name in node if name for child in parts(node, name))


def below(node: Node) -> Iterator[tuple[str, Node]]:
    """The names and nodes of all elements below one, each before its own children."""
    for name, child in children(node):
        yield name, child
        yield from below(child)


def is_blank(node: Node) -> bool:
    """Whether there is no text in an element, nor in anything below it."""
    return all(
        is_blank(value) if isinstance(value, dict) else not (value or "").strip()
        for each in node.values()
        for value in (each if isinstance(each, list) else [each])
    )


def words(node: Node) -> Iterator[str]:
    """All texts in an element and below it."""
    for each in node.values():
        for value in each if isinstance(each, list) else [each]:
            if isinstance(value, dict):
                yield from words(value)
            elif value:
                yield value


def _repeated(name: str) -> UpstreamError:
    return bad_response(f"reply repeats the element {name}")
