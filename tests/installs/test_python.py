"""Python, installed from outside: by the lines of the READMEs, as published, and beside what callers have."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement

from docpreview_emulator import Emulator
from tests.conformance.world import World
from tests.documents.blocks import blocks, run_by
from tests.documents.session import commands
from tests.integration.conftest import BUCKET
from tests.packaging.project import DISTRIBUTIONS, ROOT, lowest_of, pyproject

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DOCUMENT = ROOT / "examples" / "seven-pages.pdf"
HERE = "tests/installs/test_python.py"
PROGRAMS = [
    block.text
    for block in blocks()
    if block.document == "clients/python/README.md" and block.language == "python" and "import " in block.text
]
"""Those that tests/integration/test_python_readme.py runs from the checkout."""
PAGES = [f"page-{number:04d}.jpg" for number in range(1, 8)]
IMPORTS = """
import google.protobuf, importlib, pkgutil
import docpreview.v1
for module in pkgutil.iter_modules(docpreview.v1.__path__):
    importlib.import_module(f"docpreview.v1.{module.name}")
from docpreview.v1.error_reason_pb2 import ErrorReason, retry
from docpreview.v1.preview_job_pb2 import PreviewJob
assert PreviewJob.FromString(PreviewJob(job_id="x").SerializeToString()).job_id == "x"
assert all(value.GetOptions().Extensions[retry] for value in ErrorReason.DESCRIPTOR.values if value.number)
print(google.protobuf.__version__)
"""


class Environment(NamedTuple):
    """A virtual environment outside of the tree, without anything of the one that the tests run in."""

    path: Path

    def run(self, command: str, *words: object, cwd: Path, status: int = 0) -> str:
        """What a command of it prints."""
        done = subprocess.run(
            [str(self.path / "bin" / command), *map(str, words)],
            cwd=cwd,
            env=clean_variables(),
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, f"{command} {words}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout + done.stderr

    def python(self, code: str) -> str:
        return self.run("python", "-W", "error", "-c", code, cwd=self.path)

    def size(self) -> tuple[int, float]:
        """Its distributions without pip and setuptools, and their megabytes."""
        (packages,) = self.path.glob("lib/python3*/site-packages")
        names = [one.name for one in packages.glob("*.dist-info") if not re.match("pip-|setuptools-", one.name)]
        files = (
            one for one in packages.rglob("*") if one.is_file() and not re.match("pip|setuptools", _top(one, packages))
        )
        return len(names), sum(one.stat().st_size for one in files) / 1e6


def _top(path: Path, folder: Path) -> str:
    return path.relative_to(folder).parts[0]


def clean_variables() -> dict[str, str]:
    """Variables without those that lead into the checkout."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}


