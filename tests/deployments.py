"""What a deployment with shared state has besides its server: a name, and the file with its secret for creates."""

from __future__ import annotations

import tempfile
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMESPACE = "tests"
SECRET = bytes(range(32))
_FOLDER = tempfile.TemporaryDirectory(prefix="docpreview-deployment-")
KEY_FILE = Path(_FOLDER.name, "ledger.key")
KEY_FILE.write_bytes(b64encode(SECRET) + b"\n")
KEY_FILE.chmod(0o600)


def deployed(values: Mapping[str, object]) -> dict[str, object]:
    """The settings, completed by what `shared_state.url` requires, unless they have it."""
    state, ledger = _given(values.get("shared_state")), _given(values.get("ledger"))
    if not state.get("url") and not state.get("ledger_url"):
        return dict(values)
    return {
        **values,
        "shared_state": {"namespace": NAMESPACE} | state,
        "ledger": {"key_file": str(KEY_FILE)} | ledger,
    }


def _given(section: object) -> dict[str, object]:
    """The keys that a section was given, as a map or as settings."""
    if isinstance(section, BaseModel):
        return section.model_dump(exclude_unset=True)
    return dict(section) if isinstance(section, dict) else {}
