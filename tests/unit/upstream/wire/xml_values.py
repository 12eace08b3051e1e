"""Contents of XML documents, by another parser than the one under test."""

from xml.etree import ElementTree as ET


def leaves(body: bytes) -> dict[str, str]:
    """Path of each element without children (below the root), and its text. Paths must not repeat."""
    found: dict[str, str] = {}
    _collect(ET.fromstring(body), "", found)  # noqa: S314 - our own documents
    return found


def _collect(parent: ET.Element, path: str, found: dict[str, str]) -> None:
    for child in parent:
        name = f"{path}{child.tag}"
        assert name not in found, name
        if len(child):
            _collect(child, f"{name}/", found)
        else:
            found[name] = child.text or ""
