"""docs/configuration.md: the file on one page, with the files that it names, is one that the gateway serves with."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.edge_process import free_port
from tests.examples.production import Deployment, deployed
from tests.integration.gateway_processes import page, running
from tests.packaging.project import tool
from tests.packaging.test_configuration_document import example
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = {
    "cloud-keys.yaml": "secrets/cloud-keys.yaml",
    "cloud-writer.yaml": "secrets/cloud-writer.yaml",
    "build-jwks.json": "secrets/jwks.json",
    "policy.yaml": "policy.yaml",
    "tls.crt": "secrets/gateway.crt",
    "tls.key": "secrets/gateway.key",
    "clients-ca.crt": "secrets/clients-ca.crt",
    "clients.crl": "secrets/clients.crl",
    "ledger.key": "secrets/ledger.key",
}
"""Files of /etc/docpreview, and those of examples/production that are such files."""


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """With all secrets, and nothing that runs."""
    with deployed(tmp_path) as found:
        found.run("./secrets.sh make", "python issuer.py new-key 2026-11")
        yield found


@pytest.fixture
def configuration(deployment: Deployment) -> Path:
    """The page as a file, in a folder in the place of /etc/docpreview, with all files that it names."""
    folder = deployment.checkout / "etc"
    (folder / "edge").mkdir(parents=True)
    text = example().replace("/etc/docpreview", str(folder)).replace("/var/lib/docpreview", str(folder / "state"))
    named = set(re.findall(re.escape(str(folder)) + r"/([\w.-]+)", text))
    assert named - {"state", "edge"} == FILES.keys()
    for name, source in FILES.items():
        shutil.copy(deployment.folder / source, folder / name)
    path = folder / "gateway.yaml"
    path.write_text(text)
    return path


def move(configuration: Path, redis: int) -> None:
    """Have it listen on free ports, and use a Redis of this machine."""
    text = re.sub(r"(cache|ledger)\.example\.com:6379", f"127.0.0.1:{redis}", configuration.read_text())
    for port in ("50050", "9464"):
        text = text.replace(port, str(free_port()))
    configuration.write_text(text)


def test_check_config_finds_neither_a_mistake_nor_a_warning(deployment: Deployment, configuration: Path) -> None:
    """In the file itself, and in all files that it names. Its ports may be in use here."""
    assert deployment.run(f"docpreview-gateway check-config --elsewhere --config {configuration}").splitlines() == [
        "ok: 3 caller(s)",
        "ok: 2 bucket(s), gRPC on 127.0.0.1:50050, admin on 0.0.0.0:9464",
    ]


def test_envoy_takes_what_edge_config_makes_of_it(deployment: Deployment, configuration: Path) -> None:
    folder = configuration.parent / "edge"
    started = deployment.run(f"docpreview-gateway edge-config {folder} --config {configuration}").split()
    assert started[0] == "envoy"
    done = subprocess.run(
        [tool("envoy"), *started[1:], "--mode", "validate"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
async def test_gateway_serves_with_it(configuration: Path, tmp_path: Path) -> None:
    """With one Redis in the place of two; the issuer and the collector do not answer."""
    password = "example-password"
    with running_redis(tmp_path, "--requirepass", password, "--appendonly", "yes", "--appendfsync", "always") as redis:
        move(configuration, redis.port)
        async with running(configuration) as gateway:
            assert await page(gateway.admin_port, "/readyz") == (200, "ready\n")
