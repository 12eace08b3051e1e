"""`docpreview-gateway dev`: emulator and gateway by one command, as real processes with the real client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from docpreview_client import DocPreviewClient
from tests.edge_process import free_port
from tests.hangups import HEARING
from tests.packaging.project import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BUCKET = "examplebucket-1250000000"
DEV = (sys.executable, "-m", "docpreview_gateway", "dev")
FREE = ("--port", "0", "--admin-port", "0", "--emulator-port", "0")
CLIENT = Path(sys.executable).with_name("docpreview")
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends processes with their parent, and has /proc")


@dataclass
class Dev:
    """A running `dev`, and what it has printed."""

    process: asyncio.subprocess.Process
    lines: dict[str, str]

    @property
    def ports(self) -> list[int]:
        """Of gRPC, the emulator and the admin page."""
        addresses = (f"//{self.lines['gRPC']}", self.lines["emulator"], self.lines["admin"])
        return [urlsplit(address).port or 0 for address in addresses]

    async def warning(self, words: str) -> str:
        """The next line of stderr with these words."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            if words in line.decode():
                return line.decode()
        raise AssertionError(f"it said nothing of {words}")

    async def end(self) -> tuple[int, str]:
        """Exit code and what was left of stdout and stderr."""
        out, err = await asyncio.wait_for(self.process.communicate(), 30)
        return await self.process.wait(), (out + err).decode()


async def started(*options: str, folder: Path, **variables: str) -> asyncio.subprocess.Process:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DOCPREVIEW_")}
    pipe = asyncio.subprocess.PIPE
    # Whoever runs the tests may have been started by nohup, which `dev` would obey.
    words = (*HEARING, *DEV, *options)
    return await asyncio.create_subprocess_exec(
        *words, cwd=folder, env=environment | variables, stdout=pipe, stderr=pipe
    )


@asynccontextmanager
async def running(*options: str, folder: Path, **variables: str) -> AsyncIterator[Dev]:
    """`dev` once it has printed its four lines."""
    process = await started(*options, folder=folder, **variables)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        words = [(await asyncio.wait_for(process.stdout.readline(), 60)).decode() for _ in range(4)]
        if not words[-1]:
            raise AssertionError((await process.stderr.read()).decode())
        yield Dev(process, {name: rest.strip() for name, _, rest in (line.partition(" ") for line in words)})
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def fails(*options: str, folder: Path, **variables: str) -> str:
    """The errors of a `dev` that does not start."""
    process = await started(*options, folder=folder, **variables)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out) == (1, b"")
    return err.decode()


def children(process: int) -> dict[str, int]:
    """The process of each server, by its name."""
    found = {}
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_text()
        found["emulator" if "docpreview_emulator" in words else "gateway"] = int(child)
    return found


def alive(servers: dict[str, int]) -> list[str]:
    return [name for name, process in servers.items() if Path(f"/proc/{process}").exists()]


async def gone(process: int) -> None:
    """Wait until a process has ended, whoever its parent is."""
    ended = asyncio.Event()
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    asyncio.get_running_loop().add_reader(descriptor, ended.set)
    await asyncio.wait_for(ended.wait(), 30)
    asyncio.get_running_loop().remove_reader(descriptor)
    os.close(descriptor)


def hiding(folder: Path, *packages: str) -> dict[str, str]:
    """Variables of a Python that lacks these packages."""
    text = f"""
import sys
class Lacking:
    def __init__(self, finder): self.finder = finder
    def find_spec(self, name, *rest): return None if name in {packages!r} else self.finder.find_spec(name, *rest)
sys.meta_path[:] = [Lacking(finder) for finder in sys.meta_path]
"""
    (folder / "sitecustomize.py").write_text(text)
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


async def status(url: str) -> int:
    async with httpx.AsyncClient(trust_env=False) as browser:
        return (await browser.get(url)).status_code


async def test_four_lines_say_where_the_servers_are_and_each_of_them_is_true(tmp_path: Path) -> None:
    """On the wanted ports where these are free."""
    port, admin, emulator = (str(free_port()) for _ in range(3))
    wanted = ("--port", port, "--admin-port", admin, "--emulator-port", emulator)
    async with running(*wanted, folder=tmp_path) as dev:
        assert list(dev.lines) == ["gRPC", "emulator", "admin", "try"]
        assert dev.lines["gRPC"] == f"127.0.0.1:{port}"
        assert dev.lines["emulator"] == f"http://127.0.0.1:{emulator}/"
        assert dev.lines["admin"] == f"http://127.0.0.1:{admin}/"
        assert await status(dev.lines["emulator"]) == 200
        assert await status(dev.lines["admin"]) == 200
        async with DocPreviewClient(dev.lines["gRPC"]) as client:
            assert [job async for job in client.list(BUCKET)] == []


