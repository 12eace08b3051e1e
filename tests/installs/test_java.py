"""The Java client as it would be published, in a Maven project that knows nothing else of this repository."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from docpreview_emulator import Emulator
from tests.conformance.languages import CLIENTS, MAVEN, ROOT
from tests.conformance.world import World
from tests.documents.blocks import run_by
from tests.documents.session import commands
from tests.programs import need

if TYPE_CHECKING:
    from pathlib import Path

HERE = "tests/installs/test_java.py"
PROTOS = ("docpreview/v1/preview_job_service.proto", "docpreview/v1/upload_service.proto")
ADDRESS = "127.0.0.1:50051"
FOLDER = "com/docpreview/docpreview-client/0.1.0"
INSTALL = "org.apache.maven.plugins:maven-install-plugin:3.1.4:install-file"

FRAGMENTS = """
import com.docpreview.client.*;
import com.docpreview.v1.*;
import io.grpc.ClientInterceptor;
import java.net.http.HttpClient;
import java.nio.file.Path;
import java.util.List;

abstract class Fragments {
    DocPreviewClient client;
    WaitPreviewJobRequest wait;
    CreatePreviewJobRequest request;
    byte[] ca, certificate, key;
    ClientInterceptor tracing;
    HttpClient http;
    Path file, directory;
    List<Path> files;
    TransferSettings settings;

    abstract String readToken();

METHODS}
"""
"""What the fragments of the README take for granted."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # an empty repository gets gRPC and Maven's own plugins first


def maven(*arguments: str, folder: Path) -> str:
    """Runs it there and returns what it prints, which is the message when it fails."""
    done = subprocess.run(
        (need("mvn"), *MAVEN[1:], *arguments),
        cwd=folder,
        env=os.environ,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"mvn {' '.join(arguments)}\n{done.stdout[-8000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Maven repository that has what a release deploys, built from a copy of the sources."""
    need("java")
    folder = tmp_path_factory.mktemp("java")
    shutil.copytree(CLIENTS / "java", folder / "clients" / "java", ignore=shutil.ignore_patterns("target"))
    shutil.copytree(ROOT / "protos", folder / "protos")
    shutil.copy(ROOT / "LICENSE", folder)
    repository = folder / "published"
    deployment = f"-DaltDeploymentRepository=published::file://{repository}"
    maven("-Prelease", "deploy", "-DskipTests", deployment, folder=folder / "clients" / "java")
    return repository


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maven's local repository: empty, and with gRPC and Maven's own plugins after the first test."""
    return tmp_path_factory.mktemp("repository")


def names(published: Path, kind: str) -> set[str]:
    """The names in a jar of the release."""
    with zipfile.ZipFile(published / FOLDER / f"docpreview-client-0.1.0{kind}.jar") as jar:
        return set(jar.namelist())


def test_a_release_has_the_jar_its_pom_its_sources_and_its_javadoc(published: Path) -> None:
    """With the contract, the license and the address of the repository."""
    jar = names(published, "")
    assert {"META-INF/LICENSE", "com/docpreview/client/DocPreviewClient.class", *PROTOS} <= jar
    assert not [name for name in jar if "conformance" in name or "Test" in name]
    sources = {"META-INF/LICENSE", "com/docpreview/client/DocPreviewClient.java", "com/docpreview/v1/PreviewJob.java"}
    assert sources <= names(published, "-sources")
    pages = {
        f"com.docpreview.client/com/docpreview/{name}.html" for name in ("client/DocPreviewClient", "v1/PreviewJob")
    }
    assert pages <= names(published, "-javadoc")
    pom = (published / FOLDER / "docpreview-client-0.1.0.pom").read_text()
    assert "<name>Apache-2.0</name>" in pom
    assert "<connection>scm:git:https://github.com/docpreview/docpreview-gateway.git</connection>" in pom


async def test_the_program_of_the_readme_makes_pages_with_the_released_jar(
    published: Path, repository: Path, tmp_path: Path
) -> None:
    """With the pom, the program and the command of the README, in an empty folder outside of the tree."""
    jar = published / FOLDER / "docpreview-client-0.1.0.jar"
    pom = jar.with_suffix(".pom")
    own = f"-Dmaven.repo.local={repository}"
    await asyncio.to_thread(maven, own, INSTALL, f"-Dfile={jar}", f"-DpomFile={pom}", folder=tmp_path)
    found = run_by(f"{HERE}::test_the_program_of_the_readme_makes_pages_with_the_released_jar")
    texts = {block.language: block.text for block in found}
    assert ADDRESS in texts["java"]
    async with Emulator() as emulator, World(emulator, {}) as world:
        project = _project(tmp_path / "project", "FirstPreview", texts["java"].replace(ADDRESS, world.target))
        shutil.copy(ROOT / "examples" / "seven-pages.pdf", project / "slides.pdf")
        ((command, _),) = commands(texts["console"])
        printed = await asyncio.to_thread(_line, command, project, repository)
    pages = [project / "pages" / f"page-{number:04}.jpg" for number in range(1, 8)]
    assert "STATE_SUCCESS" in printed
    assert all(f"pages/{page.name}" in printed for page in pages)
    assert all(page.read_bytes().startswith(b"\xff\xd8") for page in pages)


def test_the_line_of_the_readme_installs_the_client_from_a_checkout(
    published: Path, repository: Path, tmp_path: Path
) -> None:
    """Into the local repository, where the pom of the README finds it."""
    shutil.rmtree(repository / "com" / "docpreview", ignore_errors=True)
    (tmp_path / "docpreview-gateway").symlink_to(published.parent)
    (block,) = run_by(f"{HERE}::test_the_line_of_the_readme_installs_the_client_from_a_checkout")
    ((command, _),) = commands(block.text)
    _line(command, tmp_path, repository)
    assert (repository / FOLDER / "docpreview-client-0.1.0.jar").is_file()


def test_the_fragments_of_the_readme_compile(published: Path, repository: Path, tmp_path: Path) -> None:
    """With the released jar and the pom of the README."""
    jar = published / FOLDER / "docpreview-client-0.1.0.jar"
    own = f"-Dmaven.repo.local={repository}"
    maven(own, INSTALL, f"-Dfile={jar}", f"-DpomFile={jar.with_suffix('.pom')}", folder=tmp_path)
    found = run_by(f"{HERE}::test_the_fragments_of_the_readme_compile")
    methods = [f"    void fragment{number}() {{\n{block.text}\n    }}\n" for number, block in enumerate(found)]
    assert len(methods) == 4
    project = _project(tmp_path / "project", "Fragments", FRAGMENTS.replace("METHODS", "".join(methods)))
    maven(own, "--quiet", "compile", folder=project)


def _project(folder: Path, name: str, program: str) -> Path:
    """A project with the pom of the README and one class."""
    (folder / "src" / "main" / "java").mkdir(parents=True)
    found = run_by(f"{HERE}::test_the_program_of_the_readme_makes_pages_with_the_released_jar")
    (pom,) = (block.text for block in found if block.language == "xml")
    (folder / "pom.xml").write_text(pom)
    (folder / "src" / "main" / "java" / f"{name}.java").write_text(program)
    return folder


def _line(command: str, folder: Path, repository: Path) -> str:
    """What a line of the README prints, with this local repository."""
    need("mvn")
    done = subprocess.run(
        ("bash", "-c", command),  # noqa: S607 - on the PATH
        cwd=folder,
        env=os.environ | {"MAVEN_OPTS": f"-Dmaven.repo.local={repository}"},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-8000:]}"
    return done.stdout
