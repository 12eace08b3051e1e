"""XML writer, and a hardened XML reader for untrusted replies.

The reader rejects document types (and so entities), encodings other than UTF-8, deep nesting and too many elements. It
fetches and expands nothing. Every failure is an `UpstreamError` with the reason UPSTREAM_BAD_RESPONSE. The
namespace of the root is dropped: the cloud sends none, but its SDKs read replies with one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias, TypeVar, Union

from lxml import etree

from docpreview_gateway.model.errors import ReplyTooLarge, bad_response
from docpreview_gateway.upstream.wire.http import MAX_REPLY_BYTES

MAX_DEPTH = 32
MAX_ELEMENTS = 200_000

_Value = TypeVar("_Value")

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
    if b"xmlns" in body:
        _drop_namespace(element)
    if root is not None and element.tag != root:
        raise bad_response(f"reply is not a <{root}>")
    return element


def _drop_namespace(root: etree._Element) -> None:
    """Drop the root's namespace. Elements of other namespaces keep theirs, so that nothing reads them."""
    prefix = root.tag[: root.tag.rfind("}") + 1]
    for element in root.iter(f"{prefix}*") if prefix else ():
        element.tag = element.tag.removeprefix(prefix)


def texts(element: etree._Element) -> Mapping[str, str]:
    """Stripped texts by name of the children that have a text.

    Reading a name that has several texts is UPSTREAM_BAD_RESPONSE: which one is meant is unknown.
    """
    return _by_name([(child.tag, content) for child in element if (content := (child.text or "").strip())])


def children(element: etree._Element) -> Mapping[str, etree._Element]:
    """Children by name. Reading a name that several have is UPSTREAM_BAD_RESPONSE."""
    return _by_name([(child.tag, child) for child in element])


def _by_name(found: list[tuple[str, _Value]]) -> Mapping[str, _Value]:
    by_name = dict(found)
    if len(by_name) == len(found):
        return by_name
    counts = Counter(name for name, _ in found)
    return _WithRepeated(by_name, frozenset(name for name, count in counts.items() if count > 1))


class _WithRepeated(Mapping[str, _Value]):
    """Values by name, of which those of `repeated` names cannot be read."""

    def __init__(self, by_name: dict[str, _Value], repeated: frozenset[str]) -> None:
        self._by_name = by_name
        self._repeated = repeated

    def __getitem__(self, name: str) -> _Value:
        if name in self._repeated:
            raise bad_response(f"reply repeats the element {name}")
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)
