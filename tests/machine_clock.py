"""The wall clock of a Python process, which tests set while it runs. What is monotonic goes on as it does."""

from __future__ import annotations

import os
from pathlib import Path

SITE = Path(__file__).with_name("machine_clock_site")


class MachineClock:
    """The clock of processes that are started with `variables`; `file` holds what it is ahead."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.ahead(0)

    @property
    def variables(self) -> dict[str, str]:
        """The environment of the processes."""
        path = os.pathsep.join([str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {"PYTHONPATH": path, "MACHINE_CLOCK_FILE": str(self._file)}

    def ahead(self, hours: float) -> None:
        """Set the clock to so many hours ahead of the true one; negative: behind it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{hours * 3600:+.0f}\n")
        new.replace(self._file)
