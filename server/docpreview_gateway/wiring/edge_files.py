"""The edge's files in their folder: written by `edge-config`, and some again by a gateway whose certificates change.

Envoy that has refused a certificate (or authorities) keeps it in memory: after the last good one is back, it refuses
every later change of the other too. It forgets when the file that names them changes, so each writing has another
spelling of the same paths.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from docpreview_gateway.wiring import edge_config

if TYPE_CHECKING:
    from pathlib import Path

    from docpreview_gateway.settings.loading import Settings

SPELLINGS = 16
"""More than processes that write at the same time could use up."""


def write(settings: Settings, folder: Path) -> None:
    """Write every file of the edge. EdgeError as edge_config.files; OSError."""
    made = edge_config.files(settings, folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in made.keys() - edge_config.secrets(settings).keys():
        _replace(folder / name, made[name])
    name_again(settings, folder)


def name_again(settings: Settings, folder: Path) -> None:
    """Write the files that name certificate and authorities, so that Envoy reads both again. OSError."""
    spelt = [edge_config.secrets(settings, spelling) for spelling in range(SPELLINGS)]
    for name in spelt[0]:
        path = folder / name
        now = path.read_bytes() if path.exists() else b""
        texts = [spelling[name] for spelling in spelt]
        _replace(path, texts[(texts.index(now) + 1) % SPELLINGS if now in texts else 0])


def _replace(path: Path, content: bytes) -> None:
    """By renaming, which Envoy watches for; nobody reads half of it."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_bytes(content)
    new.replace(path)
