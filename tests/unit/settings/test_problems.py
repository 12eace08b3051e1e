"""What is said of a mistake in any setting: its path, what it must be, and an example, in words of YAML."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from docpreview_gateway.settings.loading import Settings
from docpreview_gateway.settings.policy_file import PolicyPart
from docpreview_gateway.settings.problems import at_path, problems

if TYPE_CHECKING:
    from collections.abc import Iterator

WRONG: tuple[Any, ...] = (5, -1, 1.5, 10**30, float("nan"), "", "A b ?", True, None, [], [5], ["A b"], {}, {"A b": 5})
OF_THE_LIBRARY = re.compile(
    r"Input |should|String|<class|valid |literal\[|pydantic|Path|Settings|Part\b|\[key\]|tuple|dict|None|UTF-8"
)
"""Words of Python and of the library, and names of classes."""


def at(path: list[str | int], value: object) -> object:
    """A file with only this value."""
    for key in reversed(path):
        value = [value] if key == 0 else {key: value}
    return value


def paths(model: type[BaseModel], above: tuple[str | int, ...] = ()) -> Iterator[list[str | int]]:
    """The paths of all settings, in the first item of lists and maps too."""
    for name, field in model.model_fields.items():
        yield [*above, name]
        for item in ((), (0,), ("one",)):
            for section in at_path(field.annotation, item):
                if issubclass(section, BaseModel):
                    yield from paths(section, (*above, name, *item))


def mistakes(model: type[BaseModel]) -> Iterator[str]:
    """What is said of each wrong value of each setting."""
    for path in paths(model):
        for wrong in WRONG:
            try:
                model.model_validate(at(path, wrong))
            except ValidationError as error:
                yield from problems(error, model, unknown="unknown key")


@pytest.mark.parametrize("model", [Settings, PolicyPart])
def test_no_mistake_in_any_setting_is_told_in_the_words_of_the_library(model: type[BaseModel]) -> None:
    """Whatever kind of value stands there in its place."""
    said = set(mistakes(model))
    assert len(said) > 100
    wrong = {line for line in said if OF_THE_LIBRARY.search(line)}
    assert not wrong, "\n".join(sorted(wrong))


def test_an_example_of_a_setting_can_be_copied_into_the_file() -> None:
    """It is YAML, and of a kind that the setting takes."""
    missing = [
        line.partition("`")[2].removesuffix("`") for line in _missing(Settings) + _missing(PolicyPart) if "`" in line
    ]
    assert len(missing) >= 3
    for example in missing:
        ((key, value),) = yaml.safe_load(example).items()
        model = Settings if key in Settings.model_fields else PolicyPart
        said = ""
        try:
            model.model_validate({key: value})
        except ValidationError as error:
            said = "\n".join(line for line in problems(error, model, unknown="") if line.startswith(f"{key}:"))
        assert not said


def _missing(model: type[BaseModel]) -> list[str]:
    try:
        model.model_validate({})
    except ValidationError as error:
        return problems(error, model, unknown="")
    return []
