"""The Go module as it would be published, by a tag, in a module that knows nothing else of this repository."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from docpreview_emulator import Emulator
from tests.conformance.languages import ROOT
from tests.conformance.world import World
from tests.documents.blocks import run_by
from tests.documents.session import commands
from tests.programs import need

HERE = "tests/installs/test_go.py"
REPOSITORY = "github.com/docpreview/docpreview-gateway"
MODULE = f"{REPOSITORY}/clients/go"
VERSION = "v0.1.0"
ADDRESS = "127.0.0.1:50051"

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


FRAGMENTS = """package fragments

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	docpreview "github.com/docpreview/docpreview-gateway/clients/go"
	docpreviewv1 "github.com/docpreview/docpreview-gateway/clients/go/docpreview/v1"
	cos "github.com/tencentyun/cos-go-sdk-v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

var (
	ctx                 context.Context
	client              *docpreview.Client
	request             *docpreviewv1.GetPreviewJobRequest
	secretID, secretKey string
)

func readToken() (string, error) { return "", nil }
func forget(jobID string)        {}
"""
"""What the fragments of the documents take for granted."""
AROUND = {
    "var trailer": "func metadataOfACall() {\n%s\n\t_, _ = job, err\n}",
    "config, err": "func connection() {\n%s\n\t_, _ = client, err\n}",
    "var failed": "func failure(err error) {\n%s}",
    "base, _": "func before() error {\n%s\treturn nil\n}",
    "client, err": "func after() error {\n%s\treturn nil\n}",
}
"""The function around each fragment, by its beginning."""


def test_the_fragments_of_the_documents_compile(tmp_path: Path) -> None:
    """Those of the client's README, and the program before and after the migration from the vendor's SDK."""
    found = [block.text for block in run_by(f"{HERE}::test_the_fragments_of_the_documents_compile")]
    functions = [AROUND[text[: text.index(" ", text.index(" ") + 1)].rstrip(":= ")] % text for text in found]
    assert len(set(functions)) == len(AROUND)
    (tmp_path / "fragments.go").write_text("\n".join([FRAGMENTS, *functions]))
    go = need("go")
    for words in (
        ("mod", "init", "fragments"),
        ("mod", "edit", f"-replace={MODULE}={ROOT / 'clients' / 'go'}"),
        ("mod", "tidy"),
        ("vet", "."),
    ):
        run(go, *words, folder=tmp_path)


def test_the_module_has_its_license(released: dict[str, str], tmp_path: Path) -> None:
    """Whoever gets the module alone has it; its path is the address of the repository."""
    run(need("go"), "mod", "download", f"{MODULE}@{VERSION}", folder=tmp_path, env=released)
    module = Path(released["GOMODCACHE"]) / f"{MODULE}@{VERSION}"
    assert (module / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


async def test_the_program_of_the_readme_makes_pages_with_the_released_module(
    released: dict[str, str], tmp_path: Path
) -> None:
    """An empty module outside of the tree, with the lines of the README."""
    module = await _makes_pages(
        tmp_path, "test_the_program_of_the_readme_makes_pages_with_the_released_module", released
    )
    assert f"{MODULE} {VERSION}" in (module / "go.mod").read_text()


async def test_the_program_of_the_readme_makes_pages_with_the_checkout(tmp_path: Path) -> None:
    """As before, with the line for today."""
    await _makes_pages(tmp_path, "test_the_program_of_the_readme_makes_pages_with_the_checkout", {})


async def test_the_tests_of_a_service_pass(tmp_path: Path) -> None:
    """Those of docs/testing.md, beside a gateway."""
    found = run_by(f"{HERE}::test_the_tests_of_a_service_pass")
    (program,) = (block.text for block in found if block.language == "go")
    ((line, _),) = (found for block in found if block.language == "console" for found in commands(block.text))
    assert ADDRESS in line
    (tmp_path / "reports_test.go").write_text(program)
    (tmp_path / "a.pdf").write_bytes((ROOT / "examples" / "seven-pages.pdf").read_bytes())
    go = need("go")
    for words in (
        ("mod", "init", "reports"),
        ("mod", "edit", f"-replace={MODULE}={ROOT / 'clients' / 'go'}"),
        ("mod", "tidy"),
    ):
        run(go, *words, folder=tmp_path)
    async with Emulator() as emulator, World(emulator, {}) as world:
        tested = line.replace(ADDRESS, world.target).replace("go test", "go test -v")
        printed = await asyncio.to_thread(run, "bash", "-c", tested, folder=tmp_path)
    assert printed.count("--- PASS") == 2, printed


async def _makes_pages(folder: Path, test: str, env: dict[str, str]) -> Path:
    """The program of the README, by the lines of the README that this test runs, in a module beside the checkout."""
    found = run_by(f"{HERE}::{test}")
    (program,) = (block.text for block in found if block.language == "go")
    lines = [words for block in found if block.language == "console" for words, _ in commands(block.text)]
    assert ADDRESS in program
    (folder / "docpreview-gateway").symlink_to(ROOT)
    module = folder / "pages"
    module.mkdir()
    run(need("go"), "mod", "init", "pages", folder=module)
    async with Emulator() as emulator, World(emulator, {}) as world:
        (module / "main.go").write_text(program.replace(ADDRESS, world.target))
        for line in lines:
            printed = await asyncio.to_thread(run, "bash", "-c", line, folder=module, env=env)
    names = [f"pages/page-{number:04}.jpg" for number in range(1, 8)]
    assert printed.strip("[]\n").split() == names
    assert all((module / name).read_bytes().startswith(b"\xff\xd8") for name in names)
    return module
