"""The three distributions: their contents, their dependencies, and their use without this checkout."""

from __future__ import annotations

import ast
import os
import re
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from release.packages import metadata
from tests.packaging.project import DISTRIBUTIONS, PACKAGES, ROOT, lowest_of, pyproject, run

COMMANDS = {
    "docpreview-protos": set(),
    "docpreview-client": {"docpreview"},
    "docpreview-gateway": {"docpreview-emulator", "docpreview-gateway"},
}
STUBS = PACKAGES["docpreview"] / "v1"
OLDEST_PYTHON = (3, 9)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Wheel and source archive of each distribution."""
    found = {}
    for name, (folder, _) in DISTRIBUTIONS.items():
        directory = tmp_path_factory.mktemp("built")
        done = run(sys.executable, "-m", "hatchling", "build", "-d", directory, cwd=folder)
        assert done.returncode == 0, done.stderr
        (wheel,), (archive,) = directory.glob("*.whl"), directory.glob("*.tar.gz")
        found[name] = (wheel, archive)
    return found


@pytest.fixture(scope="module")
def installed(built: dict[str, tuple[Path, Path]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheels' own files only."""
    directory = tmp_path_factory.mktemp("installed")
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", directory)
    done = run(sys.executable, "-m", "pip", "install", *options, *(wheel for wheel, _ in built.values()))
    assert done.returncode == 0, done.stderr
    return directory


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


def names(wheel: Path) -> set[str]:
    return {name for name in contents(wheel) if ".dist-info/" not in name}


def entry_points(wheel: Path) -> ConfigParser:
    parser = ConfigParser(delimiters="=")
    texts = [text for name, text in contents(wheel).items() if name.endswith(".dist-info/entry_points.txt")]
    parser.read_string("".join(text.decode() for text in texts) or "[console_scripts]")
    return parser


def requirements(name: str) -> dict[str, Requirement]:
    """What a distribution needs without its extras."""
    return {found.name: found for found in map(Requirement, pyproject(name)["project"]["dependencies"])}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_wheel_contains_exactly_the_files_of_its_packages(name: str, built: dict[str, tuple[Path, Path]]) -> None:
    """No tests, caches or other files of the repository, but the runbooks that the operator page shows."""
    runbooks = ROOT.glob("docs/runbooks/*.md") if name == "docpreview-gateway" else ()
    expected = {f"docpreview_gateway/runbooks/{path.name}" for path in runbooks} | {
        f"{package}/{path.relative_to(PACKAGES[package]).as_posix()}"
        for package in DISTRIBUTIONS[name][1]
        for path in PACKAGES[package].rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names(built[name][0]) == expected


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_source_archive_alone_builds_the_same_wheel(
    name: str, built: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    """Nothing that it needs is outside of its folder."""
    wheel, source = built[name]
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / source.name.removesuffix(".tar.gz")
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / wheel.name) == contents(wheel)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_distribution_has_its_licence_and_the_address_of_the_repository(
    name: str, built: dict[str, tuple[Path, Path]]
) -> None:
    """In the metadata of wheel and source archive, which a registry would accept, and as a file."""
    for path in built[name]:
        found = metadata(path)
        assert (found.license_expression, found.license_files) == ("Apache-2.0", ["LICENSE"])
        assert found.project_urls == pyproject()["project"]["urls"] | (found.project_urls or {})
        assert found.description == (DISTRIBUTIONS[name][0] / "README.md").read_text()
    (licence,) = [text for file, text in contents(built[name][0]).items() if file.endswith("/licenses/LICENSE")]
    assert licence == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize(
    "kind", ["docpreview/v1/*.proto", "docpreview/v1/*_pb2.py", "docpreview/v1/*_pb2.pyi", "docpreview/v1/*_grpc.py"]
)
def test_the_contracts_wheel_contains_the_protos_and_all_stubs(kind: str, built: dict[str, tuple[Path, Path]]) -> None:
    """As many as there are in the checkout."""
    found = {name for name in names(built["docpreview-protos"][0]) if Path(name).match(kind)}
    assert len(found) == len(list(STUBS.glob(Path(kind).name))) > 0


def test_every_package_tells_type_checkers_that_it_is_typed(built: dict[str, tuple[Path, Path]]) -> None:
    """`py.typed` of all four."""
    found = {name for wheel, _ in built.values() for name in names(wheel) if name.endswith("py.typed")}
    assert found == {f"{package}/py.typed" for package in PACKAGES}


def test_every_entry_point_of_the_wheels_can_be_imported(built: dict[str, tuple[Path, Path]]) -> None:
    """The three commands and the pytest plugin."""
    for name, (wheel, _) in built.items():
        sections = entry_points(wheel)
        assert set(sections["console_scripts"]) == COMMANDS[name]
        assert ("pytest11" in sections) == (name == "docpreview-gateway")
        for group in sections.sections():
            for key, value in sections[group].items():
                EntryPoint(key, value, group).load()


@pytest.mark.parametrize("command", sorted(set().union(*COMMANDS.values())))
def test_every_command_of_installed_wheels_runs(installed: Path, command: str, tmp_path: Path) -> None:
    """`--help`, from the installed files."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = run(installed / "bin" / command, "--help", cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage" in done.stdout


@pytest.mark.parametrize("command", sorted(set().union(*COMMANDS.values())))
def test_every_command_prints_its_version(installed: Path, command: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = run(installed / "bin" / command, "--version", cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{command} {pyproject()['project']['version']}\n"


@pytest.mark.parametrize(
    ("command", "line", "expected"),
    [
        ("docpreview", "docpreview prev", {"preview"}),
        ("docpreview", "docpreview wait --page-", {"--page-url-ttl"}),
        ("docpreview-gateway", "docpreview-gateway edge", {"edge-config"}),
        ("docpreview-gateway", "docpreview-gateway serve --log-format ", {"auto", "json", "console"}),
        ("docpreview-emulator", "docpreview-emulator serve --empty", {"--empty-pages"}),
    ],
)
def test_a_shell_completes_commands_options_and_values(
    installed: Path, command: str, line: str, expected: set[str], tmp_path: Path
) -> None:
    """In a real bash, by the script that the command prints for it."""
    script = f"""
        source <({command} --show-completion)
        COMP_WORDS=({line.replace(" --log-format ", " --log-format ''")}) COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
        $(complete -p {command} | sed 's/.* -F \\([^ ]*\\).*/\\1/') {command}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = f"{installed / 'bin'}:{os.environ['PATH']}"
    done = run("bash", "-c", script, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed), "PATH": path})
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == expected


