"""YAML without duplicate keys, of which all but the last would be lost silently, and without deep nesting."""

from __future__ import annotations

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


def parse(text: bytes | str) -> Any:  # noqa: ANN401 - any document
    """The values of a YAML document. `yaml.YAMLError`, or UnicodeDecodeError, when it cannot be used."""
    return yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader


def mistake(error: Exception) -> str | None:
    """Place and words of a parser's error, without a quote of the document: it may hold keys. None: it has no place."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return None
    where = f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
    problem = error.problem or ""
    if r"'\t'" in problem:
        return f"{where}: a tab: YAML wants spaces"
    what = "" if isinstance(error, DuplicateKeyError) else "not YAML: "
    return f"{where}: {what}{_QUOTED.sub(_without_content, problem)}"


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

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - the library's signature
        keys: set[Hashable] = set()
        for key_node, _ in node.value:
            # Keys that are lists or maps are left to the library, which rejects them.
            key = self.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in keys:
                raise DuplicateKeyError(None, None, f"duplicate key {key}", key_node.start_mark)
            keys.add(key)
        return super().construct_mapping(node, deep)
