"""The command `docpreview-emulator`."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import aiohttp
import pytest
from yarl import URL

from docpreview_emulator.__main__ import is_loopback
from docpreview_emulator.sandbox import DESCRIPTIONS
from tests.hangups import HEARING
from tests.unit.emulator.cloud_client import COS_HOST, Cloud
from tests.unit.emulator.office_jobs import needs_office
from tests.unit.emulator.pdf_files import pdf

COMMAND = [sys.executable, "-m", "docpreview_emulator", "serve"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_serve_prints_its_address_answers_and_stops_with_0_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    command = [*HEARING, *COMMAND, "--port", "0", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        with urlopen(f"{url}/_emulator/health") as response:  # noqa: S310 - loopback
            assert response.status == 200
        process.send_signal(number)
        assert process.wait(10) == 0


def test_serve_warns_of_what_the_machine_lacks_with_the_command_that_installs_it(tmp_path: Path) -> None:
    """Without LibreOffice, and with a fontconfig that knows no font."""
    (tmp_path / "fc-list").write_text("#!/bin/sh\n")
    (tmp_path / "fc-list").chmod(0o755)
    command, environment = [*COMMAND, "--port", "0"], os.environ | {"PATH": str(tmp_path)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=pipe, text=True) as process:
        assert process.stderr is not None
        office, fonts = process.stderr.readline(), process.stderr.readline()
        process.terminate()
    assert office.startswith("warning: no LibreOffice: ")
    assert "apt-get install --no-install-recommends libreoffice-impress" in office
    assert fonts.startswith("warning: no font for Chinese, Japanese and Korean: ")
    assert "apt-get install fonts-noto-cjk" in fonts


@needs_office
async def test_serve_converts_documents_in_a_data_directory_that_is_named_relatively(tmp_path: Path) -> None:
    """As the README does: `serve --data-dir ./cloud`."""
    command, pipe = (*COMMAND, "--port", "0", "--data-dir", "./cloud"), asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, cwd=tmp_path)
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().split()[-1]
        async with Cloud(url) as cloud:
            await cloud.put("notes.txt", b"text")
            ended = await cloud.ended(await cloud.job_id("notes.txt", "o/${Number}.jpg"))
            assert ended.text("JobsDetail/State") == "Success", ended.body
            assert (await cloud.fetch("o/1.jpg")).body.startswith(b"\xff\xd8")
    finally:
        process.terminate()
        await process.wait()
    assert (tmp_path / "cloud" / "emulator.sqlite3").is_file()


async def test_options_make_a_cloud_without_echo_with_late_lists_and_empty_pages() -> None:
    """A create, a get and lists of the command, before and after the delay."""
    options = ("--port", "0", "--no-echo", "--list-delay", "60", "--empty-pages", "2")
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*COMMAND, *options, stdout=pipe, stderr=nothing)
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().split()[-1]
        async with Cloud(url) as cloud, aiohttp.ClientSession(url) as control:
            await control.put(f"/_emulator/upload/{COS_HOST}/seven.pdf", data=pdf(7))
            made = await cloud.create("seven.pdf", UserData="ticket 7")
            job_id = made.text("JobsDetail/JobId")
            assert made.texts("JobsDetail/Operation/UserData") == []
            assert (await cloud.get(job_id)).text("JobsDetail/JobId") == job_id
            assert await listed(cloud) == [[], [], []]
            await control.put("/_emulator/clock", json={"offset_seconds": 61})
            assert await listed(cloud) == [[], [], [job_id]]
    finally:
        process.terminate()
        await process.wait()


async def test_options_make_a_strict_cloud_that_pages_may_use() -> None:
    options = (
        "--port",
        "0",
        "--strict",
        "--cors-origin",
        "http://localhost:3000",
        "--cors-origin",
        "https://b.example",
    )
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*COMMAND, *options, stdout=pipe, stderr=nothing)
    assert process.stdout is not None
    try:
        url = (await process.stdout.readline()).decode().split()[-1]
        async with Cloud(url) as cloud:
            reply = await cloud.send("GET", "/", host=COS_HOST, headers={"origin": "https://b.example"})
            assert reply.text("Code") == "NoSuchBucket"
            assert reply.headers["Access-Control-Allow-Origin"] == "https://b.example"
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.parametrize("origin", ["localhost:3000", "http://localhost:3000/app", "http://"])
def test_an_origin_that_no_browser_sends_is_refused(origin: str) -> None:
    command = [*COMMAND, "--cors-origin", origin]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200"})
    assert done.returncode == 2
    assert "is no origin, such as http://localhost:3000" in done.stderr


async def listed(cloud: Cloud) -> list[list[str]]:
    """The ids of the jobs on each page, to the end of the list."""
    pages, token = [], ""
    while True:
        answer = await cloud.list(nextToken=token)
        pages.append(answer.texts("JobsDetail/JobId"))
        if not (token := answer.text("NextToken")):
            return pages


def test_the_help_names_every_option_that_changes_the_cloud() -> None:
    done = subprocess.run(
        [*COMMAND, "--help"], capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "200"}
    )
    for option in (
        "--strict",
        "--cors-origin",
        "--no-echo",
        "--list-delay",
        "--empty-pages",
        "--submit-delay",
        "--run-delay",
    ):
        assert option in done.stdout


def test_an_address_that_others_can_reach_needs_allow_remote() -> None:
    done = subprocess.run([*COMMAND, "--host", "0.0.0.0"], capture_output=True, text=True, check=False)  # noqa: S104
    assert done.returncode == 2
    assert "--allow-remote" in done.stderr


@pytest.mark.parametrize("option", ["--submit-delay", "--run-delay", "--list-delay"])
@pytest.mark.parametrize("seconds", ["nan", "inf"])
def test_a_delay_that_is_no_number_of_seconds_is_refused(option: str, seconds: str) -> None:
    done = subprocess.run([*COMMAND, "--port", "0", option, seconds], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"Invalid value for '{option}'" in done.stderr


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


def test_serve_says_which_isolation_of_documents_is_in_force_as_health_does() -> None:
    command = [*COMMAND, "--port", "0", "--workers", "2", "--max-memory", "1024"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        told = process.stdout.readline()
        with urlopen(f"{url}/_emulator/health") as response:  # noqa: S310 - loopback
            isolation = json.load(response)["isolation"]
        process.terminate()
        assert told == f"documents are opened in processes {DESCRIPTIONS[isolation]}\n"


async def test_what_a_client_sends_makes_no_line_of_its_own_in_the_log() -> None:
    """Nor commands for the terminal that shows it."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*COMMAND, "--port", "0", stdout=pipe, stderr=pipe)
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().split()[-1]
    async with aiohttp.ClientSession() as client:
        path = URL(f"{url}/_emulator/objects/{COS_HOST}/x%0d%0a2026-11-30%20ERROR%20gone%1b[31m", encoded=True)
        async with client.get(path) as response:
            assert response.status == 403
    process.terminate()
    _, log = await process.communicate()
    assert rb"x\x0d\x0a2026-11-30 ERROR gone\x1b[31m" in log
    assert b"\x1b" not in log
    assert b"\n2026-11-30 ERROR" not in log


