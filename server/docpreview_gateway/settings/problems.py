"""Mistakes that validation has found, as lines for operators: each with its path, and none with a value."""

from __future__ import annotations

from difflib import get_close_matches
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_MAPPING = "must be a mapping, such as {key: value}"
_LIST = "must be a list, such as [one, two]"
_WORDS = {
    "missing": "is missing",
    "model_type": _MAPPING,
    "dict_type": _MAPPING,
    "tuple_type": _LIST,
    "list_type": _LIST,
    "string_type": "must be text; put it in quotes",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "too_short": "must not be empty",
}
"""The words of YAML for kinds of errors that the library tells in those of Python."""


def problems(error: ValidationError, model: type[BaseModel], *, unknown: str) -> list[str]:
    """A line for each mistake; `unknown` is the message for keys that do not exist in `model`.

    A list that is too short only because its items are wrong is no mistake of its own.
    """
    found = error.errors(include_input=False, include_url=False)
    inner = {each["loc"][:length] for each in found for length in range(len(each["loc"]))}
    return [
        f"{where}: {line}" if (where := ".".join(map(str, each["loc"]))) else line
        for each in found
        if each["type"] != "too_short" or each["loc"] not in inner
        for line in _message(each, model, unknown).splitlines()
    ]


def exists(kind: Any, path: Sequence[int | str]) -> bool:  # noqa: ANN401 - annotations of any kind
    """Whether a model, or another annotation, has a value at a path of keys."""
    return next(_at(kind, path), None) is not None


def leaves(model: type[BaseModel]) -> Iterator[str]:
    """The paths of all settings of a model, as `upstream.endpoint`; sections and what they hold."""
    for name, field in model.model_fields.items():
        yield name
        for section in _at(field.annotation, ()):
            if issubclass(section, BaseModel):
                yield from (f"{name}.{path}" for path in leaves(section))


def _message(found: ErrorDetails, model: type[BaseModel], unknown: str) -> str:
    if found["type"] == "extra_forbidden":
        *owner, key = found["loc"]
        known = [name for each in _at(model, owner) if issubclass(each, BaseModel) for name in each.model_fields]
        nearest = get_close_matches(str(key), known, n=1)
        return f"{unknown}; did you mean `{nearest[0]}`?" if nearest else unknown
    text = found["msg"].removeprefix("Value error, ")
    return _WORDS.get(found["type"]) or text.replace("Input should be", "must be", 1)


def _at(kind: Any, path: Sequence[int | str]) -> Iterator[type]:  # noqa: ANN401 - as above
    """The types of what an annotation has at a path of keys and, in lists, of numbers."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in {Union, UnionType, Annotated}:
        for part in parts:
            yield from _at(part, path)
    elif not path:
        yield kind if isinstance(kind, type) else object
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(path[0]))
        yield from () if field is None else _at(field.annotation, path[1:])
    elif origin is dict:
        yield from _at(parts[1], path[1:])
    elif origin is tuple and isinstance(path[0], int):
        yield from _at(parts[0], path[1:])
