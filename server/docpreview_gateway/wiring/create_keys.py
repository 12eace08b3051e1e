"""The deployment's secret for creates, from its file."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from typing import TYPE_CHECKING

from docpreview_gateway.creates.keys import SECRET_BYTES, CreateKeys
from docpreview_gateway.settings.loading import StartError

if TYPE_CHECKING:
    from pathlib import Path

    from docpreview_gateway.settings.loading import Settings

_ADVICE = "make one with: openssl rand -base64 32"


def create_keys(settings: Settings) -> CreateKeys:
    """The keys, from `ledger.key_file`, or from a file that is made in `state_dir`. StartError for a bad file."""
    namespace = settings.shared_state.namespace or ""
    path = settings.ledger.key_file
    if path is not None:
        return CreateKeys(namespace, _read(path))
    path = settings.state_dir / "ledger.key"
    try:
        _make(path)
    except OSError as error:
        raise StartError(
            f"state_dir: {path}: {error.strerror}; creates are recorded in a folder that can be written"
        ) from error
    return CreateKeys(namespace, _read(path))


def _make(path: Path) -> None:
    """Make the file, readable by its owner alone, unless it is there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists():
        return
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode() + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        # Of several processes that start at once, one makes the file.
        path.hardlink_to(new)
    except FileExistsError:
        pass
    finally:
        new.unlink()


def _read(path: Path) -> list[bytes]:
    """The secrets: one a line in base64, the current one first."""
    try:
        lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"ledger.key_file: {path}: cannot be read ({type(error).__name__}); {_ADVICE}") from error
    found: list[bytes] = []
    for line in lines:
        try:
            secret = base64.b64decode(line, validate=True)
        except binascii.Error:
            secret = b""
        if len(secret) < SECRET_BYTES:
            raise StartError(f"ledger.key_file: {path}: a line is not {SECRET_BYTES} bytes in base64; {_ADVICE}")
        found.append(secret)
    if not found:
        raise StartError(f"ledger.key_file: {path}: it is empty; {_ADVICE}")
    return found
