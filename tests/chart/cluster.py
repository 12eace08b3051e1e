"""A real API server of Kubernetes with its etcd, on loopback. It has no controllers and no nodes, so no pod is started.

`make apiserver` builds both from their Go modules, tests/chart/apiserver/go.mod.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import time
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trustme
import yaml

from tests.edge_process import free_port
from tests.packaging.project import ROOT
from tests.programs import need

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.chart.helm import Manifest

BUILT = ROOT / "build" / "apiserver"
TOKEN = "token-of-the-administrator"
DEFINITIONS = (
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd/*_servicemonitors.yaml",
    ),
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd/*_prometheusrules.yaml",
    ),
    ("sigs.k8s.io/gateway-api@v1.6.3", "config/crd/standard/*_grpcroutes.yaml"),
    ("github.com/cert-manager/cert-manager@v1.21.2", "deploy/crds/*_certificates.yaml"),
)
"""Modules with the definitions of the custom kinds that the chart makes, and the files in them."""


class Cluster:
    """The API of a server; `kubeconfig` is for helm."""

    def __init__(self, url: str, trust: ssl.SSLContext, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self._client = httpx.Client(
            base_url=url, verify=trust, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False, timeout=30
        )

    def close(self) -> None:
        self._client.close()

    def get(self, path: str) -> httpx.Response:
        return self._client.get(path)

    def until(self, path: str, process: subprocess.Popen[bytes] | None = None) -> None:
        """Wait until a path is answered with 200, a minute at most."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            assert process is None or process.poll() is None, "the server has ended"
            try:
                if self.get(path).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"{path} is not answered with 200")

    def create(self, found: Manifest, *, dry: bool = False) -> httpx.Response:
        """The answer to the creation of an object; misspelt and doubled fields are errors."""
        options = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry else {})
        return self._client.post(self.place(found), json=found, params=options)

    def place(self, found: Manifest) -> str:
        """The path of all objects of this kind, in the object's namespace."""
        group = found["apiVersion"]
        root = f"/api/{group}" if "/" not in group else f"/apis/{group}"
        (kind,) = [
            each
            for each in self.get(root).json()["resources"]
            if each["kind"] == found["kind"] and "/" not in each["name"]
        ]
        namespace = f"/namespaces/{found['metadata']['namespace']}" if kind["namespaced"] else ""
        return f"{root}{namespace}/{kind['name']}"


def program(name: str) -> str:
    """Its path. Where it is not built the test is skipped."""
    path = BUILT / name
    if not path.exists():
        pytest.skip(f"{name} is not built: make apiserver")
    return str(path)


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster with the definitions of custom kinds, until the block ends."""
    client, port = f"http://127.0.0.1:{free_port()}", free_port()
    words = _etcd(folder, client), _server(folder, client, port)
    authority = trustme.CA()
    _write_certificates(folder, authority)
    (folder / "tokens.csv").write_text(f"{TOKEN},administrator,1,system:masters\n")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    url = f"https://127.0.0.1:{port}"
    cluster = Cluster(url, trust, _kubeconfig(folder, url))
    started = list[subprocess.Popen[bytes]]()
    with (folder / "log").open("wb") as log:
        try:
            started += [subprocess.Popen(line, stdout=log, stderr=log, cwd=folder) for line in words]
            cluster.until("/readyz", started[-1])
            for found in _definitions():
                _define(cluster, found)
            yield cluster
        except AssertionError as error:
            error.add_note((folder / "log").read_text()[-2000:])
            raise
        finally:
            cluster.close()
            for process in reversed(started):
                process.kill()
                process.wait()


def _etcd(folder: Path, client: str) -> list[str]:
    peers = f"http://127.0.0.1:{free_port()}"
    flags = {
        "data-dir": folder / "etcd",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peers,
        "initial-advertise-peer-urls": peers,
        "initial-cluster": f"default={peers}",
        "unsafe-no-fsync": "true",
        "log-level": "error",
    }
    return [program("etcd"), *(f"--{name}={value}" for name, value in flags.items())]


def _server(folder: Path, client: str, port: int) -> list[str]:
    flags = {
        "etcd-servers": client,
        "bind-address": "127.0.0.1",
        "secure-port": port,
        "cert-dir": folder,
        "tls-cert-file": folder / "tls.crt",
        "tls-private-key-file": folder / "tls.key",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": folder / "tls.key",
        "service-account-signing-key-file": folder / "tls.key",
        "token-auth-file": folder / "tokens.csv",
        "authorization-mode": "RBAC",
        "service-cluster-ip-range": "10.0.0.0/24",
        "endpoint-reconciler-type": "none",
    }
    return [program("kube-apiserver"), *(f"--{name}={value}" for name, value in flags.items())]


def _write_certificates(folder: Path, authority: trustme.CA) -> None:
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(folder / "tls.crt"))
    issued.private_key_pem.write_to_path(str(folder / "tls.key"))
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))


def _kubeconfig(folder: Path, url: str) -> Path:
    path = folder / "kubeconfig"
    server = {"server": url, "certificate-authority": str(folder / "ca.crt")}
    configuration = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "it", "cluster": server}],
        "users": [{"name": "it", "user": {"token": TOKEN}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        "current-context": "it",
    }
    path.write_text(json.dumps(configuration))
    return path


def _define(cluster: Cluster, found: dict[str, Any]) -> None:
    made = cluster.create(found)
    assert made.is_success, made.text
    names = found["spec"]["names"]
    for version in found["spec"]["versions"]:
        if version["served"]:
            cluster.until(f"/apis/{found['spec']['group']}/{version['name']}/{names['plural']}")


@cache
def _definitions() -> list[dict[str, Any]]:
    found = list[dict[str, Any]]()
    for module, pattern in DEFINITIONS:
        done = subprocess.run(
            [need("go"), "mod", "download", "-json", module], check=False, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (path,) = Path(json.loads(done.stdout)["Dir"]).glob(pattern)
        found += [each for each in yaml.safe_load_all(path.read_text()) if each]
    return found
