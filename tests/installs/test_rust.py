"""The Rust crate as it would be published, in a project that knows nothing else of this repository."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from docpreview_emulator import Emulator
from tests.conformance.languages import CLIENTS, ROOT
from tests.conformance.world import World
from tests.documents.blocks import run_by
from tests.documents.session import commands
from tests.programs import need

CRATE = CLIENTS / "rust"
HERE = "tests/installs/test_rust.py"
# Kept, so that a second run compiles nothing but the crate; below what the client's own builds are kept in.
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", CRATE / "target")) / "installs"
ADDRESS = "127.0.0.1:50051"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # compiles the crate and all that it needs


FRAGMENTS = """#![allow(unused)]
use std::time::Duration;

use docpreview_client::v1::{CreatePreviewJobRequest, GetPreviewJobRequest, PreviewJob, Retry, WaitPreviewJobRequest};
use docpreview_client::{Client, Error, Kind, Tls, tonic};
use tokio::time::sleep;

fn main() {}
fn read_token() -> String { String::new() }
fn with_traceparent(request: tonic::Request<()>) -> tonic::Request<()> { request }
fn show(job: PreviewJob) {}
struct Given {
    client: Client, create: CreatePreviewJobRequest, get: GetPreviewJobRequest,
    ca: Vec<u8>, chain: Vec<u8>, key: Vec<u8>,
}
"""
"""What the fragments of the README take for granted."""
FUNCTION = """
async fn fragmentNUMBER(given: Given, bucket: &str, file: &str) -> Result<(), Error> {
    let Given { client, create, get, ca, chain, key } = given;
    let request = REQUEST;
    FRAGMENT
    Ok(())
}
"""


def shell(line: str, folder: Path) -> str:
    """What a line prints there, with the crates that are built already."""
    need("cargo")
    done = subprocess.run(
        ("bash", "-c", line),  # noqa: S607 - on the PATH
        cwd=folder,
        env=os.environ | {"CARGO_TARGET_DIR": str(BUILT)},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout[-8000:]}"
    return done.stdout


def cargo(*arguments: str, folder: Path) -> None:
    """Runs cargo there; what it prints is the message when it fails."""
    done = subprocess.run(
        (need("cargo"), *arguments),
        cwd=folder,
        env=os.environ | {"CARGO_TARGET_DIR": str(BUILT)},
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"cargo {' '.join(arguments)}\n{done.stdout[-8000:]}"


@pytest.fixture(scope="module")
def crate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, unpacked as cargo would."""
    cargo("package", "--locked", "--allow-dirty", "--no-verify", folder=CRATE)
    (packed,) = (BUILT / "package").glob("docpreview-client-*.crate")
    unpacked = tmp_path_factory.mktemp("registry")
    with tarfile.open(packed) as archive:
        archive.extractall(unpacked, filter="data")
    (folder,) = unpacked.iterdir()
    return folder


def test_the_crate_has_its_license_and_tells_where_it_comes_from(crate: Path) -> None:
    """Whoever gets the package alone has both."""
    assert (crate / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert 'repository = "https://' in (crate / "Cargo.toml").read_text()


@pytest.fixture
def project(crate: Path, tmp_path: Path) -> Path:
    """An empty folder, with what the README calls a clone beside it: the crate, and the examples."""
    clone = tmp_path / "docpreview-gateway"
    (clone / "clients").mkdir(parents=True)
    (clone / "clients" / "rust").symlink_to(crate)
    (clone / "examples").symlink_to(ROOT / "examples")
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def lines_and_program() -> tuple[list[str], str]:
    """The commands of the README that make a project, and its program."""
    found = run_by(f"{HERE}::test_the_program_of_the_readme_makes_pages_with_the_crate_alone")
    lines = [words for block in found if block.language == "console" for words, _ in commands(block.text)]
    (program,) = (block.text for block in found if block.language == "rust")
    return lines, program


async def test_the_program_of_the_readme_makes_pages_with_the_crate_alone(project: Path) -> None:
    """An empty project outside of the tree, with the lines of the README."""
    lines, program = lines_and_program()
    for line in lines:
        shell(line, project)
    async with Emulator() as emulator, World(emulator, {}) as world:
        assert ADDRESS in program
        (project / "src" / "main.rs").write_text(program.replace(ADDRESS, world.target))
        printed = await asyncio.to_thread(shell, "cargo run --quiet", project)
    names = [f"pages/page-{number:04}.jpg" for number in range(1, 8)]
    assert printed.split() == names
    assert all((project / name).read_bytes().startswith(b"\xff\xd8") for name in names)


def test_the_fragments_of_the_readme_compile(project: Path) -> None:
    """Each in a function of its own."""
    found = run_by(f"{HERE}::test_the_fragments_of_the_readme_compile")
    functions = [
        FUNCTION.replace("NUMBER", str(number))
        .replace("REQUEST", "get" if "client.get" in block.text else "create")
        .replace("FRAGMENT", block.text)
        for number, block in enumerate(found)
    ]
    assert len(functions) == 4
    for line in lines_and_program()[0]:
        shell(line, project)
    (project / "src" / "main.rs").write_text("\n".join([FRAGMENTS, *functions]))
    shell("cargo add tokio --features time && cargo check --quiet", project)
