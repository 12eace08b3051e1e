"""YAML without duplicate keys, of which all but the last would be lost silently, and without deep nesting.

Each mistake is a `yaml.YAMLError` with its place.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Hashable


MAX_DEPTH = 50
"""Most lists and maps within each other: the library reads them by recursion."""

_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
"""Quotes in messages of the parser: of the document, and of tokens such as ',' and '<block end>'."""
_TOKEN = re.compile(r"..?.?|.<.*")


class DuplicateKeyError(yaml.constructor.ConstructorError):
    """A map has a key twice."""


class UnusableValueError(yaml.constructor.ConstructorError):
    """A value is of no use to anybody: a number that is too long, a date that is none, or a text with a NUL."""


def parse(text: bytes | str) -> Any:  # noqa: ANN401 - any document
    """The values of a YAML document. `yaml.YAMLError` when it cannot be used."""
    decoded = _decoded(text) if isinstance(text, bytes) else text
    try:
        return yaml.load(decoded, _StrictLoader)  # noqa: S506 - a SafeLoader
    except yaml.reader.ReaderError as error:
        problem = f"a control character (U+{error.character:04X}); take it out, or write it as an escape in quotes"
        raise yaml.MarkedYAMLError(None, None, problem, _mark(decoded[: error.position])) from None


def _decoded(text: bytes) -> str:
    encoding = "utf-16" if text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    try:
        return text.decode(encoding)
    except UnicodeDecodeError as error:
        before = text[: error.start].decode(encoding, "replace")
        problem = f"a byte that is no {encoding.upper()}; save the file as UTF-8"
        raise yaml.MarkedYAMLError(None, None, problem, _mark(before)) from None


def _mark(before: str) -> yaml.Mark:
    """The place behind a text."""
    line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
    return yaml.Mark("", len(before), line, column, None, 0)


def mistake(error: Exception) -> str | None:
    """Place and words of a parser's error, without a quote of the document: it may hold keys. None: it has no place."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return None
    where = f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
    problem = error.problem or ""
    if r"'\t'" in problem:
        return f"{where}: a tab: YAML wants spaces"
    if type(error) in {DuplicateKeyError, UnusableValueError, yaml.MarkedYAMLError}:
        return f"{where}: {problem}"
    return f"{where}: not YAML: {_QUOTED.sub(_without_content, problem)}"


def _without_content(quote: re.Match[str]) -> str:
    return quote[0] if _TOKEN.fullmatch(quote[0]) else "..."


class _StrictLoader(yaml.SafeLoader):
    def __init__(self, stream: bytes | str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self._depth == MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # not in the stubs
            raise yaml.composer.ComposerError(None, None, f"more than {MAX_DEPTH} lists and maps in each other", mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002 - the library's signature
        try:
            found = super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            problem = "a number, date or other value that cannot be read; a text stands in quotes"
            raise UnusableValueError(None, None, problem, node.start_mark) from None
        # No file can have such a name, and no header such a value.
        if isinstance(found, str) and "\0" in found:
            raise UnusableValueError(None, None, "a text with a NUL character", node.start_mark)
        return found

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - the library's signature
        keys: set[Hashable] = set()
        for key_node, _ in node.value:
            # Keys that are lists or maps are left to the library, which rejects them.
            key = self.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in keys:
                raise DuplicateKeyError(None, None, f"duplicate key {key}", key_node.start_mark)
            keys.add(key)
        return super().construct_mapping(node, deep)
