"""A copy of examples/production on free ports, worked with as its README.md says: by the commands that stand there."""

from __future__ import annotations

import os
import re
import shlex
import signal
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from tests.edge_process import free_port
from tests.packaging.project import ROOT
from tests.programs import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PRODUCTION = ROOT / "examples" / "production"
BUCKET, REGION = "documents-1250000000", "ap-guangzhou"
PORTS = {name: free_port() for name in ("50051", "50052", "9464", "9466", "6379", "8089", "9090", "9093", "9099")}
"""Ports of the example's files and of its README, and those of these tests in their place."""

ADMIN = {1: int(PORTS["9464"]), 2: int(PORTS["9466"])}
PATIENCE = 30.0
"""Time-out in seconds of every expected event."""

_SERVER = re.compile(r"redis-server |docpreview-emulator serve|\./gateway\.sh \d serve|prometheus\S* --config")
_WITHOUT_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def commands(heading: str) -> list[str]:
    """The commands below a heading of the README, in order: the lines of its console blocks that begin with `$ `."""
    text = (PRODUCTION / "README.md").read_text()
    section = re.split(r"^##+ ", text.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    blocks = re.findall(r"^ *```console\n(.*?)^ *```", section, re.MULTILINE | re.DOTALL)
    return [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines() if "$ " in line]


def sections() -> list[str]:
    """Headings of what is replaced, in the order of the README."""
    return re.findall("^### (.*)$", (PRODUCTION / "README.md").read_text(), re.MULTILINE)


def on_these_ports(text: str) -> str:
    """The text with the ports of these tests."""
    return re.sub(r"\b(" + "|".join(PORTS) + r")\b", lambda found: str(PORTS[found[1]]), text)


def is_server(command: str) -> bool:
    """Whether a command runs until it is stopped."""
    return _SERVER.match(command) is not None


@dataclass
class Deployment:
    """The folder `deployment` in a checkout, and the servers that run in it."""

    checkout: Path
    servers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.checkout / "deployment"

    @property
    def home(self) -> Path:
        return self.checkout / "home"

    def log(self, command: str) -> Path:
        """Where a server writes."""
        return self.checkout / (re.sub(r"\W+", "-", command) + ".log")

    def copy(self) -> None:
        """The folder, by the first two commands of the README."""
        for name in ("examples", "helm"):
            (self.checkout / name).symlink_to(ROOT / name)
        self.home.mkdir()
        for command in commands("From nothing to the first page")[:2]:
            subprocess.run(shlex.split(command), cwd=self.checkout, check=True)
        for path in self.folder.iterdir():
            if path.is_file():
                path.write_text(on_these_ports(path.read_text()))

    def variables(self) -> dict[str, str]:
        """Those of a user who has none of the gateway's, and whose PATH has the programs."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("DOCPREVIEW_")}
        path = os.pathsep.join([os.path.dirname(sys.executable), own["PATH"]])  # noqa: PTH120 - a link, not its target
        # Two callers who retry need no more.
        return {**own, "PATH": path, "HOME": str(self.home), "DOCPREVIEW_DRAIN__DELAY_SECONDS": "1"}

    def run(self, *lines: str) -> str:
        """What the commands print, run one after the other in one shell. AssertionError with it when one fails."""
        done = subprocess.run(
            ["bash", "-euc", "\n".join(map(on_these_ports, lines))],  # noqa: S607 - of the PATH
            cwd=self.folder,
            env=self.variables(),
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, f"{lines}: {done.stdout}"
        return done.stdout

    def start(self, command: str) -> None:
        """Start a server, and return when it serves."""
        need(shlex.split(command)[0]) if command.startswith(("redis", "prometheus")) else None
        with self.log(command).open("ab") as log:
            process = subprocess.Popen(
                shlex.split(on_these_ports(command)), cwd=self.folder, env=self.variables(), stdout=log, stderr=log
            )
        self.servers[command] = process
        deadline = time.monotonic() + PATIENCE
        while not self._serves(command):
            assert process.poll() is None, self.log(command).read_text()
            assert time.monotonic() < deadline, self.log(command).read_text()
            time.sleep(0.05)

    def stop(self, command: str) -> None:
        """SIGTERM, and wait for the end."""
        process = self.servers.pop(command)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, self.log(command).read_text()

    def restart(self, replica: int) -> None:
        """What `systemctl restart` does with a replica, and the wait until it is ready."""
        self.stop(f"./gateway.sh {replica} serve")
        self.start(f"./gateway.sh {replica} serve")

    def follow(self, heading: str) -> None:
        """Do what stands below a heading of the README."""
        for command in commands(heading):
            if found := re.fullmatch(r"systemctl restart docpreview-gateway@(\d)", command):
                self.restart(int(found[1]))
            else:
                self.run(command)

    def _serves(self, command: str) -> bool:
        if command.startswith("redis-server"):
            return "Ready to accept connections" in self.log(command).read_text()
        if found := re.match(r"\./gateway\.sh (\d)", command):
            return answers(f"http://127.0.0.1:{ADMIN[int(found[1])]}/readyz")
        if command.startswith("prometheus"):
            port = "9093" if "alertmanager" in command else "9090"
            return answers(f"http://127.0.0.1:{PORTS[port]}/-/ready")
        return answers(f"http://127.0.0.1:{PORTS['8089']}/_emulator/health")


def answers(url: str) -> bool:
    """Whether the answer is 200 OK."""
    with httpx.Client(trust_env=False, verify=_WITHOUT_AUTHORITIES) as browser:
        try:
            return browser.get(url, timeout=5).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


@contextmanager
def deployed(checkout: Path) -> Iterator[Deployment]:
    """A copy of the example; what runs in it is ended with the block."""
    need("redis-server")
    deployment = Deployment(checkout)
    try:
        deployment.copy()
        yield deployment
    finally:
        for process in reversed(deployment.servers.values()):
            process.kill()
            process.wait()
