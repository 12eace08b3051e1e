"""Whether a file is what it was."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def file_stamp(path: Path) -> str:
    """A hash of what is in a file now; empty when it cannot be read.

    By content: the files are small, clocks are coarse, and Kubernetes swaps a link two folders up.
    """
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
