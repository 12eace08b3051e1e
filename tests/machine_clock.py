"""The wall clock of a process, which tests set while it runs (libfaketime). What is monotonic goes on as it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.programs import need


class MachineClock:
    """The clock of processes that are started with `variables`; `file` holds what it is ahead."""

    def __init__(self, file: Path) -> None:
        need("faketime")
        self._file = file
        self.ahead(0)
        self._library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)

    @property
    def variables(self) -> dict[str, str]:
        """The environment of the processes."""
        if self._library is None:
            pytest.skip("libfaketime is not where Debian has it")
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def ahead(self, hours: float) -> None:
        """Set the clock to so many hours ahead of the true one; negative: behind it."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{hours * 3600:+.0f}\n")
        new.replace(self._file)
