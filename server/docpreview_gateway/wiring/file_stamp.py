"""A stamp that changes when a file changes."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def file_stamp(path: Path) -> str:
    """A hash of the present content of a file; empty when it cannot be read.

    Of the content, because clocks are coarse, and Kubernetes swaps a link two folders up. The files are small.
    """
    try:
        return sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
