"""The code blocks of the documents, and the marks that say how a block is run.

A block without a mark is run by the tests of this folder. A mark is an HTML comment directly before its block, which
readers do not see:

    <!-- run by tests/installs/test_go.py::test_the_program_of_the_readme_makes_pages_with_the_checkout -->
    <!-- run by make demo -->
    <!-- not run: pushes images to a registry of the reader's -->

The first names a test, which gets the block from `run_by`; a comma separates several. The second names a target that CI
calls. The third gives the reason, such as a cluster or an account of the cloud.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

from tests.packaging.project import ROOT, tracked_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from markdown_it.token import Token

_COMMENT = re.compile(r"<!--\s*(run by|not run)\b:?\s*(.*?)\s*-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A code block of a document."""

    document: str
    """Path below the repository."""
    line: int
    """Line of its fence, from 1."""
    language: str
    """Its info string: empty if the fence has none, `indented` without a fence."""
    text: str
    run_by: tuple[str, ...] = ()
    """Tests, as pytest names them, and targets (`make demo`) of its mark."""
    not_run: str | None = None
    """The reason that its mark gives."""

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def marked(self) -> bool:
        return bool(self.run_by) or self.not_run is not None


_NOTES = "helm/docpreview-gateway/templates/NOTES.txt"
NOTES = Block(
    _NOTES,
    1,
    "template",
    (ROOT / _NOTES).read_text(encoding="utf-8"),
    ("tests/documents/test_notes.py::test_every_command_of_the_notes_works_for_the_release_that_they_are_of",),
)
"""What `helm install` says at its end, which has commands."""


def documents() -> list[Path]:
    """Every document of the repository, without the list of changes."""
    return [path for path in tracked_files() if path.suffix == ".md" and path.name != "CHANGELOG.md"]


def parse(document: str, text: str) -> list[Block]:
    """The blocks of a document, in their order, by the rules of CommonMark."""
    return list(_blocks(document, MarkdownIt("commonmark").parse(text)))


@cache
def blocks() -> tuple[Block, ...]:
    """The blocks of all documents."""
    found = [parse(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")) for path in documents()]
    return (*itertools.chain(*found), NOTES)


def run_by(test: str) -> list[Block]:
    """The blocks whose marks name a test: `tests/installs/test_go.py::test_the_module_has_its_license`."""
    found = [block for block in blocks() if test in block.run_by]
    assert found, f"no document has a block that is run by {test}"
    return found


def _blocks(document: str, tokens: list[Token]) -> Iterator[Block]:
    before: Token | None = None
    for token in tokens:
        if token.type in {"fence", "code_block"}:
            assert token.map is not None
            mark = _COMMENT.fullmatch(before.content.strip()) if before and before.type == "html_block" else None
            yield Block(
                document,
                token.map[0] + 1,
                token.info.strip() if token.type == "fence" else "indented",
                token.content,
                tuple(re.split(r",\s*", mark[2])) if mark and mark[1] == "run by" else (),
                mark[2] if mark and mark[1] == "not run" else None,
            )
        before = token
