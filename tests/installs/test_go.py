"""The Go module as it would be published, by a tag, in a module that knows nothing else of this repository."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from docpreview_emulator import Emulator
from tests.conformance.languages import CLIENTS, ROOT
from tests.conformance.world import World
from tests.programs import need

README = (CLIENTS / "go" / "README.md").read_text()
REPOSITORY = "github.com/docpreview/docpreview-gateway"
MODULE = f"{REPOSITORY}/clients/go"
VERSION = "v0.1.0"
ADDRESS = "127.0.0.1:50051"
_RUN_SECONDS = 60

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # compiles gRPC, the first time


def run(*command: str, folder: Path, env: dict[str, str] | None = None) -> str:
    """Runs it there and returns what it prints, which is the message when it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | (env or {}),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-8000:]}"
    return done.stdout.strip()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare clone with the tag of a release, of the files as they are now."""
    bare = tmp_path_factory.mktemp("published") / "repository.git"
    author = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    git = ("git", f"--git-dir={bare}", f"--work-tree={ROOT}", *author)
    run("git", "clone", "--quiet", "--bare", str(ROOT), str(bare), folder=ROOT)
    run(*git, "read-tree", "HEAD", folder=ROOT)
    run(*git, "add", "--all", "clients/go", folder=ROOT)
    tree = run(*git, "write-tree", folder=ROOT)
    commit = run(*git, "commit-tree", "-p", "HEAD", "-m", "a release", tree, folder=ROOT)
    run(*git, "tag", "--force", f"clients/go/{VERSION}", commit, folder=ROOT)
    return bare


@pytest.fixture(scope="module")
def released(published: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The go command finds the module's tag in the bare clone, and the others where it usually does."""
    go = need("go")
    here = {name: run(go, "env", name, folder=ROOT) for name in ("GOMODCACHE", "GOPROXY")}
    return {
        "GOPRIVATE": REPOSITORY,
        "GOPROXY": f"file://{here['GOMODCACHE']}/cache/download,{here['GOPROXY']}",
        "GOMODCACHE": str(tmp_path_factory.mktemp("modules")),
        "GOFLAGS": "-modcacherw",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{published}.insteadOf",
        "GIT_CONFIG_VALUE_0": f"https://{REPOSITORY}",
    }


def line(beginning: str) -> str:
    """The command of the README that begins so."""
    found = re.search(rf"^    ({re.escape(beginning)}.*)$", README, re.MULTILINE)
    assert found is not None, f"the README has no line {beginning} ..."
    return found[1]


def test_the_module_has_its_license(released: dict[str, str], tmp_path: Path) -> None:
    """Whoever gets the module alone has it; its path is the address of the repository."""
    run(need("go"), "mod", "download", f"{MODULE}@{VERSION}", folder=tmp_path, env=released)
    module = Path(released["GOMODCACHE"]) / f"{MODULE}@{VERSION}"
    assert (module / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


async def test_the_program_of_the_readme_makes_pages_with_the_released_module(
    released: dict[str, str], tmp_path: Path
) -> None:
    """An empty module outside of the tree, with the lines of the README."""
    get = line(f"go get {MODULE}@latest").split()
    await _makes_pages(tmp_path, get, released)
    assert f"{MODULE} {VERSION}" in (tmp_path / "go.mod").read_text()


async def test_the_program_of_the_readme_makes_pages_with_the_checkout(tmp_path: Path) -> None:
    """As before, with the line for today."""
    edit = line(f"go mod edit -replace {MODULE}=").split()
    edit[-1] = edit[-1].replace("../docpreview-gateway", str(ROOT))
    await _makes_pages(tmp_path, edit, {})


async def _makes_pages(folder: Path, install: list[str], env: dict[str, str]) -> None:
    go = need("go")
    program = re.search(r"```go\n(package main.*?)```", README, re.DOTALL)
    assert program is not None
    assert ADDRESS in program[1]
    shutil.copy(ROOT / "examples" / "seven-pages.pdf", folder)
    async with Emulator() as emulator, World(emulator, {}) as world:
        (folder / "main.go").write_text(program[1].replace(ADDRESS, world.target))
        commands = (["go", "mod", "init", "pages"], install, ["go", "mod", "tidy"], ["go", "build", "-o", "made"])
        for command in commands:
            await asyncio.to_thread(run, go, *command[1:], folder=folder, env=env)
        process = await asyncio.create_subprocess_exec(
            folder / "made",
            "seven-pages.pdf",
            cwd=folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await asyncio.wait_for(process.communicate(), _RUN_SECONDS)
    assert process.returncode == 0, printed.decode()
    names = [f"pages/page-{number:04}.jpg" for number in range(1, 8)]
    assert printed.decode().strip("[]\n").split() == names
    assert all((folder / name).read_bytes().startswith(b"\xff\xd8") for name in names)
