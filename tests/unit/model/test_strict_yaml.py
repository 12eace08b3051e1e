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


@pytest.mark.parametrize("text", [nested(strict_yaml.MAX_DEPTH), "[" * 20_000, "{a: " * 20_000, "- " * 20_000])
def test_deep_nesting_is_a_mistake_with_its_place(text: str) -> None:
    """And no RecursionError."""
    with pytest.raises(yaml.MarkedYAMLError, match="more than 50 lists and maps in each other") as caught:
        strict_yaml.parse(text)
    assert caught.value.problem_mark is not None
