"""Files that only the emulator's user can read: 0600, in folders of 0700."""

import os
from pathlib import Path
from typing import IO

_FILE, _FOLDER = 0o600, 0o700


def private_folder(path: Path) -> Path:
    """The folder, which is made if it is not there, with mode 0700."""
    path.mkdir(mode=_FOLDER, parents=True, exist_ok=True)
    path.chmod(_FOLDER)
    return path


def create_private(path: Path) -> IO[bytes]:
    """A file that is open for writing, empty and with mode 0600 whatever was there."""
    return open(path, "wb", opener=_opener)


def append_private(path: Path) -> IO[bytes]:
    """A file that is open for appending, unbuffered and with mode 0600 whatever was there."""
    return open(path, "ab", buffering=0, opener=_opener)


def _opener(path: str, flags: int) -> int:
    descriptor = os.open(path, flags, _FILE)
    os.fchmod(descriptor, _FILE)  # an older file keeps its mode when it is opened
    return descriptor