@pytest.mark.parametrize("on_path", [True, False])
async def test_the_line_to_try_makes_page_images_as_it_is_printed(tmp_path: Path, *, on_path: bool) -> None:
    """Whether the client's folder is on the PATH or not."""
    path = os.pathsep.join([str(CLIENT.parent), "/usr/bin"]) if on_path else "/usr/bin"
    async with running(*FREE, folder=tmp_path, PATH=path) as dev:
        assert shlex.split(dev.lines["try"])[:2] == ["docpreview" if on_path else str(CLIENT), "preview"]
        shell = await asyncio.create_subprocess_shell(
            dev.lines["try"], cwd=tmp_path, env=os.environ | {"PATH": path}, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await shell.communicate()
    assert shell.returncode == 0
    pages = [tmp_path / name for name in out.decode().split()]
    assert [page.read_bytes()[:2] for page in pages] == [b"\xff\xd8"] * 7


async def test_two_devs_beside_each_other_have_ports_and_jobs_of_their_own(tmp_path: Path) -> None:
    """The second takes free ports in the place of those of the first."""
    wanted = ("--port", str(free_port()), "--admin-port", str(free_port()), "--emulator-port", str(free_port()))
    async with running(*wanted, folder=tmp_path) as first, running(*wanted, folder=tmp_path) as second:
        assert set(first.ports).isdisjoint(second.ports)
        async with DocPreviewClient(first.lines["gRPC"]) as one, DocPreviewClient(second.lines["gRPC"]) as other:
            await one.upload(ROOT / "examples" / "seven-pages.pdf", BUCKET, "a.pdf")
            await one.create(BUCKET, "a.pdf", output_object="out/${Number}.jpg")
            assert len([job async for job in one.list(BUCKET)]) == 1
            assert [job async for job in other.list(BUCKET)] == []


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_stops_both_servers_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    """Exit code 0, no process and no folder is left, and there is nothing to complain about."""
    (tmp_path / "temporary").mkdir()
    async with running(*FREE, folder=tmp_path, TMPDIR=str(tmp_path / "temporary")) as dev:
        servers = children(dev.process.pid)
        assert set(servers) == {"emulator", "gateway"}
        dev.process.send_signal(number)
        code, text = await dev.end()
        assert (code, "error" in text) == (0, False)
    assert alive(servers) == []
    assert list((tmp_path / "temporary").iterdir()) == []


@linux
@pytest.mark.parametrize("victim", ["emulator", "gateway"])
async def test_when_one_server_dies_the_other_is_stopped_and_the_error_says_which_and_why(
    tmp_path: Path, victim: str
) -> None:
    async with running(*FREE, folder=tmp_path) as dev:
        servers = children(dev.process.pid)
        os.kill(servers[victim], signal.SIGKILL)
        code, text = await dev.end()
    assert code == 1
    assert f"error: the {victim} has ended: killed by SIGKILL\n" in text
    assert alive(servers) == []


@linux
async def test_both_servers_stop_when_dev_itself_is_killed(tmp_path: Path) -> None:
    """By SIGKILL, after which it can do nothing any more."""
    async with running(*FREE, folder=tmp_path, TMPDIR=str(tmp_path)) as dev:
        servers = children(dev.process.pid)
        dev.process.kill()
        for process in servers.values():
            await gone(process)


async def test_what_the_machine_lacks_is_said_with_the_command_that_installs_it(tmp_path: Path) -> None:
    """Without LibreOffice, and with a fontconfig that knows no font."""
    (tmp_path / "fc-list").write_text("#!/bin/sh\n")
    (tmp_path / "fc-list").chmod(0o755)
    async with running(*FREE, folder=tmp_path, PATH=str(tmp_path)) as dev:
        assert "apt-get install --no-install-recommends libreoffice-impress" in await dev.warning(
            "no LibreOffice: jobs"
        )
        assert "apt-get install fonts-noto-cjk" in await dev.warning("no font for Chinese")


async def test_a_kept_folder_has_the_example_configuration_and_keeps_documents_and_changes(tmp_path: Path) -> None:
    """`--data-dir` may be relative; another bucket in gateway.yaml is served and tried at the next start."""
    options = (*FREE, "--data-dir", "kept")
    async with running(*options, folder=tmp_path) as dev:
        assert str(tmp_path / "kept" / "example.pdf") in dev.lines["try"]
        assert "is kept in" in await dev.warning(str(tmp_path / "kept"))
        async with DocPreviewClient(dev.lines["gRPC"]) as client:
            await client.upload(ROOT / "examples" / "seven-pages.pdf", BUCKET, "a.pdf")
            job = await client.create(BUCKET, "a.pdf", output_object="out/${Number}.jpg")
            await client.wait(BUCKET, job.job_id)
    configuration = tmp_path / "kept" / "gateway.yaml"
    settings = yaml.safe_load(configuration.read_text())
    assert settings == yaml.safe_load((ROOT / "examples" / "gateway.yaml").read_text())
    settings["buckets"].insert(0, {"name": "documents-1250000000", "region": "ap-chongqing", "credentials": "main"})
    configuration.write_text(yaml.safe_dump(settings))
    async with running(*options, folder=tmp_path) as dev, DocPreviewClient(dev.lines["gRPC"]) as client:
        assert [listed.job_id async for listed in client.list(BUCKET)] == [job.job_id]
        assert [listed async for listed in client.list("documents-1250000000")] == []
        assert "--bucket documents-1250000000 " in dev.lines["try"]


def test_a_data_dir_that_is_no_folder_or_has_no_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "docpreview_emulator.dev", *FREE, "--data-dir"]
    done = subprocess.run([*command, str(tmp_path / "file")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"error: {tmp_path / 'file'}: File exists\n")
    done = subprocess.run([*command, ""], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the path is empty" in done.stderr


async def test_in_a_folder_that_others_can_read_every_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    """Those of both servers too, and logs and the example that were there with another mode."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o755)
    for name in ("emulator.log", "gateway.log", "example.pdf"):
        (folder / name).touch(0o644)
        (folder / name).chmod(0o644)
    async with running(*FREE, "--data-dir", "shared", folder=tmp_path) as dev:
        async with DocPreviewClient(dev.lines["gRPC"]) as client:
            await client.upload(ROOT / "examples" / "seven-pages.pdf", BUCKET, "a.pdf")
            job = await client.create(BUCKET, "a.pdf", output_object="out/${Number}.jpg")
            await client.wait(BUCKET, job.job_id)
        modes = {
            str(path.relative_to(folder)): path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()
        }
    assert {"gateway.yaml", "gateway.log", "emulator.log", "example.pdf"} < set(modes)
    assert {name: oct(mode) for name, mode in modes.items() if mode != 0o600} == {}
    assert folder.stat().st_mode & 0o777 == 0o755


async def test_a_folder_that_another_dev_uses_is_refused(tmp_path: Path) -> None:
    async with running(*FREE, "--data-dir", "kept", folder=tmp_path):
        text = await fails(*FREE, "--data-dir", "kept", folder=tmp_path)
    assert "error: the emulator did not start: " in text
    assert "another emulator" in text


async def test_a_gateway_that_does_not_start_ends_dev_with_its_words(tmp_path: Path) -> None:
    """As for a mistake in the configuration: setting and problem, no traceback."""
    (tmp_path / "gateway.yaml").write_text("buckets: []\nlissten: 127.0.0.1:0\n")
    text = await fails(*FREE, "--data-dir", ".", folder=tmp_path)
    assert "error: the gateway did not start: " in text
    assert "lissten" in text
    assert "Traceback" not in text


async def test_variables_of_the_environment_change_neither_server(tmp_path: Path) -> None:
    """A developer's machine may have those of another gateway."""
    others = {"DOCPREVIEW_CONFIG": "/missing.yaml", "DOCPREVIEW_WORKERS": "0", "DOCPREVIEW_EMULATOR_SECRET_ID": "other"}
    async with running(*FREE, folder=tmp_path, **others) as dev, DocPreviewClient(dev.lines["gRPC"]) as client:
        assert [job async for job in client.list(BUCKET)] == []


@pytest.mark.parametrize("missing", ["docpreview_emulator", "PIL"])
async def test_without_the_extra_the_error_has_the_line_that_installs_it(tmp_path: Path, missing: str) -> None:
    """The gateway is installed alone, or the emulator without what renders."""
    text = await fails(*FREE, folder=tmp_path, **hiding(tmp_path, missing))
    assert 'pip install "docpreview-gateway[emulator]"' in text
    assert 'from a checkout pip install ./protos ".[emulator]"' in text
    assert "Traceback" not in text


async def test_the_help_is_that_of_the_command(tmp_path: Path) -> None:
    process = await started("--help", folder=tmp_path, COLUMNS="200")
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert "docpreview-gateway dev [OPTIONS]" in out.decode()
    assert all(option in out.decode() for option in ("--data-dir", "--port", "--admin-port", "--emulator-port"))
