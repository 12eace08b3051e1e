"""The Java client as it would be published, in a Maven project that knows nothing else of this repository."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from docpreview_emulator import Emulator
from tests.conformance.languages import CLIENTS, MAVEN, ROOT
from tests.conformance.world import World
from tests.programs import need

if TYPE_CHECKING:
    from pathlib import Path

README = (CLIENTS / "java" / "README.md").read_text()
PROTOS = ("docpreview/v1/preview_job_service.proto", "docpreview/v1/upload_service.proto")
ADDRESS = "127.0.0.1:50051"
FOLDER = "com/docpreview/docpreview-client/0.1.0"
INSTALL = "org.apache.maven.plugins:maven-install-plugin:3.1.4:install-file"

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


def block(language: str, beginning: str) -> str:
    """The block of the README that begins so."""
    found = re.search(rf"```{language}\n({re.escape(beginning)}.*?)```", README, re.DOTALL)
    assert found is not None, f"the README has no {language} that begins with {beginning}"
    return found[1]


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


async def test_the_program_of_the_readme_makes_pages_with_the_released_jar(published: Path, tmp_path: Path) -> None:
    """With the pom and the program of the README, an empty folder outside of the tree and an empty repository."""
    empty = f"-Dmaven.repo.local={tmp_path / 'repository'}"
    jar = published / FOLDER / "docpreview-client-0.1.0.jar"
    await asyncio.to_thread(
        maven, empty, INSTALL, f"-Dfile={jar}", f"-DpomFile={jar.with_suffix('.pom')}", folder=tmp_path
    )
    project = tmp_path / "project"
    (project / "src" / "main" / "java").mkdir(parents=True)
    (project / "pom.xml").write_text(block("xml", "<project"))
    shutil.copy(ROOT / "examples" / "seven-pages.pdf", project / "slides.pdf")
    program = block("java", "import")
    assert ADDRESS in program
    command = re.search(r"^    mvn -q (compile exec:java .*)$", README, re.MULTILINE)
    assert command is not None
    async with Emulator() as emulator, World(emulator, {}) as world:
        source = project / "src" / "main" / "java" / "FirstPreview.java"
        source.write_text(program.replace(ADDRESS, world.target))
        printed = await asyncio.to_thread(maven, empty, *command[1].split(), folder=project)
    pages = [project / "pages" / f"page-{number:04}.jpg" for number in range(1, 8)]
    assert "STATE_SUCCESS" in printed
    assert all(f"pages/{page.name}" in printed for page in pages)
    assert all(page.read_bytes().startswith(b"\xff\xd8") for page in pages)
