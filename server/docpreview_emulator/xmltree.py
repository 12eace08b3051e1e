"""Parser of a request's XML into a small tree; document types and entities are refused."""

from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers.expat import ExpatError, ParserCreate

from docpreview_emulator.errors import CloudError

MAX_DEPTH = 32


@dataclass(slots=True)
class Element:
    """One element: its local name, the text directly in it, and its children in order."""

    name: str
    text: str = ""
    children: "list[Element]" = field(default_factory=list)

    def find(self, path: str) -> "Element | None":
        """The first descendant at a path such as `Operation/Output`."""
        element: Element | None = self
        for name in path.split("/"):
            if element is None:
                return None
            element = next((child for child in element.children if child.name == name), None)
        return element

    def value(self, path: str) -> str:
        """The text at a path; empty for absent and empty elements."""
        element = self.find(path)
        return "" if element is None else element.text.strip()


def read_xml(body: bytes) -> Element:
    """The document's root.

    Raises:
        CloudError: 400 MalformedXML, also for a document type declaration and for more than `MAX_DEPTH` levels.
    """
    builder = _Builder()
    parser = ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    parser.StartDoctypeDeclHandler = builder.doctype
    try:
        parser.Parse(body, True)  # noqa: FBT003 - expat's own signature
    except ExpatError as error:
        raise _malformed(f"The XML you provided was not well-formed: {error}") from None
    return builder.root.children[0]


class _Builder:
    def __init__(self) -> None:
        self.root = Element("")
        self._open = [self.root]

    def start(self, name: str, _attributes: object) -> None:
        if len(self._open) > MAX_DEPTH:
            raise _malformed(f"The XML you provided has more than {MAX_DEPTH} levels.")
        element = Element(name)
        self._open[-1].children.append(element)
        self._open.append(element)

    def end(self, _name: str) -> None:
        self._open.pop()

    def text(self, text: str) -> None:
        self._open[-1].text += text

    def doctype(self, *_declaration: object) -> NoReturn:
        raise _malformed("The XML you provided has a document type declaration.")


def _malformed(message: str) -> CloudError:
    return CloudError(400, "MalformedXML", message)
