"""Images built by `make image` and run by runc, with the restrictions of a hardened cluster.

A container has no capabilities, cannot gain any, and has a read-only root with a small /tmp. Containers of one test
share an isolated network.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.packaging.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUIRED = "IMAGE_TESTS"
BASE = os.environ.get("IMAGE_BASE", "docker.io/library/python:3.11-slim-bookworm")
SHELLS = ("sh", "bash", "dash", "apt", "apt-get", "dpkg", "perl")
TMP = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]}  # noqa: S108 - in the container


def missing(what: str) -> None:
    """Skip the test, or fail it under `make image-test`."""
    if os.environ.get(REQUIRED) == "required":
        pytest.fail(f"{what}, and make image-test needs it")
    pytest.skip(f"{what}: the image is NOT tested; see make image-test in docs/deploy.md")


def command(*words: object, timeout: float = 600, **options: Any) -> str:
    """Run a command, which must succeed; its output."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [str(word) for word in words], check=False, capture_output=True, text=True, timeout=timeout, cwd=ROOT, **options
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout.strip()


def build(*settings: str) -> None:
    """Run `make image`. A failure is an error under `make image-test`; elsewhere the machine may need arguments."""
    try:
        command("make", "image", *settings)
    except AssertionError as error:
        if os.environ.get(REQUIRED) == "required":
            raise
        missing(f"make image fails here ({str(error).strip().splitlines()[-1]})")


@contextmanager
def working_container(image: str) -> Iterator[tuple[str, Path]]:
    """A buildah container of a local image, and the path of its files."""
    name = command("buildah", "from", "--pull=never", image)
    try:
        yield name, Path(command("buildah", "mount", name))
    finally:
        command("buildah", "rm", name)


@contextmanager
def shell_less(base: str) -> Iterator[str]:
    """The base image without shell and package manager."""
    image = f"localhost/shell-less-base-{os.urandom(4).hex()}:test"
    with working_container(base) as (name, root):
        for folder in ("bin", "usr/bin"):
            for shell in SHELLS:
                (root / folder / shell).unlink(missing_ok=True)
        command("buildah", "commit", "-q", name, image)
    try:
        yield image
    finally:
        command("buildah", "rmi", "-f", image)


@contextmanager
def network() -> Iterator[str]:
    """The name of a network namespace with loopback only, in which every port is free."""
    name = f"docpreview-{os.urandom(4).hex()}"
    command("ip", "netns", "add", name)
    try:
        command("ip", "-n", name, "link", "set", "lo", "up")
        yield name
    finally:
        command("ip", "netns", "delete", name)


@dataclass
class Image:
    """A built image: its configuration and its files."""

    name: str
    root: Path
    details: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.details = json.loads(command("buildah", "inspect", "--type", "image", self.name))

    @property
    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = self.details["Docker"]["config"]
        return found


@dataclass
class Container:
    """A running container; `exec` runs a command in it under the same rules."""

    name: str
    pid: int
    state: Path
    log: Path

    def exec(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["runc", "--root", str(self.state), "exec", self.name, *words],  # noqa: S607 - found on the PATH
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def healthy(self, test: list[str], *, within: float) -> bool:
        """Whether the image's own health check succeeds in time."""
        end = time.monotonic() + within
        while time.monotonic() < end and self.running():
            if self.exec(*test).returncode == 0:
                return True
        return False

    def running(self) -> bool:
        return Path(f"/proc/{self.pid}").exists()

    def status(self) -> dict[str, str]:
        """`/proc/PID/status` of its first process."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return dict(line.split(":\t", 1) for line in lines if ":\t" in line)

    def ended(self, *, within: float) -> bool:
        """Whether it exits by itself in time."""
        end = time.monotonic() + within
        while self.running() and time.monotonic() < end:
            time.sleep(0.05)
        return not self.running()

    def stopped(self, *, within: float) -> bool:
        """Send SIGTERM; whether it exits in time."""
        os.kill(self.pid, signal.SIGTERM)
        return self.ended(within=within)


@dataclass(frozen=True)
class Run:
    """Parameters of a container. `command` and `arguments` replace those of the image, as in a pod."""

    network: str
    environment: dict[str, str] = field(default_factory=dict)
    mounts: tuple[Any, ...] = ()
    command: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()


@contextmanager
def running(image: Image, folder: Path, run: Run) -> Iterator[Container]:
    """A running container; it is killed at the end."""
    bundle = folder / f"bundle-{os.urandom(4).hex()}"
    bundle.mkdir()
    command("runc", "spec", "--bundle", bundle)
    path = bundle / "config.json"
    path.write_text(json.dumps(_hardened(json.loads(path.read_text()), image, run)))
    state, name = bundle / "state", bundle.name
    with (bundle / "log").open("wb") as log:
        words = ["runc", "--root", str(state), "run", "--detach", "--pid-file", str(bundle / "pid")]
        started = subprocess.run([*words, "--bundle", str(bundle), name], check=False, stdout=log, stderr=log)
    assert started.returncode == 0, (bundle / "log").read_text()
    try:
        yield Container(name, int((bundle / "pid").read_text()), state, bundle / "log")
    finally:
        with contextlib.suppress(AssertionError):
            command("runc", "--root", state, "delete", "--force", name)


def _hardened(spec: dict[str, Any], image: Image, run: Run) -> dict[str, Any]:
    user, _, group = image.config["User"].partition(":")
    own = [] if run.command else image.config["Cmd"]
    spec["root"] = {"path": str(image.root), "readonly": True}
    spec["process"] |= {
        "terminal": False,
        "user": {"uid": int(user), "gid": int(group)},
        "args": [*(run.command or image.config["Entrypoint"]), *(run.arguments or own)],
        "cwd": image.config["WorkingDir"],
        "env": [*image.config["Env"], *(f"{name}={value}" for name, value in run.environment.items())],
        "capabilities": {kind: [] for kind in spec["process"]["capabilities"]},
        "noNewPrivileges": True,
    }
    for namespace in spec["linux"]["namespaces"]:
        if namespace["type"] == "network":
            namespace["path"] = f"/run/netns/{run.network}"
    spec["linux"].pop("resources", None)
    spec["mounts"] += [TMP, *run.mounts]
    return spec


def bound(source: Path, destination: str, *, writable: bool = False) -> dict[str, Any]:
    """A mount of a file or folder of this machine."""
    options = ["rbind", "rw" if writable else "ro"]
    return {"destination": destination, "type": "bind", "source": str(source), "options": options}


def tools() -> None:
    """Skip the test where images cannot be built and run."""
    for name in ("buildah", "runc", "ip"):
        if shutil.which(name) is None:
            missing(f"{name} is not installed")
    if os.geteuid() != 0:
        missing("containers are run by root here (or within `buildah unshare`)")
    found = subprocess.run(["buildah", "inspect", "--type", "image", BASE], check=False, capture_output=True)  # noqa: S607
    if found.returncode != 0:
        pulled = subprocess.run(["buildah", "pull", "-q", BASE], check=False, capture_output=True, timeout=300)  # noqa: S607
        if pulled.returncode != 0:
            missing(f"the base image {BASE} is neither here nor can it be pulled (IMAGE_BASE names another)")
