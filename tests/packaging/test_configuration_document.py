"""docs/configuration.md: its example can be taken as it is, and has every key of the table of what users set."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from docpreview_gateway.settings.loading import load
from tests.packaging.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOCUMENT = (ROOT / "docs" / "configuration.md").read_text()
_KEY = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)


def section(heading: str) -> str:
    """What stands below a heading, up to the next one."""
    return re.split(r"^## ", DOCUMENT.partition(f"## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def example() -> str:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", section("What you will set"), re.MULTILINE | re.DOTALL)
    return str(text)


def keys(heading: str) -> list[str]:
    return _KEY.findall(section(heading))


def found(node: Any, path: list[str]) -> Iterator[Any]:
    """The values at a path of the table's form, such as `buckets[].name` and `credentials.<name>.file`."""
    if not path:
        yield node
        return
    name, rest = path[0], path[1:]
    children = list(node.values()) if name == "<name>" else [node[name.removesuffix("[]")]] if _has(node, name) else []
    for child in children:
        for item in child if name.endswith("[]") else [child]:
            yield from found(item, rest)


def _has(node: Any, name: str) -> bool:
    return isinstance(node, dict) and name.removesuffix("[]") in node


def test_example_is_loaded_as_it_is(tmp_path: Path) -> None:
    """The text of the document, in a file, is a configuration without a mistake."""
    path = tmp_path / "gateway.yaml"
    path.write_text(example())
    settings = load(path)
    assert [bucket.name for bucket in settings.buckets] == ["documents-1250000000", "archive-1250000000"]


@pytest.mark.parametrize("key", keys("What you will set"))
def test_example_has_every_key_of_its_table(key: str) -> None:
    """A reader sees each of them in its place."""
    assert list(found(yaml.safe_load(example()), key.split("."))) != []


@pytest.mark.parametrize("key", keys("Tuning"))
def test_example_has_no_key_of_the_table_of_tuning(key: str) -> None:
    """Nobody copies a number that has a good default."""
    assert list(found(yaml.safe_load(example()), key.split("."))) == []


def test_every_key_is_in_one_of_the_two_tables() -> None:
    """Both have rows, and no key is in both."""
    mine, tuning = keys("What you will set"), keys("Tuning")
    assert mine
    assert tuning
    assert len({*mine, *tuning}) == len(mine) + len(tuning)


def test_delay_of_the_example_loses_no_call(tmp_path: Path) -> None:
    """It follows the rule that the document gives, from the age of connections."""
    path = tmp_path / "gateway.yaml"
    path.write_text(example())
    settings = load(path)
    assert settings.drain.delay_seconds == round(1.1 * settings.limits.connection_age_seconds + 5)
