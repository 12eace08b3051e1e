"""YAML without duplicate keys, of which all but the last would be lost silently, and without deep nesting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Hashable


MAX_DEPTH = 50
"""Most lists and maps within each other: the library reads them by recursion."""


class DuplicateKeyError(yaml.constructor.ConstructorError):
    """A map has a key twice."""


def parse(text: bytes | str) -> Any:  # noqa: ANN401 - any document
    """The values of a YAML document. `yaml.YAMLError`, or UnicodeDecodeError, when it cannot be used."""
    return yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader


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
