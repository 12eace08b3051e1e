"""Tests of built and running images: uid 65532, read-only root, no shell."""

from __future__ import annotations

import gzip
import json
import os
import re
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509

from tests.chart.helm import manifests, one, rendered
from tests.chart.mounts import LEDGER_KEY
from tests.conformance.callers import Authority
from tests.image.containers import (
    BASE,
    Container,
    Image,
    Run,
    bound,
    build,
    command,
    network,
    running,
    shell_less,
    tools,
)
from tests.image.containers import working_container as container_of
from tests.image.installed import Installed, store
from tests.packaging.project import ROOT, pyproject

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

BUCKET, REGION = "examplebucket-1250000000", "ap-chongqing"
KEYS = {"main": {"secret_id": "example-secret-id", "secret_key": "EXAMPLEsecretKEY00000000000000000"}}
VERSION = pyproject()["project"]["version"]
MEGABYTE = 10**6
GRACE_SECONDS = 5.0
PYTHON = "/opt/docpreview/bin/python"
UPLOAD = """
import sys, urllib.request
data = open(sys.argv[2], "rb").read()
urllib.request.urlopen(urllib.request.Request(sys.argv[1], data, method="PUT"))
"""


@contextmanager
def built(target: str, *arguments: str) -> Iterator[Image]:
    prefix = f"localhost/test-{os.urandom(4).hex()}"
    build("IMAGE_BUILDER=buildah", f"IMAGE_TARGETS={target}", f"IMAGE_PREFIX={prefix}", *arguments)
    name = f"{prefix}-{target}:{VERSION}"
    try:
        with container_of(name) as (_, root):
            yield Image(name, root)
    finally:
        command("buildah", "rmi", "-f", name)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Image]:
    """The gateway's image on a base without a shell."""
    tools()
    with shell_less(BASE) as base, built("gateway", f"IMAGE_RUNTIME={base}") as image:
        yield image


@pytest.fixture(scope="module")
def emulator() -> Iterator[Image]:
    """The emulator's image without LibreOffice; tests/image/test_dist.py has the other one."""
    tools()
    with built("emulator", f"IMAGE_BUILD_ARGS={os.environ.get('IMAGE_BUILD_ARGS', '')} --build-arg OFFICE=no") as image:
        yield image


@pytest.fixture
def alone() -> Iterator[str]:
    with network() as name:
        yield name


def configured(name: str) -> Run:
    """A gateway with a minimal configuration, whose cloud does not answer."""
    environment = {
        "DOCPREVIEW_CONFIG": "",
        "DOCPREVIEW_STATE_DIR": "/tmp/state",  # noqa: S108 - in the container
        "DOCPREVIEW_BUCKETS": json.dumps([{"name": BUCKET, "region": REGION, "credentials": "main"}]),
        "DOCPREVIEW_CREDENTIALS": json.dumps(KEYS),
        "DOCPREVIEW_UPSTREAM__ENDPOINT": "http://127.0.0.1:9",
        "DOCPREVIEW_DRAIN__DELAY_SECONDS": "0.5",
        "DOCPREVIEW_DRAIN__GRACE_SECONDS": str(GRACE_SECONDS),
    }
    return Run(name, environment)


@contextmanager
def serving(image: Image, folder: Path, run: Run) -> Iterator[Container]:
    """A container whose health check succeeds."""
    with running(image, folder, run) as container:
        ready = container.healthy(image.config["Healthcheck"]["Test"][1:], within=60)
        assert ready, container.log.read_text()
        yield container


def test_the_container_is_healthy_as_65532_without_capabilities_writable_root_or_shell(
    gateway: Image, alone: str, tmp_path: Path
) -> None:
    """Uid and gid are 65532."""
    with serving(gateway, tmp_path, configured(alone)) as container:
        status = container.status()
        print(f"\nuid {status['Uid'].split()[0]}, gid {status['Gid'].split()[0]}")  # noqa: T201 - part of the evidence
        assert set(status["Uid"].split()) == set(status["Gid"].split()) == {"65532"}
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        for place in ("/x", "/opt/docpreview/x", "/etc/x"):
            refused = container.exec(PYTHON, "-c", f"open({place!r}, 'w')")
            assert "Read-only file system" in refused.stderr
        assert container.exec("/bin/sh", "-c", "true").returncode != 0


