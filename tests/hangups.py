"""Programs that hear SIGHUP, whoever started the tests: what runs under `nohup` ignores it, and so do its children."""

from __future__ import annotations

import sys

HEARING = (
    sys.executable,
    "-c",
    "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])",
)
"""The words before a command."""
