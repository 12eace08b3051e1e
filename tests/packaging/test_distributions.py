"""The wheel: its contents, its dependencies, and its use without this checkout."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from configparser import ConfigParser
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from tests.packaging.project import PACKAGES, ROOT, pyproject, run

COMMANDS = ("docpreview", "docpreview-emulator", "docpreview-gateway")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    (path,) = directory.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel's own files only."""
    directory = tmp_path_factory.mktemp("installed")
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", directory)
    done = run(sys.executable, "-m", "pip", "install", *options, wheel)
    assert done.returncode == 0, done.stderr
    return directory


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def entry_points(wheel: Path) -> ConfigParser:
    parser = ConfigParser(delimiters="=")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
        parser.read_string(archive.read(name).decode())
    return parser


def test_the_wheel_contains_exactly_the_files_of_the_four_packages(wheel: Path) -> None:
    """No tests, caches or other files of the repository."""
    expected = {
        f"{package}/{path.relative_to(root).as_posix()}"
        for package, root in PACKAGES.items()
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names(wheel) == expected


@pytest.mark.parametrize(
    "kind", ["docpreview/v1/*.proto", "docpreview/v1/*_pb2.py", "docpreview/v1/*_pb2.pyi", "*/py.typed"]
)
def test_the_wheel_contains_the_contract_and_type_information(wheel: Path, kind: str) -> None:
    """The .proto files, the stubs, and `py.typed` of all four packages."""
    found = {name for name in names(wheel) if Path(name).match(kind)}
    if kind == "*/py.typed":
        assert found == {f"{package}/py.typed" for package in PACKAGES}
    else:
        assert len(found) == len(list((PACKAGES["docpreview"] / "v1").glob(Path(kind).name))) > 0


def test_every_entry_point_of_the_wheel_can_be_imported(wheel: Path) -> None:
    """The three commands and the pytest plugin."""
    sections = entry_points(wheel)
    assert tuple(sorted(sections["console_scripts"])) == COMMANDS
    assert list(sections["pytest11"]) == ["docpreview_emulator"]
    for group in sections.sections():
        for name, value in sections[group].items():
            EntryPoint(name, value, group).load()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_an_installed_wheel_runs(installed: Path, command: str, tmp_path: Path) -> None:
    """`--help`, from the installed files."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = run(installed / "bin" / command, "--help", cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage" in done.stdout


def test_the_packages_are_imported_from_the_installed_wheel(installed: Path, tmp_path: Path) -> None:
    """Generated stubs included."""
    packages = ", ".join(PACKAGES)
    code = f"import docpreview_gateway.wiring, docpreview.v1 as v1, {packages}; print(v1.__file__)"
    done = run(sys.executable, "-c", code, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)})
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed)


def test_the_lower_bounds_of_dependencies_are_the_stubs_versions() -> None:
    """Stubs refuse to run on libraries older than their compiler's."""
    bounds = dict(re.findall(r"^([a-z-]+)>=([0-9.]+)", "\n".join(pyproject()["project"]["dependencies"]), re.MULTILINE))
    stubs = PACKAGES["docpreview"] / "v1"
    grpc = {
        version
        for path in stubs.glob("*_pb2_grpc.py")
        for version in re.findall(r"GRPC_GENERATED_VERSION = '(.*)'", path.read_text())
    }
    protobuf = {
        version
        for path in stubs.glob("*_pb2.py")
        for version in re.findall(r"# Protobuf Python Version: (.*)", path.read_text())
    }
    assert grpc == {bounds[name] for name in ("grpcio-health-checking", "grpcio-reflection")}
    (stamped,) = grpc
    assert [int(part) for part in stamped.split(".")] <= [int(part) for part in bounds["grpcio"].split(".")]
    assert protobuf == {bounds["protobuf"]}
    assert {f"grpcio-tools=={version}" for version in grpc} < set(pyproject()["dependency-groups"]["generate"])