def test_sigterm_stops_the_container_within_drain_delay_and_grace(gateway: Image, alone: str, tmp_path: Path) -> None:
    """The log ends with `stopped`."""
    with serving(gateway, tmp_path, configured(alone)) as container:
        assert container.stopped(within=GRACE_SECONDS + 2)
        assert json.loads(container.log.read_text().splitlines()[-1])["event"] == "stopped"


def test_the_charts_emulator_installation_renders_a_document(
    gateway: Image, emulator: Image, alone: str, tmp_path: Path
) -> None:
    """The pods of `ci/emulator-values.yaml` with their commands, variables and files, and a real Redis as trial store.

    `helm test` passes, and an uploaded document is rendered for a caller.
    """
    installed = Installed("emulator", network=alone, folder=tmp_path)
    with store(alone, tmp_path), serving(emulator, tmp_path, installed.run("Deployment", "-emulator")) as cloud:
        document = f"http://127.0.0.1:8089/_emulator/upload/{BUCKET}.cos.{REGION}.myqcloud.com/a.pdf"
        assert cloud.exec(PYTHON, "-c", UPLOAD, document, "/examples/seven-pages.pdf").stderr == ""
        with serving(gateway, tmp_path, installed.run("Deployment")) as served:
            with running(gateway, tmp_path, installed.run("Pod", "-test")) as test:
                assert test.ended(within=60)
            assert test.log.read_text() == "No jobs.\n"
            preview = ("preview", "a.pdf", "--bucket", BUCKET, "--pages", "/tmp/pages")  # noqa: S108 - in the container
            done = served.exec("/opt/docpreview/bin/docpreview", *preview, "--timeout", "60")
            assert done.returncode == 0, done
            pages = served.exec(PYTHON, "-c", "import glob; print(len(glob.glob('/tmp/pages/*')))")
            assert pages.stdout.strip() == "7"


def test_the_charts_production_installation_serves_with_mtls_policy_and_shared_state(
    gateway: Image, emulator: Image, alone: str, tmp_path: Path
) -> None:
    """The pod of `ci/production-values.yaml` with its Secrets; without the edge, whose image cannot be built here.

    `helm test` passes with a caller's certificate, and other callers are refused. Only the cloud is emulated.
    """
    endpoint = ("--set", "config.upstream.endpoint=http://127.0.0.1:8089,edge.enabled=false")
    secrets = production_secrets(tmp_path, *endpoint)
    installed = Installed("production", *endpoint, network=alone, folder=tmp_path, secrets=secrets)
    volume = tmp_path / "objects"
    volume.mkdir()
    os.chown(volume, 65532, 65532)
    home = bound(volume, "/var/lib/docpreview", writable=True)
    with (
        store(alone, tmp_path),
        serving(emulator, tmp_path, Run(alone, mounts=(home,))),
        serving(gateway, tmp_path, installed.run("Deployment")),
    ):
        caller = installed.run("Pod", "-test")
        with running(gateway, tmp_path, caller) as test:
            assert test.ended(within=60)
        assert test.log.read_text() == "No jobs.\n"
        anonymous = [word for word in caller.arguments if not word.startswith(("--cert", "--key"))]
        with running(gateway, tmp_path, replace(caller, arguments=tuple(anonymous))) as test:
            assert test.ended(within=60)
        assert "No jobs." not in test.log.read_text()


def production_secrets(folder: Path, *options: str) -> dict[str, dict[str, str]]:
    """The Secrets before `helm install`; the server's certificate has the names of the cert-manager Certificate."""
    authority = Authority(folder, "corp")
    names = one(manifests(rendered("production", *options)), "Certificate")["spec"]["dnsNames"]
    server = authority.issue(*(x509.DNSName(name) for name in names))
    client = authority.issue(x509.UniformResourceIdentifier("spiffe://corp.example/ns/billing/sa/docs"))

    def pair(paths: dict[str, str]) -> dict[str, str]:
        return {
            "tls.crt": Path(paths["certificate_chain"]).read_text(),
            "tls.key": Path(paths["private_key"]).read_text(),
        }

    trusted = {"ca.crt": authority.path.read_text()}
    address = "redis://127.0.0.1:6379/0"
    return {
        "docpreview-cloud-keys": {"cloud.yaml": json.dumps(KEYS["main"])},
        "preview-docpreview-gateway-tls": pair(server) | trusted,
        "corp-ca": trusted,
        "docpreview-redis": {"url": address, "ledger-url": address},
        "docpreview-ledger": {"ledger.key": LEDGER_KEY},
        "docpreview-test-client": pair(client),
    }


