"""The command `docpreview-emulator`."""

import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from docpreview_emulator.__main__ import is_loopback

COMMAND = [sys.executable, "-m", "docpreview_emulator", "serve"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_prints_its_address_answers_and_stops_with_0_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    command = [*COMMAND, "--port", "0", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        with urlopen(f"{url}/_emulator/health") as response:  # noqa: S310 - loopback
            assert response.status == 200
        process.send_signal(number)
        assert process.wait(10) == 0


def test_an_address_that_others_can_reach_needs_allow_remote() -> None:
    done = subprocess.run([*COMMAND, "--host", "0.0.0.0"], capture_output=True, text=True, check=False)  # noqa: S104
    assert done.returncode == 2
    assert "--allow-remote" in done.stderr


def test_a_corrupt_database_exits_with_1_and_one_line_of_advice(tmp_path: Path) -> None:
    """The line names the file."""
    (tmp_path / "emulator.sqlite3").write_bytes(b"not a database, certainly" * 100)
    done = subprocess.run(
        [*COMMAND, "--port", "0", "--data-dir", tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "emulator.sqlite3 is not a usable database" in done.stderr


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("10.0.0.1", False),
        ("example.com", False),
    ],
)
def test_an_address_counts_as_loopback_only_on_this_machine(host: str, *, expected: bool) -> None:
    assert is_loopback(host) is expected
