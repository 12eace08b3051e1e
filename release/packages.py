"""The package of each language: how it is built from a clean checkout, and what its registry would look at."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from packaging.metadata import Metadata

from release import oci
from release.versions import ROOT

PYTHON = ("protos", "clients/python", ".")
"""Folders of the Python distributions, in the order of their upload: each needs those before it."""

GO_MODULE = "github.com/docpreview/docpreview-gateway/clients/go"
REPOSITORY = "github.com/docpreview/docpreview-gateway"


class PackageError(Exception):
    """A package that cannot be built, or that its registry or its users would miss something in."""


class Work(NamedTuple):
    """A clean checkout of the commit, the folder for what is delivered, one for files in between, and the version."""

    source: Path
    out: Path
    between: Path
    version: str


def run(*words: object, cwd: Path, **environment: str) -> str:
    """The output of a command, which must succeed."""
    command = [str(word) for word in words]
    done = subprocess.run(  # noqa: S603 - build tools of the languages
        command, cwd=cwd, env=os.environ | environment, check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise PackageError(f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def need(there: object, what: str) -> None:
    """Refuse a package that lacks something."""
    if not there:
        raise PackageError(what)


def python(work: Work) -> None:
    """Wheels and source archives of the three distributions, with metadata as PyPI takes it, and their dependencies."""
    for folder in PYTHON:
        run(sys.executable, "-m", "hatchling", "build", "-d", work.out, cwd=work.source / folder)
    for path in sorted(work.out.iterdir()):
        _check_metadata(path, work.version)
    for wanted, oldest in (
        (f"docpreview-client[cli]=={work.version} docpreview-gateway[emulator,otel]=={work.version}", "3.11"),
        (f"docpreview-protos[grpc]=={work.version}", "3.9"),
    ):
        _resolve(work, wanted.split(), oldest)


def metadata(path: Path) -> Metadata:
    """The metadata of a wheel or a source archive; an error when a registry would refuse it."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
            text = wheel.read(name)
    else:
        with tarfile.open(path) as archive:
            member = archive.extractfile(path.name.removesuffix(".tar.gz") + "/PKG-INFO")
            text = b"" if member is None else member.read()
    return Metadata.from_email(text, validate=True)


def _check_metadata(path: Path, version: str) -> None:
    found = metadata(path)
    need(str(found.version) == version, f"{path.name}: its version is not {version}")
    need(found.license_expression == "Apache-2.0" and found.license_files == ["LICENSE"], f"{path.name}: no licence")
    need(REPOSITORY in (found.project_urls or {}).get("Repository", ""), f"{path.name}: no address of the repository")
    need(found.description and found.description_content_type == "text/markdown", f"{path.name}: no README")


def _resolve(work: Work, wanted: list[str], oldest: str) -> None:
    """Whether an installer finds all that they need: ours in the folder, the others in the registry."""
    requirements = work.between / "wanted.txt"
    requirements.write_text("\n".join(wanted))
    uv = Path(sys.executable).with_name("uv")
    options = ("--quiet", "--no-sources", "--universal", "--python-version", oldest, "--find-links", work.out)
    run(uv, "pip", "compile", *options, requirements, cwd=work.out)


def typescript(work: Work) -> None:
    """The npm package."""
    folder = work.source / "clients" / "typescript"
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)
    run("npm", "run", "build", cwd=folder)
    (packed,) = json.loads(run("npm", "pack", "--ignore-scripts", "--json", "--pack-destination", work.out, cwd=folder))
    need(packed["version"] == work.version, f"{packed['filename']}: its version is not {work.version}")
    _licensed(packed["filename"], [file["path"] for file in packed["files"]])
    description = json.loads((folder / "package.json").read_text())
    need(REPOSITORY in json.dumps(description.get("repository", "")), "package.json: no address of the repository")


