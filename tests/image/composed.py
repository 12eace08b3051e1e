"""The services of compose.yaml as local containers, with their variables and volumes.

Their names are loopback of the test's own network, and ports are not published; nothing else of Compose is simulated.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import yaml

from tests.image.containers import Run, bound
from tests.packaging.project import ROOT

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = 65532
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


def healthcheck(service: str) -> list[str]:
    """The command that tells whether a container of the service is healthy."""
    kind, *words = SERVICES[service]["healthcheck"]["test"]
    assert kind == "CMD"
    return [str(word) for word in words]


def composed(service: str, network: str, folder: Path) -> Run:
    """Parameters of the service's container; its named volumes are new folders."""
    hosts = folder / "hosts"
    hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", *SERVICES)))
    found = SERVICES[service]
    mounts = [_mounted(*volume.split(":"), folder=folder) for volume in found["volumes"]]
    environment = {name: str(value) for name, value in found.get("environment", {}).items()}
    return Run(network, environment, (bound(hosts, "/etc/hosts"), *mounts))


def _mounted(source: str, place: str, mode: str = "rw", *, folder: Path) -> dict[str, Any]:
    if source.startswith("./"):
        return bound(ROOT / source, place, writable=mode != "ro")
    made = folder / f"{source}-{os.urandom(4).hex()}"
    made.mkdir()
    os.chown(made, NOBODY, NOBODY)  # a new volume has the owner of the image's folder
    return bound(made, place, writable=True)
