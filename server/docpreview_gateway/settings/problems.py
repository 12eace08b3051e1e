"""Mistakes that validation has found, as lines for operators: each with its path, and none with a value."""

from __future__ import annotations

import re
from difflib import get_close_matches
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from docpreview_gateway.settings.samples import flow, sample, sample_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import ValidationError
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

_WORDS = {
    "missing": "is missing; write",
    "model_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "string_type": "must be text in quotes",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "too_short": "must not be empty",
    "invalid_key": "is no name of a setting; a name is a text",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "has a character that it may not have",
    "path_type": "must be the path of a file or folder",
    "url_parsing": "must be an address with its scheme, a host and, if any, a port up to 65535",
    "url_scheme": "must be an address that begins with http:// or https://",
    "url_type": "must be an address with its scheme",
}
"""The words of YAML for kinds of errors that the library tells in those of Python."""

_FORMS = {
    "callers": "may have small letters, digits, dots, hyphens and _ only, such as shop",
    "presets": "may have letters, digits, dots, hyphens and _ only, such as slides",
    "dns": "must be a host name in small letters",
    "jwks_url": "must be an https address, or an http address of this machine",
    "object_url_base": "must be an http or https address without a query",
    "spiffe": "must be the SPIFFE ID of a client certificate",
    "types": "must be a media type in small letters",
}
"""The words for texts that do not fit their pattern, by the setting's name."""

_NUMBERS = re.compile("(int|float|greater|less|finite|multiple)_")


def problems(error: ValidationError, model: type[BaseModel], *, unknown: str) -> list[str]:
    """A line for each mistake; `unknown` is the message for keys that do not exist in `model`.

    A list that is too short only because its items are wrong is no mistake of its own. Of the kinds that a setting may
    have, only that is meant which fits best.
    """
    found = [(_path(each, model), each) for each in error.errors(include_input=False, include_url=False)]
    inner = {path[:length] for path, _ in found for length in range(len(path))}
    sections = {path for path, each in found if each["type"] == "model_type"}
    lines = [
        f"{where}: {line}" if (where := ".".join(map(str, path))) else line
        for path, each in found
        if path not in inner or each["type"] not in {"too_short", "literal_error"}
        if path not in sections or each["type"] == "model_type"
        for line in _message(path, each, model, unknown).splitlines()
    ]
    return list(dict.fromkeys(lines))


def exists(kind: Any, path: Sequence[int | str]) -> bool:  # noqa: ANN401 - annotations of any kind
    """Whether a model, or another annotation, has a value at a path of keys."""
    return next(at_path(kind, path), None) is not None


def example(model: type[BaseModel], path: Sequence[str]) -> object | None:
    """A value to write for the setting at a path; None: there is none to show."""
    if (field := _field(model, path)) is not None:
        return sample(path[-1], field)
    return next(filter(None, map(sample_of, at_path(model, path))), None)


def leaves(model: type[BaseModel]) -> Iterator[str]:
    """The paths of all settings of a model, as `upstream.endpoint`; sections and what they hold."""
    for name, field in model.model_fields.items():
        yield name
        for section in at_path(field.annotation, ()):
            if issubclass(section, BaseModel):
                yield from (f"{name}.{path}" for path in leaves(section))


def _path(found: ErrorDetails, model: type[BaseModel]) -> tuple[int | str, ...]:
    """The keys of a mistake, without what the library puts between them: `[key]`, and names of classes."""
    keys = [part for part in found["loc"] if part != "[key]"]
    path: list[int | str] = []
    for number, part in enumerate(keys, 1):
        is_unknown_key = number == len(keys) and found["type"] == "extra_forbidden"
        path += [part] if is_unknown_key or exists(model, [*path, part]) else []
    return tuple(path)


