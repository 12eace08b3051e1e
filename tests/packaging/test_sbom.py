"""The parts of an image that its SBOM names besides Python distributions, read from an archive's layers."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

from release import oci, sbom

if TYPE_CHECKING:
    from pathlib import Path

STATUS = """Package: {name}
Status: {status}
Architecture: amd64
Version: {version}
Description: a package
 Version: is no field here

"""
BASE = {
    "var/lib/dpkg/status": STATUS.format(name="zlib1g", status="install ok installed", version="1:1.2.13+x-1"),
    "usr/lib/os-release": 'ID=debian\nVERSION_ID="12"\n',
}
ADDED = {
    "./var/lib/dpkg/status": BASE["var/lib/dpkg/status"]
    + STATUS.format(name="fonts-noto-cjk", status="install ok installed", version="1:20220127+repack1-1")
    + STATUS.format(name="removed", status="deinstall ok config-files", version="1"),
    "opt/docpreview/pyvenv.cfg": "home = /usr/bin\nversion = 3.11.2\n",
}


def _tar(files: dict[str, str | bytes]) -> bytes:
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w") as tar:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return found.getvalue()


def archive(path: Path, *layers: dict[str, str]) -> Path:
    """An image with these layers."""
    files = dict[str, str | bytes]()

    def blob(content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        files[f"blobs/sha256/{digest}"] = content
        return {"digest": f"sha256:{digest}"}

    config = blob(json.dumps({"config": {"User": "65532:65532"}}).encode())
    manifest = {"config": config, "layers": [blob(_tar(dict(layer))) for layer in layers]}
    files["index.json"] = json.dumps({"manifests": [blob(json.dumps(manifest).encode())]})
    path.write_bytes(_tar(files))
    return path


def test_the_sbom_has_the_interpreter_and_the_installed_packages_of_the_last_layer(tmp_path: Path) -> None:
    """Versions with an epoch or a plus are quoted in the package's URL."""
    found = sbom.parts(archive(tmp_path / "image.tar", BASE, ADDED))
    assert [(part["type"], part["purl"]) for part in found] == [
        ("platform", "pkg:generic/python@3.11.2"),
        ("library", "pkg:deb/debian/zlib1g@1%3A1.2.13%2Bx-1?arch=amd64&distro=debian-12"),
        ("library", "pkg:deb/debian/fonts-noto-cjk@1%3A20220127%2Brepack1-1?arch=amd64&distro=debian-12"),
    ]


def test_an_image_without_a_package_manager_has_its_interpreter_only(tmp_path: Path) -> None:
    """As on a base without Debian's list of packages."""
    only = {"opt/docpreview/pyvenv.cfg": ADDED["opt/docpreview/pyvenv.cfg"]}
    assert [part["name"] for part in sbom.parts(archive(tmp_path / "image.tar", only))] == ["python"]


def test_an_archive_tells_the_configuration_of_its_image(tmp_path: Path) -> None:
    """From the blob that the manifest names."""
    with oci.opened(archive(tmp_path / "image.tar", BASE)) as image:
        assert image.config() == {"config": {"User": "65532:65532"}}


def test_a_packed_layout_is_the_same_whenever_it_is_packed(tmp_path: Path) -> None:
    """Names are relative to the layout's folder."""
    layout = tmp_path / "layout"
    (layout / "blobs").mkdir(parents=True)
    (layout / "index.json").write_text("{}")
    (layout / "blobs" / "x").write_text("y")
    oci.packed(layout, tmp_path / "one.tar")
    (layout / "index.json").touch()
    oci.packed(layout, tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    with tarfile.open(tmp_path / "one.tar") as tar:
        assert tar.getnames() == ["blobs/x", "index.json"]