def rust(work: Work) -> None:
    """The crate, built from what was packaged, as `cargo publish` does before it uploads."""
    target = ROOT / "clients" / "rust" / "target"  # what is compiled there need not be compiled again
    folder = work.source / "clients" / "rust"
    run("cargo", "publish", "--dry-run", "--locked", cwd=folder, CARGO_TARGET_DIR=str(target))
    # A rehearsed upload leaves no crate behind.
    run("cargo", "package", "--no-verify", "--locked", cwd=folder, CARGO_TARGET_DIR=str(target))
    name = f"docpreview-client-{work.version}"
    crate = Path(shutil.copy(target / "package" / f"{name}.crate", work.out))
    with tarfile.open(crate) as archive:
        _licensed(crate.name, [member.name.removeprefix(f"{name}/") for member in archive])


def java(work: Work) -> None:
    """The jar, its sources and its documentation, and the POM with what Maven Central asks for."""
    folder = work.source / "clients" / "java"
    run("mvn", "--batch-mode", "--no-transfer-progress", "-Prelease", "package", "-DskipTests", cwd=folder)
    for kind in ("", "-sources", "-javadoc"):
        jar = folder / "target" / f"docpreview-client-{work.version}{kind}.jar"
        need(jar.is_file(), f"{jar.name} is not made")
        shutil.copy(jar, work.out)
    shutil.copy(folder / "pom.xml", work.out / f"docpreview-client-{work.version}.pom")
    with zipfile.ZipFile(work.out / f"docpreview-client-{work.version}.jar") as archive:
        _licensed("the jar", [name.removeprefix("META-INF/") for name in archive.namelist()])
    pom = ET.parse(folder / "pom.xml").getroot()  # noqa: S314 - our own
    for name in ("name", "description", "url", "licenses", "developers", "scm"):
        need(pom.find(f"{{*}}{name}") is not None, f"pom.xml: Maven Central asks for <{name}>")


def go(work: Work) -> None:
    """The module, as the go command finds it behind a tag of a bare clone."""
    bare, tag = work.between / "go.git", f"clients/go/v{work.version}"
    run("git", "clone", "--quiet", "--bare", work.source, bare, cwd=work.source)
    run("git", "tag", "--force", tag, cwd=bare)
    settings = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{bare.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": f"https://{REPOSITORY}",
        "GIT_ALLOW_PROTOCOL": "file",
        "GOFLAGS": "-mod=mod -modcacherw",
        "GOMODCACHE": str(work.between / "go-modules"),
        "GOPRIVATE": REPOSITORY,
        "GOWORK": "off",
    }
    made = json.loads(run("go", "mod", "download", "-json", f"{GO_MODULE}@v{work.version}", cwd=bare, **settings))
    module = Path(shutil.copy(made["Zip"], work.out / f"clients-go-v{work.version}.zip"))
    with zipfile.ZipFile(module) as archive:
        _licensed(module.name, [name.partition("@")[2].partition("/")[2] for name in archive.namelist()])


def chart(work: Work) -> None:
    """The Helm chart as an archive and in the OCI layout, as a registry has it after `helm push`."""
    folder = work.source / "helm" / "docpreview-gateway"
    run("helm", "lint", folder, "--values", folder / "ci" / "minimal-values.yaml", cwd=folder)
    run("helm", "package", folder, "--destination", work.out, cwd=folder)
    archive = work.out / f"docpreview-gateway-{work.version}.tgz"
    layout = work.between / "chart-layout"
    with oci.registry(work.between / "registry") as host:
        run("helm", "push", archive, f"oci://{host}/charts", "--plain-http", cwd=folder)
        run(
            "crane",
            "pull",
            "--insecure",
            "--format=oci",
            f"{host}/charts/docpreview-gateway:{work.version}",
            layout,
            cwd=folder,
        )
    oci.packed(layout, work.out / f"docpreview-gateway-chart-{work.version}.oci.tar")


def _licensed(package: str, names: list[str]) -> None:
    need("LICENSE" in names, f"{package}: has no LICENSE")
