"""Survivors that were looked at and accepted, each with its reason (`accepted.yaml`)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import yaml

FILE = Path(__file__).with_name("accepted.yaml")
KINDS = frozenset({"equivalent", "cosmetic", "untested"})


class Accepted(NamedTuple):
    """Why a mutant may survive.

    `kind` is `equivalent`: nobody can tell the difference; `cosmetic`: it shows in a message, name or delay that no
    promise depends on; `untested`: it is wrong and no test notices, which counts against the share of killed ones.
    """

    kind: str
    reason: str


def accepted(file: Path = FILE) -> dict[tuple[str, str], Accepted]:
    """By module and text of the change. ValueError for an entry without kind or reason, or a second one."""
    found: dict[tuple[str, str], Accepted] = {}
    for module, entries in (yaml.safe_load(file.read_text()) or {}).items():
        for entry in entries:
            key = module, entry["change"]
            if entry.get("kind") not in KINDS or not entry.get("reason") or key in found:
                raise ValueError(f"{file.name}: {module}: {entry['change']}: kind and reason are needed, once")
            found[key] = Accepted(entry["kind"], entry["reason"])
    return found
