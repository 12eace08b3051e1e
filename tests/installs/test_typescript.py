"""The TypeScript client, installed from its npm tarball into an empty project, by the lines of its README."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from docpreview_emulator import Emulator
from tests.conformance.languages import ROOT
from tests.conformance.world import World
from tests.documents.blocks import run_by
from tests.documents.session import commands
from tests.integration.conftest import BUCKET
from tests.programs import need

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CLIENT = "clients/typescript"
HERE = "tests/installs/test_typescript.py"
README = run_by(f"{HERE}::test_the_program_of_the_readme_makes_page_images_of_a_local_file")
(PROGRAM,) = (block.text for block in README if block.language == "ts")
INSTALL, COMPILER, RUN = (words for block in README if block.language == "console" for words, _ in commands(block.text))
COMPILE = RUN.partition(" preview.ts && ")[0]
FRAGMENTS = """
import { readFile } from "node:fs/promises";
import type { Interceptor } from "@grpc/grpc-js";
import { DocPreviewClient, PreviewJobSchema, PreviewUnfinished, toJson } from "@docpreview/client";
declare const [client, bucket, path]: [DocPreviewClient, string, string];
declare const [ca, certificate, key]: Buffer[];
declare const timing: Interceptor;
declare function current(): string;
"""
"""What the fragments of the README take for granted."""
OLDER = f"../checkout/{CLIENT}/node_modules/.bin/tsc"
"""The newest compiler no longer knows the way in which modules were resolved before packages had `exports`."""
STUBS = """
import { PreviewJobSchema, PreviewJobService, toJson, type PreviewJob } from "@docpreview/client/stubs";
export const told = (job: PreviewJob): string => JSON.stringify(toJson(PreviewJobSchema, job));
export const name: string = PreviewJobService.typeName;
"""


def run(command: str, folder: Path) -> str:
    """What a line of a shell prints."""
    words = ("bash", "-c", command)
    done = subprocess.run(words, cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty project, with the client from a checkout installed by the README's line, and a compiler."""
    need("node")
    need("npm")
    folder = tmp_path_factory.mktemp("typescript")
    # A copy, since the line builds in the checkout.
    for name in run(f"git ls-files --cached --others --exclude-standard {CLIENT}", ROOT).split("\n"):
        if name and (ROOT / name).exists():
            (folder / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "checkout" / name)
    empty = folder / "project"
    empty.mkdir()
    run("npm init --yes", empty)
    (folder / "docpreview-gateway").symlink_to("checkout")  # what is true of a link is true of the folder
    run(INSTALL, empty)
    run(COMPILER, empty)
    return empty


@pytest.mark.parametrize("suffix", ["mts", "cts"])
async def test_the_program_of_the_readme_makes_page_images_of_a_local_file(project: Path, suffix: str) -> None:
    """As an ES module and as CommonJS, from the very same text."""
    assert len([line for line in PROGRAM.split("\n") if line]) <= 11
    (project / f"preview.{suffix}").write_text(PROGRAM)
    run(f"{COMPILE} preview.{suffix}", project)
    pages = project / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    async with Emulator() as emulator, World(emulator, {}) as world:
        process = await asyncio.create_subprocess_exec(
            *("node", f"preview.{suffix.replace('ts', 'js')}", ROOT / "examples/seven-pages.pdf", BUCKET, world.target),
            cwd=project,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, printed.decode()
    assert printed.decode().split() == [f"pages/page-000{number}.jpg" for number in range(1, 8)]
    found = sorted(path for path in pages.iterdir() if path.suffix == ".jpg")
    assert [path.name for path in found] == [f"page-000{number}.jpg" for number in range(1, 8)]
    assert all(path.read_bytes().startswith(b"\xff\xd8\xff") for path in found)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("stubs.mts", "npx tsc --module nodenext"),
        ("stubs.cts", "npx tsc --module nodenext"),
        ("stubs.ts", f"{OLDER} --module commonjs --moduleResolution node10 --target es2022"),
        ("stubs.ts", "npx tsc --module esnext --moduleResolution bundler --target es2022 --lib es2022,dom --types ''"),
    ],
    ids=["import", "require", "before exports", "browser"],
)
def test_the_stubs_have_types_for_every_way_of_resolving_modules(project: Path, name: str, command: str) -> None:
    """A browser's has no types of Node.js."""
    (project / name).write_text(STUBS)
    run(f"{command} --strict --noEmit {name}", project)


def test_the_fragments_of_the_readme_compile(project: Path) -> None:
    """Each in a function of its own."""
    found = run_by(f"{HERE}::test_the_fragments_of_the_readme_compile")
    functions = [f"export async function fragment{at}() {{\n{block.text}}}\n" for at, block in enumerate(found)]
    assert len(functions) == 3
    (project / "fragments.mts").write_text("".join([FRAGMENTS, *functions]))
    run(f"{COMPILE} --noEmit fragments.mts", project)


def test_the_package_has_its_licence_its_repository_and_few_dependencies(project: Path) -> None:
    """What a reader of the registry sees; nothing of tests or conformance is in it."""
    package = project / "node_modules/@docpreview/client"
    manifest = json.loads((package / "package.json").read_text())
    assert (package / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert manifest["repository"]["directory"] == CLIENT
    assert set(manifest["dependencies"]) == {"@grpc/grpc-js", "@bufbuild/protobuf"}
    names = sorted(path.name for path in package.iterdir())
    assert names == ["LICENSE", "README.md", "dist", "package.json", "src"]
    assert sorted(path.name for path in (package / "dist").iterdir()) == ["cjs", "src"]