def uv(*words: object, cwd: Path) -> str:
    """What uv prints; it must succeed. Packages come from the registry, ours from the folder of wheels only."""
    program = Path(sys.executable).with_name("uv")
    command = [str(program), *map(str, words)]
    done = subprocess.run(command, cwd=cwd, env=clean_variables(), check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three wheels, as they would be published."""
    folder = tmp_path_factory.mktemp("wheels")
    for source, _ in DISTRIBUTIONS.values():
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
        subprocess.run(command, cwd=source, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of this checkout, with what is not committed yet."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - on the PATH
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.fixture
def empty(tmp_path: Path) -> Environment:
    """An environment with nothing in it but pip."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    return Environment(tmp_path / "venv")


def installed(folder: Path, wheels: Path, *wanted: str, options: tuple[str, ...] = ()) -> Environment:
    """A new environment with these requirements, made by uv, which is quick."""
    environment = folder / "venv"
    uv("venv", "--quiet", "--python", sys.executable, environment, cwd=folder)
    python = ("--python", environment / "bin" / "python", "--find-links", wheels)
    uv("pip", "install", "--quiet", *python, *options, *wanted, cwd=folder)
    return Environment(environment)


def lines() -> dict[str, list[str]]:
    """The commands of each README that install from a checkout."""
    found = run_by(f"{HERE}::test_every_line_of_a_readme_installs_from_a_checkout_with_plain_pip")
    return {block.document: [words for words, _ in commands(block.text)] for block in found}


async def run_readme(environment: Environment, folder: Path) -> None:
    """The README's programs, beside a document: two bring its pages home, the third prints their addresses."""
    _put_document(folder)
    async with Emulator() as emulator, World(emulator, {}) as world:
        await world.prepare("upload", {"document": DOCUMENT.name, "as": "a.pdf"})
        ours = {"dns:///docpreview:50051": world.target, "docs-1250000000": BUCKET, "a.pptx": "a.pdf"}
        programs = [_with(ours, text) for text in PROGRAMS]
        printed = [await asyncio.to_thread(environment.run, "python", "-W", "error", "-c", programs[0], cwd=folder)]
        assert pages(folder / "pages") == PAGES
        for program in programs[1:]:
            printed += [await asyncio.to_thread(environment.run, "python", "-W", "error", "-c", program, cwd=folder)]
        brought, optioned, told = printed
        assert str(PAGES) in brought
        assert "3 pages in pages" in optioned
        assert [path.suffix for path in sorted((folder / "pages").glob("page-*"))] == [".png"] * 3
        assert told.count("q-signature=") == len(PAGES)


def _put_document(folder: Path) -> None:
    folder.mkdir()
    shutil.copy(DOCUMENT, folder / "a.pdf")


def _with(ours: dict[str, str], text: str) -> str:
    for there, here in ours.items():
        assert there in text
        text = text.replace(there, here)
    return text


async def run_command(environment: Environment, folder: Path) -> None:
    """`docpreview preview` of a local file brings its pages home."""
    async with Emulator() as emulator, World(emulator, {}) as world:
        words = ("--target", world.target, "preview", DOCUMENT, "--bucket", BUCKET, "--pages", folder)
        await asyncio.to_thread(environment.run, "docpreview", *words, cwd=folder.parent)
    assert pages(folder) == PAGES


def pages(folder: Path) -> list[str]:
    """The names of the pages in a folder, each of which is a JPEG."""
    found = sorted(folder.glob("*.jpg"))
    assert all(page.read_bytes().startswith(b"\xff\xd8") for page in found)
    return [page.name for page in found]


@pytest.mark.parametrize("readme", lines())
def test_every_line_of_a_readme_installs_from_a_checkout_with_plain_pip(
    readme: str, checkout: Path, empty: Environment
) -> None:
    """Into an empty environment; what is there then agrees with itself."""
    for line in lines()[readme]:
        program, *words = shlex.split(line, comments=True)
        assert program == "pip"
        empty.run("python", "-m", "pip", *words, "--quiet", cwd=checkout)
        empty.run("python", "-m", "pip", "check", cwd=checkout)


def test_uv_takes_the_contract_from_the_workspace_by_itself(checkout: Path, tmp_path: Path) -> None:
    """`uv pip install ./clients/python` is enough."""
    uv("venv", "--quiet", "--python", sys.executable, tmp_path / "venv", cwd=checkout)
    python = tmp_path / "venv" / "bin" / "python"
    uv("pip", "install", "--quiet", "--python", python, "./clients/python", cwd=checkout)
    assert "version" in Environment(tmp_path / "venv").python("import docpreview_client; print('version')")


async def test_the_readmes_programs_run_with_the_published_client_in_an_empty_environment(
    empty: Environment, wheels: Path, tmp_path: Path
) -> None:
    """By pip, from the wheels, to pages on disk; the command says which extra it needs."""
    empty.run("python", "-m", "pip", "install", "--quiet", "--find-links", wheels, "docpreview-client", cwd=wheels)
    count, megabytes = empty.size()
    print(f"docpreview-client: {count} distributions, {megabytes:.0f} MB")  # noqa: T201 - part of the evidence
    assert count <= 6
    assert megabytes < 40
    await run_readme(empty, tmp_path / "work")
    refused = empty.run("docpreview", "--help", cwd=wheels, status=2)
    assert 'pip install "docpreview-client[cli]"' in refused


async def test_the_command_of_the_published_client_brings_pages_home(
    empty: Environment, wheels: Path, tmp_path: Path
) -> None:
    """With the extra `cli`."""
    wanted = "docpreview-client[cli]"
    empty.run("python", "-m", "pip", "install", "--quiet", "--find-links", wheels, wanted, cwd=wheels)
    count, megabytes = empty.size()
    print(f"docpreview-client[cli]: {count} distributions, {megabytes:.0f} MB")  # noqa: T201 - part of the evidence
    assert count <= 20
    assert megabytes < 60
    assert "docpreview 0" in empty.run("docpreview", "--version", cwd=wheels)
    await run_command(empty, tmp_path / "pages")


async def test_client_and_command_run_on_the_lowest_versions_that_they_admit(tmp_path: Path, wheels: Path) -> None:
    """Of each of their requirements."""
    project = pyproject("docpreview-client")["project"]
    named = map(Requirement, (*project["dependencies"], *project["optional-dependencies"]["cli"]))
    lowest = [f"{one.name}=={lowest_of(one)}" for one in named]
    environment = installed(tmp_path, wheels, "docpreview-client[cli]", *lowest)
    code = "import importlib.metadata as m; print(m.version('grpcio'), m.version('protobuf'))"
    assert environment.python(code).split() == ["1.63.0", "5.26.0"]
    await run_readme(environment, tmp_path / "work")
    await run_command(environment, tmp_path / "pages")


@pytest.mark.parametrize("protobuf", ["==5.26.0", "<6", "<7", "<8"])
def test_the_stubs_run_on_every_major_version_of_protobuf(protobuf: str, tmp_path: Path, wheels: Path) -> None:
    """All modules, with the option that tells what to do about an error."""
    environment = installed(tmp_path, wheels, "docpreview-protos[grpc]", f"protobuf{protobuf}")
    highest = re.search(r"\d+", protobuf)
    assert highest is not None
    assert int(environment.python(IMPORTS).partition(".")[0]) == int(highest[0]) - ("<" in protobuf)


async def test_the_client_lives_beside_celery_and_django(tmp_path: Path, wheels: Path) -> None:
    """Installed for real."""
    environment = installed(tmp_path, wheels, "docpreview-client[cli]", "celery[redis]", "django")
    uv("pip", "check", "--python", environment.path / "bin" / "python", cwd=tmp_path)
    environment.run("python", "-c", "import celery, django, docpreview_client", cwd=tmp_path)
    await run_readme(environment, tmp_path / "work")


@pytest.mark.parametrize(
    ("neighbour", "python"),
    [
        ("tensorflow==2.18.*", "3.11"),  # protobuf below 6
        ("tensorflow", "3.12"),
        ("streamlit==1.40.*", "3.11"),  # protobuf below 6
        ("streamlit", "3.12"),
        ("celery[redis]", "3.13"),
        ("django", "3.13"),
        ("opentelemetry-exporter-otlp", "3.11"),
        ("google-cloud-storage", "3.11"),
    ],
)
def test_a_resolver_finds_versions_for_the_client_and_what_callers_have(
    neighbour: str, python: str, tmp_path: Path, wheels: Path
) -> None:
    """Without installing them; with ours as they would be published."""
    (tmp_path / "wanted.txt").write_text(f"docpreview-client[cli]\n{neighbour}\n")
    options = ("--quiet", "--no-sources", "--find-links", wheels, "--python-version", python, "--no-header")
    found = uv("pip", "compile", *options, "wanted.txt", cwd=tmp_path)
    assert "docpreview-protos==" in found
    assert f"{re.split(r'[=[]', neighbour)[0]}==" in found


def test_a_resolver_finds_versions_for_the_contract_on_the_oldest_python(tmp_path: Path, wheels: Path) -> None:
    """Python 3.9, with gRPC."""
    (tmp_path / "wanted.txt").write_text("docpreview-protos[grpc]\n")
    options = ("--quiet", "--no-sources", "--find-links", wheels, "--python-version", "3.9", "--no-header")
    assert "grpcio==" in uv("pip", "compile", *options, "wanted.txt", cwd=tmp_path)


def test_the_gateway_needs_no_client_and_its_emulator_says_what_it_lacks(tmp_path: Path, wheels: Path) -> None:
    """Without the extra `emulator`."""
    environment = installed(tmp_path, wheels, "docpreview-gateway")
    environment.python("import importlib.util as u; assert u.find_spec('docpreview_client') is None")
    environment.run("docpreview-gateway", "--help", cwd=tmp_path)
    refused = environment.run("docpreview-emulator", "serve", "--port", "0", cwd=tmp_path, status=1)
    assert 'pip install "docpreview-gateway[emulator]"' in refused
    refused = environment.run("docpreview-gateway", "dev", "--emulator-port", "0", cwd=tmp_path, status=1)
    assert "error: the emulator did not start: " in refused
    assert 'pip install "docpreview-gateway[emulator]"' in refused


def test_dev_of_installed_packages_prints_a_command_that_makes_page_images(tmp_path: Path, wheels: Path) -> None:
    """Without a checkout: the example document is in the distribution."""
    environment = installed(tmp_path, wheels, "docpreview-gateway[emulator]", "docpreview-client[cli]")
    free = ("--port", "0", "--admin-port", "0", "--emulator-port", "0")
    command = (environment.path / "bin" / "docpreview-gateway", "dev", *free)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=clean_variables(), stdout=pipe, text=True) as dev:
        assert dev.stdout is not None
        try:
            *_, trial = [dev.stdout.readline() for _ in range(4)]
            program, *words = shlex.split(trial)[1:]
            assert program == str(environment.path / "bin" / "docpreview")
            environment.run("docpreview", *words, cwd=tmp_path)
        finally:
            dev.terminate()
    assert pages(tmp_path / "example.pdf-pages") == PAGES
    assert dev.returncode == 0


def test_the_fixtures_of_installed_packages_work_in_a_project_of_its_own(tmp_path: Path, wheels: Path) -> None:
    """By their entry point: pytest finds the plugin. The tests are those of docs/testing.md."""
    environment = installed(tmp_path, wheels, "docpreview-gateway[emulator]", "docpreview-client", "pytest")
    for block in run_by(f"{HERE}::test_the_fixtures_of_installed_packages_work_in_a_project_of_its_own"):
        (tmp_path / block.text.partition("\n")[0].removeprefix("# ")).write_text(block.text)
    shutil.copy(DOCUMENT, tmp_path / "a.pdf")
    assert "2 passed" in environment.run("pytest", "-q", "-W", "error", "test_reports.py", cwd=tmp_path)
