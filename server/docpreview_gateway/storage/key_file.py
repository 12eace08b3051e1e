"""The file with a deployment's secret for creates, and those that it replaced."""

from __future__ import annotations

import binascii
import os
import secrets
from base64 import b64decode, b64encode
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

SECRET_BYTES = 32
OWN_NAME = "ledger.key"


class KeyFileError(Exception):
    """The file cannot be used. The message has its path and what to do, and no part of a secret."""


class DeploymentSecrets(NamedTuple):
    """The secrets, the current one first, each of at least 32 bytes; `made`: it was generated just now."""

    secrets: list[bytes]
    made: bool = False


def deployment_secrets(key_file: Path | None, state_dir: Path) -> DeploymentSecrets:
    """The secrets of the configured file; without one, those of `ledger.key` in `state_dir`, which is made if missing.

    KeyFileError when the file cannot be read, written or used.
    """
    if key_file is not None:
        return DeploymentSecrets(read_secrets(key_file))
    path = state_dir / OWN_NAME
    made = False
    if not path.exists():
        try:
            made = _make(path)
        except OSError as error:
            raise KeyFileError(f"{path}: {error.strerror}; the secret for creates is kept there") from error
    return DeploymentSecrets(read_secrets(path), made)


def read_secrets(path: Path) -> list[bytes]:
    """The secrets of a file, one in each line: in base64, or else the line as it is. KeyFileError."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    found = [_secret(path, number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise KeyFileError(f"{path}: is empty. Write the output of `openssl rand -base64 32` to it")
    return found


def _secret(path: Path, number: int, line: bytes) -> bytes:
    with suppress(binascii.Error):
        if len(decoded := b64decode(line, validate=True)) >= SECRET_BYTES:
            return decoded
    if len(line) < SECRET_BYTES:
        raise KeyFileError(
            f"{path}: line {number} has fewer than {SECRET_BYTES} bytes. "
            "Take the output of `openssl rand -base64 32` for a secret"
        )
    return line


def _make(path: Path) -> bool:
    """Write a new secret to a file that does not exist; False when another process was first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    # The file appears at once and whole: workers start at the same time, and each reads what the first one linked.
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(b64encode(secrets.token_bytes(SECRET_BYTES)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True
