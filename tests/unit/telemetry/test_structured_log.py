"""Logs as lines of JSON, one a line whatever is logged."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
import structlog

from docpreview_gateway.telemetry.structured_log import Sampling

PROGRAM = """
import logging, structlog
from docpreview_gateway.telemetry.structured_log import configure
configure({level!r}, json_lines={json_lines})
log = structlog.get_logger("test")
{body}
"""


def lines(body: str, *, level: str = "INFO", json_lines: bool | None = True) -> list[str]:
    """What a process logs, whose configuration is its own."""
    program = PROGRAM.format(level=level, json_lines=json_lines, body=body)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == ""
    return done.stderr.splitlines()


@pytest.mark.parametrize("json_lines", [True, None], ids=["json", "no terminal"])
def test_one_object_a_line(json_lines: bool | None) -> None:  # noqa: FBT001
    """Whatever a text holds, it cannot begin a line of its own."""
    text = '\n{"level": "forged"}\r\n\x1b[31mred\x00\u2028'
    (line,) = lines(f"log.info({text!r}, field={text!r})", json_lines=json_lines)
    entry = json.loads(line)
    assert (entry["event"], entry["field"], entry["level"]) == (text, text, "info")
    assert entry["timestamp"].endswith("Z")


def test_a_line_is_written_at_once_with_its_end_also_without_buffers() -> None:
    """As in the image: several workers write to one stderr, and a line of one must not stand within another's."""
    program = PROGRAM.format(level="INFO", json_lines=True, body="log.info('one')\nlog.info('two')")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)  # each write is a packet
    with ours, theirs:
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        subprocess.run([sys.executable, "-c", program], stderr=theirs.fileno(), env=environment, check=True, timeout=60)
        packets = [ours.recv(65536).decode() for _ in range(2)]
    assert [json.loads(packet)["event"] for packet in packets] == ["one", "two"]
    assert all(packet.endswith("}\n") for packet in packets)


def test_a_traceback_is_a_field_of_its_line() -> None:
    """A traceback is a field."""
    body = "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    log.error('oops', exc_info=error)"
    (line,) = lines(body)
    assert "ZeroDivisionError" in json.loads(line)["exception"]


def test_a_traceback_has_the_types_of_its_errors_and_not_their_messages() -> None:
    """These quote what could not be read. An error of the system keeps its name."""
    body = (
        "try:\n    try:\n        raise OSError(28, 'its secret')\n"
        "    except OSError:\n        raise ExceptionGroup('all secret', [ValueError('a secret')])\n"
        "except ExceptionGroup:\n    log.exception('oops')"
    )
    (line,) = lines(body)
    assert "secret" not in line
    shown = json.loads(line)["exception"]
    assert [kind for kind in ("OSError ENOSPC", "ExceptionGroup", "ValueError") if kind in shown.splitlines()] == [
        "OSError ENOSPC",
        "ExceptionGroup",
        "ValueError",
    ]


LINES_OF_LIBRARIES = {
    "argument": "logging.getLogger('grpc').error('Invalid encoding on %s', b'a secret')",
    "formatted": "logging.getLogger('grpc').error('Invalid encoding on ' + repr(b'a secret'))",
    "exception": "logging.getLogger('grpc').error(ValueError('a secret'))",
    "traceback": "try:\n    raise ValueError('a secret')\nexcept ValueError:\n    logging.exception('%s', 1)",
    "event loop": "import asyncio\nasyncio.new_event_loop().call_exception_handler({'message': 'a secret'})",
    "unraisable": "class It:\n    def __del__(self):\n        raise ValueError('a secret')\nit = It()\ndel it",
}


@pytest.mark.parametrize("body", LINES_OF_LIBRARIES.values(), ids=list(LINES_OF_LIBRARIES))
def test_a_line_of_a_library_has_no_text_that_may_be_a_strangers(body: str) -> None:
    """One JSON line tells what it was; by its template where that comes apart from what it quotes."""
    (line,) = lines(body)
    assert "secret" not in line
    entry = json.loads(line)
    assert entry["event"] in {"log line of a library", "an error that could not be raised"}
    assert entry.get("text", "") in {"", "...", "Invalid encoding on ..."}


def test_a_line_of_a_library_has_three_dots_for_each_of_its_arguments() -> None:
    """Whatever their form; none of its placeholders is left."""
    (line,) = lines("logging.getLogger('x').error('%s %(a)r %-5.2f 50 %% of %5d in %x', *[0] * 5)")
    assert json.loads(line)["text"] == "... ... ... 50 % of ... in ..."


def test_lines_of_one_library_leave_room_for_those_of_another() -> None:
    """Strangers may cause any number of lines of gRPC's."""
    found = lines("for _ in range(50): logging.getLogger('grpc').error('a')\nlogging.getLogger('redis').error('b')")
    assert [json.loads(line)["logger"] for line in found] == ["grpc"] * 10 + ["redis"]


def test_a_line_below_the_level_is_not_logged() -> None:
    """What is below the level is not logged."""
    found = lines("log.info('no'); log.warning('yes')", level="WARNING")
    assert [json.loads(line)["event"] for line in found] == ["yes"]


def test_other_libraries_log_from_warning_on_and_quote_no_signature() -> None:
    """They log from WARNING on: their INFO lines quote URLs with signatures in them."""
    body = "logging.getLogger('httpx').info('GET https://x?q-signature=abc'); logging.getLogger('httpx').warning('w')"
    assert "q-signature" not in "".join(lines(body, level="DEBUG"))


def test_console_lines_are_for_people_and_are_not_json() -> None:
    """Lines for people when they are asked for."""
    (line,) = lines("log.info('serving', port=1)", json_lines=False)
    assert "serving" in line
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(line)


def test_warnings_that_repeat() -> None:
    """Ten a minute of a kind are shown; the first of the next minute says how many were not. News is never dropped."""
    now = 0.0
    sampling = Sampling(lambda: now)

    def shown(name: str, event: str) -> list[dict[str, object]]:
        try:
            return [dict(sampling(None, name, {"event": event}))]
        except structlog.DropEvent:
            return []

    assert sum(len(shown("warning", "ledger unavailable")) for _ in range(25)) == 10
    assert shown("error", "another kind") == [{"event": "another kind"}]
    assert sum(len(shown("info", "reloaded")) for _ in range(25)) == 25
    now = 60.0
    assert shown("warning", "ledger unavailable") == [{"event": "ledger unavailable", "repeated": 15}]
    assert shown("warning", "ledger unavailable") == [{"event": "ledger unavailable"}]


def test_warnings_of_a_process() -> None:
    """What is configured samples."""
    assert len(lines("for _ in range(50): log.warning('again')")) == 10