def test_an_installed_gateway_has_its_runbooks(installed: Path, tmp_path: Path) -> None:
    code = "from docpreview_gateway.telemetry.runbooks import Runbooks as R; print(R().html('breaker-open.md')[0])"
    done = run(sys.executable, "-c", code, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)})
    assert done.stdout == "DocpreviewBreakerOpen\n", done.stderr


def test_the_packages_are_imported_from_the_installed_wheels(installed: Path, tmp_path: Path) -> None:
    """Generated stubs included."""
    packages = ", ".join(PACKAGES)
    code = f"import docpreview_gateway.wiring, docpreview.v1 as v1, {packages}; print(v1.__file__)"
    done = run(sys.executable, "-c", code, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)})
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed)


def test_the_client_needs_grpc_protobuf_and_the_contract_and_nothing_else() -> None:
    """What its command needs is an extra, and the server needs no client."""
    assert set(requirements("docpreview-client")) == {
        "docpreview-protos",
        "googleapis-common-protos",
        "grpcio",
        "protobuf",
    }
    assert "docpreview-client" not in requirements("docpreview-gateway")


@pytest.mark.parametrize("name", ["docpreview-client", "docpreview-gateway"])
def test_whoever_needs_the_contract_takes_its_own_or_a_newer_compatible_one(name: str) -> None:
    """The fields that it uses are there, and no contract that may have broken them is taken."""
    assert str(requirements(name)["docpreview-protos"].specifier) == f"~={pyproject()['project']['version']}"


def test_the_stubs_are_made_by_the_compiler_of_the_lowest_versions_admitted() -> None:
    """Stubs run on their compiler's version and newer ones only; a patch of protobuf's compiler makes no difference."""
    protobuf, grpc = stamped("*_pb2.py", "# Protobuf Python Version: (.*)"), stamped("*_grpc.py", "VERSION = '(.*)'")
    bound = requirements("docpreview-protos")["protobuf"]
    assert lowest_of(bound).release == protobuf.release[:2]
    assert bound == requirements("docpreview-client")["protobuf"]
    (needed,) = map(Requirement, pyproject("docpreview-protos")["project"]["optional-dependencies"]["grpc"])
    assert lowest_of(needed).release == grpc.release[:2]
    assert needed == requirements("docpreview-client")["grpcio"]
    assert lowest_of(requirements("docpreview-gateway")["grpcio"]) >= grpc
    assert f"grpcio-tools=={grpc}" in pyproject()["dependency-groups"]["generate"]


def stamped(files: str, pattern: str) -> Version:
    """The one version that the compiler wrote into all of them."""
    (found,) = {version for path in STUBS.glob(files) for version in re.findall(pattern, path.read_text())}
    return Version(found)


def test_the_stubs_do_not_refuse_newer_major_versions_of_protobuf() -> None:
    """Compilers from 5.27 on write a check into them that does."""
    assert [path.name for path in STUBS.glob("*_pb2.py") if "runtime_version" in path.read_text()] == []


def test_the_stubs_are_python_of_the_oldest_version_that_they_promise() -> None:
    assert pyproject("docpreview-protos")["project"]["requires-python"] == f">={'.'.join(map(str, OLDEST_PYTHON))}"
    for path in PACKAGES["docpreview"].rglob("*.py*"):
        if path.suffix in {".py", ".pyi"}:
            ast.parse(path.read_text(), path.name, feature_version=OLDEST_PYTHON)
