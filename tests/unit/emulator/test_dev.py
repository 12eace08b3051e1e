"""What `dev` makes of the logs of its servers, and of a port that another program takes at the same moment."""

import os
import select
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from docpreview_emulator import dev
from docpreview_emulator.server_process import Command, ServerProcess

ROOT = Path(__file__).parents[3]
ENTRY = (
    '{"error": "connection refused", "event": "settlement round failed", "level": "warning", '
    '"timestamp": "2026-11-30T15:40:37.854070Z"}'
)


@pytest.mark.parametrize(
    ("line", "note"),
    [
        (ENTRY, "settlement round failed (error: connection refused)"),
        ('{"event": "stopped", "level": "info", "timestamp": "2026-11-30T15:40:39.582847Z"}', None),
        (
            '{"event": "a call failed", "level": "error", "exception": "Traceback:\\n  a.py\\nValueError: no page"}',
            "a call failed (exception: ValueError: no page)",
        ),
        ('{"event": "no create can succeed", "level": "error"}', "no create can succeed"),
        ("error: listen 127.0.0.1:1: the port is in use", "listen 127.0.0.1:1: the port is in use"),
        ("Traceback (most recent call last):", "Traceback (most recent call last):"),
        ("{'no': 'entry'}", "{'no': 'entry'}"),
        ("7", "7"),
    ],
)
def test_warnings_and_errors_of_the_gateway_are_told_in_words(line: str, note: str | None) -> None:
    """What is below a warning stays in its log."""
    assert dev.gateway_note(line) == note


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("2026-11-30 15:40:37,854 INFO GET a.ci.ap-chongqing.myqcloud.com/doc_jobs: 200 ", None),
        ("2026-11-30 15:40:37,854 ERROR job d1: the disk is full", "job d1: the disk is full"),
        ("warning: no LibreOffice: jobs fail", "warning: no LibreOffice: jobs fail"),
        ("docpreview-emulator: a.sqlite3 is not a usable database", "a.sqlite3 is not a usable database"),
    ],
)
def test_warnings_and_errors_of_the_emulator_are_told_without_its_requests(line: str, note: str | None) -> None:
    assert dev.emulator_note(line) == note


def program(folder: Path, text: str) -> Command:
    return Command("server", (sys.executable, "-c", text), folder / "server.log", mark="serves", note=str)


def test_a_port_that_is_taken_between_look_and_start_is_replaced_by_a_free_one(tmp_path: Path) -> None:
    """The server of the first try ends since another program was faster, and nobody reads of it."""
    tried: list[Sequence[int]] = []
    with dev.Servers(tmp_path) as servers, ExitStack() as stack:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            wanted = probe.getsockname()[1]

        def start(ports: Sequence[int]) -> ServerProcess:
            tried.append(ports)
            if ports == [wanted]:
                stack.enter_context(socket.create_server(("127.0.0.1", wanted)))
                return servers.process(program(tmp_path, "raise SystemExit('the port is in use')"))
            return servers.process(program(tmp_path, "import time; print('it serves', flush=True); time.sleep(60)"))

        assert servers.started(start, [wanted]) == "it serves"
    assert tried == [[wanted], [0]]


def test_a_server_that_ends_at_start_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    """And is not started again when its port was not the reason."""
    with dev.Servers(tmp_path) as servers:
        code = "raise SystemExit('the disk is full')"
        with pytest.raises(dev.EndedError, match=r"the server did not start: the disk is full"):
            servers.started(lambda _: servers.process(program(tmp_path, code)), [0])


def test_the_end_of_a_server_is_noticed_while_a_process_of_its_own_has_its_log_open(tmp_path: Path) -> None:
    """And this one ends too: nothing of a server that was killed goes on."""
    text = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('it serves', child.pid, flush=True)\n"
        "child.wait()\n"
    )
    with ServerProcess(program(tmp_path, text)) as server:
        child = int(server.serving.result(60).split()[-1])
        descriptor = os.pidfd_open(child) if sys.platform == "linux" else None
    assert server.code == -9
    if descriptor is not None:
        assert select.select([descriptor], [], [], 30)[0] == [descriptor]
        os.close(descriptor)


def test_the_example_of_dev_is_that_of_the_documents() -> None:
    """The distribution has no folder `examples`."""
    assert (ROOT / "server" / "docpreview_emulator" / dev.EXAMPLE).read_bytes() == (
        ROOT / "examples" / "seven-pages.pdf"
    ).read_bytes()
