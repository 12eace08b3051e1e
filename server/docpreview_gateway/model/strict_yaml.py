"""YAML without duplicate keys, of which all but the last would be lost silently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Hashable


class DuplicateKeyError(yaml.constructor.ConstructorError):
    """A map has a key twice."""


def parse(text: bytes | str) -> Any:  # noqa: ANN401 - any document
    """The values of a YAML document. `yaml.YAMLError`, or UnicodeDecodeError, when it cannot be used."""
    return yaml.load(text, _StrictLoader)  # noqa: S506 - a SafeLoader


class _StrictLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - the library's signature
        keys: set[Hashable] = set()
        for key_node, _ in node.value:
            # Keys that are lists or maps are left to the library, which rejects them.
            key = self.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in keys:
                raise DuplicateKeyError(None, None, f"duplicate key {key}", key_node.start_mark)
            keys.add(key)
        return super().construct_mapping(node, deep)
