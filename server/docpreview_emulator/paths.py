"""Paths on command lines."""

from pathlib import Path

import typer


def given_path(given: str) -> Path:
    """A path that is given: an empty one, such as that of a variable that is not set, would be the current folder."""
    if not given:
        raise typer.BadParameter("the path is empty; . is the current folder.")
    return Path(given)