async def test_a_request_that_is_no_http_is_one_line_of_the_log_without_what_came() -> None:
    """It may be a signed address that was cut."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*COMMAND, "--port", "0", stdout=pipe, stderr=pipe)
    assert process.stdout is not None
    port = int((await process.stdout.readline()).decode().split(":")[-1])
    for line in (b"GET /a?q-signature=s3cr3t SMTP/9\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\ns3cr3t\r\n\r\n"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(line)
        assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
        writer.close()
    process.terminate()
    _, log = await process.communicate()
    assert log.count(b"INFO a request that is no HTTP: ") == 2
    assert b"s3cr3t" not in log
    assert b"Traceback" not in log


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--data-dir", ""), "the path is empty"),
        (("--tls", "--ca-out", ""), "the path is empty"),
        (("--secret-id", ""), "must not be empty"),
        (("--secret-key", ""), "must not be empty"),
        (("--control-host", "http://x/"), "is no host such as emulator.local"),
        (("--max-memory", "9" * 20), "should be less than or equal to 1000000"),
        (("--max-files", "9" * 20), "should be less than or equal to 1000000"),
        (("--max-cpu-time", "9" * 20), "should be less than or equal to 1000000"),
    ],
)
def test_an_option_with_which_nothing_would_work_is_refused(options: tuple[str, ...], words: str) -> None:
    process = subprocess.run([*COMMAND, *options], capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert words in " ".join(process.stderr.replace("│", " ").split())


def test_a_port_that_is_taken_is_told_with_the_option_that_chooses_another() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = subprocess.run([*COMMAND, "--port", str(port)], capture_output=True, text=True, check=False)
    assert process.returncode == 1
    message = f"127.0.0.1:{port} cannot be listened on: Address already in use. Choose another --host or --port"
    assert message in process.stderr


def test_a_file_that_cannot_be_written_is_named_without_a_number(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "ca.pem"
    command = [*COMMAND, "--port", "0", "--tls", "--ca-out", str(path)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (1, f"docpreview-emulator: {path}: No such file or directory\n")
