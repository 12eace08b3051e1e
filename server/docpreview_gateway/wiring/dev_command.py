"""The command `dev`, whose work is the emulator's: this package does without it."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import typer  # noqa: TC002 - read by the library of commands

from docpreview_gateway.wiring.command_line import CANNOT_START, fail

_MISSING = (
    'dev: needs the emulator, which is not installed: pip install "docpreview-gateway[emulator]", '
    'or from a checkout pip install ./protos ".[emulator]"'
)

ALL_WORDS = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
"""What makes typer leave all options, `--help` too, to the command that takes over."""


def dev(context: typer.Context) -> None:
    """Start the emulator and a gateway in front of it on this machine, to try things out."""
    if find_spec("docpreview_emulator") is None:
        fail([_MISSING], CANNOT_START)
    # -P: a module of the current folder is not meant.
    words = (sys.executable, "-P", "-m", "docpreview_emulator.dev", *context.args)
    os.execv(words[0], words)  # noqa: S606 - our own command
