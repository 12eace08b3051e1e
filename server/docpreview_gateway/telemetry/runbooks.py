"""The runbooks that are shipped with the gateway: Markdown files, made HTML when they are asked for.

A wheel has the files of `docs/runbooks` as data of the package; in a checkout they are read where they are.
"""

from __future__ import annotations

import re
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

    from markdown_it import MarkdownIt
    from markdown_it.token import Token

INDEX = "README.md"

_COMMENTS = re.compile(r"^ *<!--.*?-->\n", re.MULTILINE | re.DOTALL)
"""Marks for the tests of documents, which are not to be seen."""


def _shipped() -> Traversable:
    in_wheel = files("docpreview_gateway").joinpath("runbooks")
    return in_wheel if in_wheel.is_dir() else Path(__file__).parents[3] / "docs" / "runbooks"


class Runbooks:
    """The Markdown files of a folder; by default the runbooks of this version."""

    def __init__(self, folder: Traversable | None = None) -> None:
        self._folder = _shipped() if folder is None else folder

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of the files, such as `breaker-open.md`; none where they were not installed."""
        if not self._folder.is_dir():
            return frozenset()
        return frozenset(file.name for file in self._folder.iterdir() if file.name.endswith(".md"))

    def html(self, name: str) -> tuple[str, Markup] | None:
        """Title and HTML of a file; None when there is none of this name."""
        if name not in self.names:
            return None
        text = _COMMENTS.sub("", self._folder.joinpath(name).read_text(encoding="utf-8"))
        tokens = self._markdown.parse(text)
        for token in tokens:
            token.children = None if token.children is None else [*self._without_dead_links(token.children)]
        html = self._markdown.renderer.render(tokens, self._markdown.options, {})
        # Of the project itself, and the library escapes all HTML in it.
        return text.partition("\n")[0].lstrip("# "), Markup(html)  # noqa: S704

    @cached_property
    def _markdown(self) -> MarkdownIt:
        # Imported with the first request for a runbook.
        from markdown_it import MarkdownIt  # noqa: PLC0415

        return MarkdownIt("commonmark", {"html": False}).enable("table")

    def _without_dead_links(self, tokens: list[Token]) -> Iterator[Token]:
        """The tokens; a link to a document that is not shipped becomes the name of its file."""
        dead = ""
        for token in tokens:
            target = str(token.attrGet("href") or "") if token.type == "link_open" else ""
            if target and "://" not in target and target.partition("#")[0] not in self.names:
                dead = target.replace("../", "docs/")
                token.tag, token.attrs = "span", {}
            elif token.type == "link_close" and dead:
                token.tag = "span"
                yield token
                yield _text(token, f" ({dead})")
                dead = ""
                continue
            yield token


def _text(like: Token, content: str) -> Token:
    return type(like)("text", "", 0, content=content)
