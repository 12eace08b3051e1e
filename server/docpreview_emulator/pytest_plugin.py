"""Pytest fixtures that run the emulator, and a gateway in front of it, for one test.

pytest imports this module in every run of every project that has the distribution installed, so it imports nothing but
pytest and the standard library. The emulator and its web server are imported by the first test that uses them, the
gateway by its own process.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docpreview_emulator.emulator import Emulator
    from docpreview_emulator.gateway_process import RunningGateway


@pytest.fixture
def docpreview_emulator(tmp_path: Path) -> "Iterator[Emulator]":
    """A running emulator on a free loopback port, for async and synchronous tests.

    It runs in a thread with an event loop of its own, stores its data below the test's `tmp_path`, and stops with the
    test.
    """
    from docpreview_emulator.emulator import Emulator  # noqa: PLC0415 - see the module's promise
    from docpreview_emulator.threaded import running  # noqa: PLC0415

    with running(Emulator(tmp_path / "docpreview-emulator")) as emulator:
        yield emulator


@pytest.fixture
def docpreview_gateway(docpreview_emulator: "Emulator", tmp_path: Path) -> "Iterator[RunningGateway]":
    """A running gateway in front of `docpreview_emulator`, on a free loopback port, without TLS and policy.

    It is a process with one bucket that is ready for previews, stores its records and its log below the test's
    `tmp_path`, and is killed with the test.
    """
    from docpreview_emulator.gateway_process import gateway_before  # noqa: PLC0415 - see the module's promise

    with gateway_before(docpreview_emulator, tmp_path / "docpreview-gateway") as gateway:
        yield gateway
