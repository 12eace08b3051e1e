"""What `make dist` makes: the images as OCI archives, run from there, and the chart as a registry has it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from release import oci
from tests.documents.blocks import run_by
from tests.documents.session import commands
from tests.image.composed import composed, healthcheck
from tests.image.containers import BASE, Image, Run, bound, command, missing, network, running, tools
from tests.image.containers import working_container as container_of
from tests.packaging.project import ROOT, pyproject
from tests.programs import need

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

VERSION = pyproject()["project"]["version"]
BUCKET, REGION = "examplebucket-1250000000", "ap-chongqing"
PYTHON = "/opt/docpreview/bin/python"
UPLOAD = """
import sys, urllib.request
data = open(sys.argv[2], "rb").read()
urllib.request.urlopen(urllib.request.Request(sys.argv[1], data, method="PUT"))
"""


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make dist` makes of the last commit."""
    tools()
    for name in ("helm", "crane"):
        need(name)
    folder = tmp_path_factory.mktemp("dist")
    made = subprocess.run(
        [sys.executable, "-m", "release", "--into", str(folder), "python", "images", "chart"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if made.returncode != 0:
        missing(f"make dist fails here ({made.stderr.strip().splitlines()[-1]})")
    return folder


def archive_of(dist: Path, target: str) -> Path:
    return dist / "images" / f"docpreview-{target}-{VERSION}.oci.tar"


def unpacked(dist: Path, target: str) -> Iterator[Image]:
    """The archive's image with its files."""
    name = command("buildah", "pull", "-q", f"oci-archive:{archive_of(dist, target)}")
    with container_of(name) as (_, root):
        yield Image(name, root)


@pytest.fixture(scope="module")
def gateway(dist: Path) -> Iterator[Image]:
    yield from unpacked(dist, "gateway")


@pytest.fixture(scope="module")
def emulator(dist: Path) -> Iterator[Image]:
    yield from unpacked(dist, "emulator")


@pytest.fixture
def alone() -> Iterator[str]:
    with network() as name:
        yield name


def test_the_gateways_archive_starts_the_gateway(gateway: Image, alone: str, tmp_path: Path) -> None:
    """`docpreview-gateway --help`, as 65532 on a read-only root."""
    with running(gateway, tmp_path, Run(alone, arguments=("--help",))) as container:
        assert container.ended(within=30)
    said = container.log.read_text()
    assert "docpreview-gateway" in said
    assert "check-config" in said


def test_every_file_has_its_checksum(dist: Path) -> None:
    """Wheels, source archives, images, their SBOMs and the chart."""
    lines = (dist / "SHA256SUMS").read_text().splitlines()
    names = {Path(line.split("  ")[1]).name.replace(VERSION, "V") for line in lines}
    assert names >= {
        "docpreview_gateway-V-py3-none-any.whl",
        "docpreview_gateway-V.tar.gz",
        "docpreview_client-V-py3-none-any.whl",
        "docpreview_protos-V-py3-none-any.whl",
        "docpreview-gateway-V.oci.tar",
        "docpreview-gateway-V.cdx.json",
        "docpreview-emulator-V.oci.tar",
        "docpreview-emulator-V.cdx.json",
        "docpreview-gateway-V.tgz",
        "docpreview-gateway-chart-V.oci.tar",
    }
    command("env", "-C", dist, "sha256sum", "--check", "--quiet", "SHA256SUMS")


def test_the_folder_has_what_is_delivered_and_nothing_else(dist: Path) -> None:
    """Clone, registry and lists of the work are beside it."""
    lines = (dist / "SHA256SUMS").read_text().splitlines()
    delivered = {line.split("  ")[1] for line in lines} | {"SHA256SUMS"}
    assert {str(path.relative_to(dist)) for path in dist.rglob("*") if path.is_file()} == delivered


def test_the_wheels_are_installed_as_the_document_says(dist: Path, tmp_path: Path) -> None:
    """Into an empty folder, with the versions of the images."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "dist").symlink_to(dist)
    (tmp_path / "requirements").symlink_to(ROOT / "requirements")
    (block,) = run_by("tests/image/test_dist.py::test_the_wheels_are_installed_as_the_document_says")
    said = [command("env", "-C", tmp_path, "bash", "-c", words) for words, _ in commands(block.text)]
    assert said[-1] == f"docpreview-gateway {VERSION}"


@pytest.mark.parametrize("target", ["gateway", "emulator"])
def test_the_sbom_names_what_is_in_the_image(target: str, dist: Path, request: pytest.FixtureRequest) -> None:
    """Debian's packages with their versions, the interpreter, and distributions with hashes."""
    image: Image = request.getfixturevalue(target)
    found = json.loads((dist / "images" / f"docpreview-{target}-{VERSION}.cdx.json").read_text())["components"]
    of_debian = {(part["name"], part["version"]) for part in found if part["purl"].startswith("pkg:deb/debian/")}
    listed = command(
        "dpkg-query", "--admindir", image.root / "var/lib/dpkg", "--show", "--showformat=${Package} ${Version}\\n"
    )
    assert of_debian == {tuple(line.split(" ")) for line in listed.splitlines()}
    assert [part["type"] for part in found if part["name"] == "python"] == ["platform"]
    of_python = [part for part in found if part["purl"].startswith("pkg:pypi/")]
    assert len(of_python) > 10
    assert [part["name"] for part in of_python if not _hashes(part)] == []


def _hashes(part: dict[str, Any]) -> list[Any]:
    return [each for reference in part["externalReferences"] for each in reference.get("hashes", [])]


@pytest.mark.parametrize("target", ["gateway", "emulator"])
def test_a_registry_has_the_image_by_the_digest_of_its_archive(target: str, dist: Path, tmp_path: Path) -> None:
    """A real registry on loopback; the archive is unpacked and pushed as docs/releasing.md says."""
    command("tar", "-xf", archive_of(dist, target), "-C", tmp_path)
    (manifest,) = json.loads((tmp_path / "index.json").read_text())["manifests"]
    with oci.registry(tmp_path / "registry") as host:
        place = f"{host}/docpreview-{target}:{VERSION}"
        command(need("crane"), "push", "--insecure", tmp_path, place)
        assert command(need("crane"), "digest", "--insecure", place) == manifest["digest"]


@pytest.mark.parametrize("target", ["gateway", "emulator"])
def test_an_image_has_the_authorities_of_its_base(target: str, request: pytest.FixtureRequest) -> None:
    """Whatever the build was given as secrets."""
    image: Image = request.getfixturevalue(target)
    authorities = "etc/ssl/certs/ca-certificates.crt"
    with container_of(BASE) as (_, base):
        assert (image.root / authorities).read_bytes() == (base / authorities).read_bytes()


def test_the_emulators_image_has_fonts_for_chinese_japanese_and_korean(
    emulator: Image, alone: str, tmp_path: Path
) -> None:
    """Else their characters would be empty boxes in the pages."""
    for language in ("zh-cn", "zh-tw", "ja", "ko"):
        words = Run(alone, command=("/usr/bin/fc-match",), arguments=(f":lang={language}", "family"))
        with running(emulator, tmp_path, words) as container:
            assert container.ended(within=60)
        assert "Noto" in container.log.read_text(), language


def test_the_trial_of_compose_previews_slides(gateway: Image, emulator: Image, alone: str, tmp_path: Path) -> None:
    """The services of compose.yaml from the archives: a presentation goes in, and its pages come out."""
    cloud, served = (composed(service, alone, tmp_path) for service in ("emulator", "gateway"))
    cloud = replace(cloud, mounts=(*cloud.mounts, bound(ROOT / "examples", "/examples")))
    with running(emulator, tmp_path, cloud) as one, running(gateway, tmp_path, served) as two:
        assert one.healthy(healthcheck("emulator"), within=60), one.log.read_text()
        assert two.healthy(healthcheck("gateway"), within=60), two.log.read_text()
        place = f"http://127.0.0.1:8089/_emulator/upload/{BUCKET}.cos.{REGION}.myqcloud.com/a.pptx"
        stored = one.exec(PYTHON, "-c", UPLOAD, place, "/examples/normal.pptx")
        assert stored.returncode == 0, stored.stderr
        words = ("preview", "a.pptx", "--bucket", BUCKET, "--pages", "/tmp/pages", "--timeout", "110")  # noqa: S108
        done = two.exec("/opt/docpreview/bin/docpreview", *words)
        assert done.returncode == 0, done
        pages = two.exec(PYTHON, "-c", "import glob; print(len(glob.glob('/tmp/pages/*')))")
        assert pages.stdout.strip() == "4"
