"""Which variables of the environment are settings, and which belong to others."""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from types import NoneType
from typing import TYPE_CHECKING

from pydantic import BaseModel

from docpreview_gateway.settings.problems import at_path, example, exists, leaves

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

PREFIX = "DOCPREVIEW_"
CONFIG_VARIABLE = "DOCPREVIEW_CONFIG"
_CLIENTS_VARIABLES = frozenset({"DOCPREVIEW_TARGET", "DOCPREVIEW_TOKEN", "DOCPREVIEW_BUCKET"})
_EMULATOR_PREFIX = "DOCPREVIEW_EMULATOR_"
_PORT = "PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?"
_OF_SERVICE = re.compile(rf"(?P<service>.+?)_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|{_PORT})")
"""The variables that Kubernetes injects for a Service: `DOCPREVIEW_SERVICE_HOST`, `DOCPREVIEW_PORT_50051_TCP_ADDR`."""


def unknown_variables(names: Collection[str], model: type[BaseModel]) -> Iterator[str]:
    """A line for each variable with the prefix that is neither a setting nor another program's.

    Others are those of the clients, of the emulator, and of Services in Kubernetes, such as one named `docpreview`.
    """
    for name in sorted(names):
        path = _path(name, names)
        if path and not exists(model, path):
            yield f"{name}: unknown setting{_nearest(path, leaves(model))}"


def malformed_variables(variables: Mapping[str, str], model: type[BaseModel]) -> Iterator[str]:
    """A line for each variable of a list or map whose value is not that in JSON, with what to write."""
    for name, text in sorted(variables.items()):
        path = _path(name, variables)
        kinds = set(at_path(model, path)) - {NoneType} if path else set()
        wanted = {_container(kind) for kind in kinds}
        if len(wanted) != 1 or (kind := wanted.pop()) is None:
            continue
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, kind):
            shown = example(model, path)
            such = f", such as {json.dumps(shown)}" if isinstance(shown, kind) else ""
            yield f"{name}: must be a {'list' if kind is list else 'map'} in JSON{such}"


def _container(kind: type) -> type[list[object] | dict[str, object]] | None:
    """What JSON has for a kind of values; None: a text or a number, which a variable has as it is."""
    if issubclass(kind, tuple):
        return list
    return dict if issubclass(kind, dict | BaseModel) else None


def _path(name: str, names: Collection[str]) -> list[str]:
    """The keys that a variable stands for; empty: it is no setting of the gateway's."""
    upper = name.upper()
    if not upper.startswith(PREFIX) or upper == CONFIG_VARIABLE or _is_anothers(upper, names):
        return []
    return upper.removeprefix(PREFIX).lower().split("__")


def _is_anothers(name: str, names: Collection[str]) -> bool:
    if name in _CLIENTS_VARIABLES or name.startswith(_EMULATOR_PREFIX):
        return True
    found = _OF_SERVICE.fullmatch(name)
    # Kubernetes sets both of these for each Service: a lone DOCPREVIEW_PORT is a mistaken setting.
    return found is not None and {f"{found['service']}_SERVICE_{end}" for end in ("HOST", "PORT")} <= set(names)


def _nearest(path: list[str], known: Iterable[str]) -> str:
    # Without the prefix, which would make all names alike.
    names = [*(each.replace(".", "__") for each in known), CONFIG_VARIABLE.removeprefix(PREFIX).lower()]
    nearest = get_close_matches("__".join(path), names, n=1, cutoff=0.75)
    return f"; did you mean {PREFIX}{nearest[0].upper()}?" if nearest else ""
