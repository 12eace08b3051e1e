"""Links between the project's own documents, and from them to its files; and the Python in them."""

from __future__ import annotations

import ast
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.packaging.project import ROOT

if TYPE_CHECKING:
    from pathlib import Path

_CODE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ +(.+?) *#*$", re.MULTILINE)


def documents() -> list[str]:
    """Every document that is part of the project, and so none of a dependency's."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S607
    return listed.stdout.split()


def anchors(document: Path) -> set[str]:
    """What the headings are called in addresses, as hosts of git repositories do it."""
    found: set[str] = set()
    for heading in _HEADING.findall(_CODE.sub("", document.read_text())):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(name if name not in found else f"{name}-1")
    return found


@pytest.mark.parametrize("name", documents())
def test_links_of_a_document(name: str) -> None:
    """They lead to files and headings that are there."""
    document = ROOT / name
    broken = []
    for link in _LINK.findall(_CODE.sub("", document.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path) if path else document
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("name", documents())
def test_python_in_a_document(name: str) -> None:
    """It can be compiled."""
    for example in _PYTHON.findall((ROOT / name).read_text()):
        compile(example, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
