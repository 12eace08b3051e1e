"""The chart as a release has it: an archive, and the same in the OCI layout, which a registry gives back unchanged."""

from __future__ import annotations

import hashlib
import sys
import tarfile
from typing import TYPE_CHECKING

from release import oci
from tests.chart.helm import RELEASE, helm, values_of
from tests.packaging.project import ROOT, pyproject, run
from tests.programs import need

if TYPE_CHECKING:
    from pathlib import Path

VERSION = pyproject()["project"]["version"]


def test_a_registry_gives_the_chart_back_as_it_was_and_helm_installs_it_from_there(tmp_path: Path) -> None:
    """A real registry on loopback; the archive in the OCI layout is put into it by crane."""
    crane = need("crane")
    need("helm")
    into = tmp_path / "out"
    made = run(sys.executable, "-m", "release", "--into", into, "chart", cwd=ROOT)
    assert made.returncode == 0, made.stderr
    chart = into / "chart" / f"docpreview-gateway-{VERSION}.tgz"
    archive = into / "chart" / f"docpreview-gateway-chart-{VERSION}.oci.tar"
    assert {path for path in into.rglob("*") if path.is_file()} == {chart, archive, into / "SHA256SUMS"}
    with oci.opened(archive) as found:
        assert found.manifest["config"]["mediaType"] == "application/vnd.cncf.helm.config.v1+json"
        assert [layer["digest"] for layer in found.manifest["layers"]] == [f"sha256:{_hash(chart)}"]
    with tarfile.open(archive) as layout:
        layout.extractall(tmp_path / "layout", filter="data")
    with oci.registry(tmp_path / "another") as host:
        pushed = run(crane, "push", "--insecure", tmp_path / "layout", f"{host}/charts/docpreview-gateway:{VERSION}")
        assert pushed.returncode == 0, pushed.stderr
        where = (f"oci://{host}/charts/docpreview-gateway", "--version", VERSION, "--plain-http")
        assert helm("pull", *where, "--destination", str(tmp_path)).returncode == 0
        rendered = helm("template", RELEASE, *where, "--values", str(values_of("minimal")))
    assert _hash(tmp_path / chart.name) == _hash(chart)
    assert "kind: Deployment" in rendered.stdout, rendered.stderr


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
