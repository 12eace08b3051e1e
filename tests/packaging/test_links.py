"""Links and Python code of the project's documents."""

from __future__ import annotations

import ast
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel

from docpreview_gateway.settings.loading import Settings
from tests.packaging.project import ROOT

if TYPE_CHECKING:
    from pathlib import Path

_CODE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ +(.+?) *#*$", re.MULTILINE)


def documents() -> list[str]:
    """Documents of the project, without those of dependencies."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S607
    return listed.stdout.split()


def anchors(document: Path) -> set[str]:
    """Anchors of the headings, as git hosts generate them."""
    found: set[str] = set()
    for heading in _HEADING.findall(_CODE.sub("", document.read_text())):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(name if name not in found else f"{name}-1")
    return found


@pytest.mark.parametrize("name", documents())
def test_every_link_of_a_document_leads_to_an_existing_file_and_heading(name: str) -> None:
    """Links within the repository."""
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
def test_every_python_block_of_a_document_compiles(name: str) -> None:
    """It is not executed."""
    for example in _PYTHON.findall((ROOT / name).read_text()):
        compile(example, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_documents_name_tests_that_exist() -> None:
    """A renamed test leaves no stale name behind. Programs of readers have tests of their own."""
    tests = list((ROOT / "tests").rglob("*.py"))
    known = {path.stem for path in tests} | set(
        re.findall(r"def (test_\w+)", "".join(path.read_text() for path in tests))
    )
    named = {
        (name, test)
        for name in documents()
        if name.startswith("docs/")
        for test in re.findall(r"\btest_\w+", _PYTHON.sub("", (ROOT / name).read_text()))
    }
    assert {(name, test) for name, test in named if test not in known} == set()


def test_documents_name_settings_that_exist() -> None:
    """In code spans, keys of several words: `cache.max_bytes`."""
    sections = {name: field.annotation for name, field in Settings.model_fields.items()}
    known = {
        name: set(kind.model_fields)
        for name, kind in sections.items()
        if isinstance(kind, type) and issubclass(kind, BaseModel)
    }
    named = {
        (name, section, key)
        for name in documents()
        if name != "CHANGELOG.md"
        for section, key in re.findall(r"`(\w+)\.([a-z]+_[a-z_]+)[`:]", (ROOT / name).read_text())
        if section in known
    }
    assert {row for row in named if row[2] not in known[row[1]]} == set()