def _message(path: tuple[int | str, ...], found: ErrorDetails, model: type[BaseModel], unknown: str) -> str:
    kind = found["type"]
    if kind == "extra_forbidden":
        *owner, key = path
        known = [name for each in at_path(model, owner) if issubclass(each, BaseModel) for name in each.model_fields]
        nearest = get_close_matches(str(key), known, n=1)
        return f"{unknown}; did you mean `{nearest[0]}`?" if nearest else unknown
    if found["loc"][-1:] == ("[key]",):
        return f"the name {_text(path[:-1], found, None)}"
    field = _field(model, path)
    text = _text(path, found, field)
    if (kind not in _WORDS and not _NUMBERS.match(kind)) or (shown := _shown(path, field, kind)) is None:
        return text.removesuffix("; write")
    return f"{text}{' ' if kind == 'missing' else ', such as '}{shown}{_or_word(field, kind)}"


def _text(path: Sequence[int | str], found: ErrorDetails, field: FieldInfo | None) -> str:
    """What is wrong, without a sample."""
    if _NUMBERS.match(found["type"]):
        return _number(field)
    if found["type"] == "string_pattern_mismatch":
        return _FORMS.get(_name(path), _WORDS[found["type"]])
    text = found["msg"].removeprefix("Value error, ").replace("Input should be", "must be", 1)
    return _WORDS.get(found["type"], text)


def _name(path: Sequence[int | str]) -> str:
    """The last key that is no place in a list."""
    return next((part for part in reversed(path) if isinstance(part, str)), "")


def _shown(path: tuple[int | str, ...], field: FieldInfo | None, kind: str) -> str | None:
    """A sample of the value at a path, with its key if that is missing."""
    if field is None or kind.startswith("bool_") or kind == "invalid_key":
        return None
    name = _name(path)
    found = sample(name, field)
    if isinstance(path[-1], int):
        found = found[0] if isinstance(found, list) and found else None
    if found is None:
        return None
    if kind == "missing":
        return f"`{flow({name: found})[1:-1]}`"
    return f'"{found}"' if kind == "string_type" else flow(found)


def _or_word(field: FieldInfo | None, kind: str) -> str:
    """The word that may stand in place of a section."""
    words = [
        part for each in get_args(field and field.annotation) if get_origin(each) is Literal for part in get_args(each)
    ]
    return f", or {words[0]}" if words and kind == "model_type" else ""


def _number(field: FieldInfo | None) -> str:
    """The kind of a number, and its range as far as the setting has one."""
    bounds: dict[str, object] = {}
    for each in field.metadata if field else ():
        bounds |= {name: found for name in ("ge", "gt", "le") if (found := getattr(each, name, None)) is not None}
    is_whole = field is not None and not any(part is float for part in (field.annotation, *get_args(field.annotation)))
    low = f" from {bounds['ge']}" if "ge" in bounds else f" above {bounds['gt']}" if "gt" in bounds else ""
    high = f"{' to' if 'ge' in bounds else ', at most'} {bounds['le']}" if "le" in bounds else ""
    return f"must be a {'whole ' * is_whole}number{low}{high}"


def _field(model: type[BaseModel], path: Sequence[int | str]) -> FieldInfo | None:
    """The field of the last key in a path that is one of a section."""
    for length in range(len(path), 0, -1):
        for owner in at_path(model, path[: length - 1]):
            if issubclass(owner, BaseModel) and (found := owner.model_fields.get(str(path[length - 1]))) is not None:
                return found if not any(isinstance(part, str) for part in path[length:]) else None
    return None


def at_path(kind: Any, path: Sequence[int | str]) -> Iterator[type]:  # noqa: ANN401 - as above
    """The types of what an annotation has at a path of keys and, in lists, of numbers: `tuple` for one of texts."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in {Union, UnionType, Annotated}:
        for part in parts[:1] if origin is Annotated else parts:
            yield from at_path(part, path)
    elif not path:
        yield next((each for each in (kind, origin) if isinstance(each, type)), object)
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(path[0]))
        yield from () if field is None else at_path(field.annotation, path[1:])
    elif origin is dict:
        yield from at_path(parts[1], path[1:])
    elif origin is tuple and isinstance(path[0], int):
        yield from at_path(parts[0], path[1:])