def test_the_image_contains_only_what_serves(gateway: Image) -> None:
    """No emulator, renderer, installer, compiler, tests or source checkout."""
    names = {path.name for path in (gateway.root / "opt/docpreview").glob("lib/python3*/site-packages/*")}
    unwanted = (
        r"docpreview_emulator|pypdfium2.*|PIL|pillow.*|pip.*|setuptools.*|hatchling.*|editables.*|pytest.*|mypy.*|uv"
    )
    assert sorted(name for name in names if re.fullmatch(unwanted, name)) == []
    assert {"docpreview", "docpreview_gateway", "docpreview_client"} <= names
    assert not list((gateway.root / "opt/docpreview").rglob("conftest.py"))
    commands = {path.name for path in (gateway.root / "opt/docpreview/bin").iterdir() if not path.is_symlink()}
    assert commands == {"docpreview", "docpreview-gateway"}
    assert not (gateway.root / "src").exists()


def test_the_image_config_has_oci_labels_stop_signal_user_and_ports(gateway: Image) -> None:
    """Commands are in exec form."""
    labels = gateway.config["Labels"]
    assert labels["org.opencontainers.image.title"] == "docpreview-gateway"
    assert labels["org.opencontainers.image.version"] == VERSION
    assert labels["org.opencontainers.image.revision"] == command("git", "rev-parse", "HEAD")
    assert gateway.config["StopSignal"] == "SIGTERM"
    assert gateway.config["User"] == "65532:65532"
    assert set(gateway.config["ExposedPorts"]) == {"50051/tcp", "9464/tcp"}
    assert gateway.config["Healthcheck"]["Test"][0] == "CMD"


def test_the_layer_on_the_base_is_small_and_as_large_as_the_document_says(gateway: Image, tmp_path: Path) -> None:
    """Below 150 MB, and 50 MB compressed, as a registry has it; docs/deploy.md is at most a tenth off."""
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    command("buildah", "push", gateway.name, f"oci:{tmp_path / 'layout'}:gateway")
    (image,) = json.loads((tmp_path / "layout" / "index.json").read_text())["manifests"]
    layer = json.loads((blobs / _digest(image)).read_text())["layers"][-1]
    with gzip.open(blobs / _digest(layer)) as file:
        size = file.seek(0, os.SEEK_END)
    sizes = size / MEGABYTE, layer["size"] / MEGABYTE
    print("\nlayer on the base: {:.0f} MB, {:.0f} MB compressed".format(*sizes))  # noqa: T201 - part of the evidence
    assert sizes[0] < 150
    assert sizes[1] < 50
    said = re.search(r"(\d+) MB on top of the base image, (\d+) MB compressed", (ROOT / "docs/deploy.md").read_text())
    assert said is not None
    assert [int(number) for number in said.groups()] == [pytest.approx(found, rel=0.1) for found in sizes]


def _digest(blob: dict[str, Any]) -> str:
    return str(blob["digest"]).removeprefix("sha256:")


def test_the_sbom_names_exactly_the_distributions_of_the_image(gateway: Image, tmp_path: Path) -> None:
    """With their versions; ours are what it is the SBOM of."""
    command("make", "sbom", f"SBOM_DIR={tmp_path}")
    components = json.loads((tmp_path / "sbom-gateway.cdx.json").read_text())["components"]
    named = {(_plain(part["name"]), part["version"]) for part in components}
    folders = gateway.root.glob("opt/docpreview/lib/python3*/site-packages/*.dist-info")
    found = {tuple(folder.name.removesuffix(".dist-info").rsplit("-", 1)) for folder in folders}
    installed = {(_plain(name), version) for name, version in found}
    assert {part for part in installed if not part[0].startswith("docpreview-")} == named


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
