"""What YAML may hold."""

from __future__ import annotations

import pytest
import yaml

from docpreview_gateway.model import strict_yaml


def nested(depth: int) -> str:
    """Lists and maps in each other, with a number within them."""
    return "[{a: " * (depth // 2) + "1" + "}]" * (depth // 2)


def test_lists_and_maps_may_be_in_each_other() -> None:
    """To a depth that no file needs."""
    assert strict_yaml.parse(nested(4)) == [{"a": [{"a": 1}]}]
    assert strict_yaml.parse(nested(strict_yaml.MAX_DEPTH - 2))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"a: 1\n# caf\xe9\n", "line 2, column 6: a byte that is no UTF-8; save the file as UTF-8"),
        (b"\xff\xfea\x00\n\x00\x00\xd8", "line 2, column 1: a byte that is no UTF-16; save the file as UTF-8"),
        (b"a: 1\nb: \0\n", "line 2, column 4: a control character (U+0000); take it out, or write it as an escape"),
        ("a: 1\nb: \x1b\n", "line 2, column 4: a control character (U+001B)"),
        (b'a: "x\\0y"\n', "line 1, column 4: a text with a NUL character"),
        (b"a: [1, " + b"9" * 5000 + b"]\n", "line 1, column 8: a number, date or other value that cannot be read"),
        (b"a: 2026-13-45\n", "line 1, column 4: a number, date or other value that cannot be read"),
        (b"a: !!timestamp x\n", "line 1, column 4: a number, date or other value that cannot be read"),
        (b"a: !!bool x\n", "line 1, column 4: a number, date or other value that cannot be read"),
        (b"a: !!int ''\n", "line 1, column 4: a number, date or other value that cannot be read"),
    ],
)
def test_what_cannot_be_read_is_a_mistake_with_its_place(text: bytes | str, said: str) -> None:
    """Each of them was an error of Python's, without a line."""
    with pytest.raises(yaml.YAMLError) as caught:
        strict_yaml.parse(text)
    assert (strict_yaml.mistake(caught.value) or "").startswith(said)


def test_utf_8_and_utf_16_with_a_mark_are_read() -> None:
    """As Windows writes them."""
    assert strict_yaml.parse("a: é\n".encode("utf-8-sig")) == {"a": "é"}
    assert strict_yaml.parse("a: é\n".encode("utf-16")) == {"a": "é"}


@pytest.mark.parametrize("text", [nested(strict_yaml.MAX_DEPTH), "[" * 20_000, "{a: " * 20_000, "- " * 20_000])
def test_deep_nesting_is_a_mistake_with_its_place(text: str) -> None:
    """And no RecursionError."""
    with pytest.raises(yaml.MarkedYAMLError, match="more than 50 lists and maps in each other") as caught:
        strict_yaml.parse(text)
    assert caught.value.problem_mark is not None
