"""The Rust crate as it would be published, in a project that knows nothing else of this repository."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from docpreview_emulator import Emulator
from tests.conformance.languages import CLIENTS, ROOT
from tests.conformance.world import World
from tests.programs import need

CRATE = CLIENTS / "rust"
# Kept, so that a second run compiles nothing but the crate; below what the client's own builds are kept in.
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", CRATE / "target")) / "installs"
ADDRESS = "127.0.0.1:50051"
_RUN_SECONDS = 60

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # compiles the crate and all that it needs


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


async def test_the_program_of_the_readme_makes_pages_with_the_crate_alone(crate: Path, tmp_path: Path) -> None:
    """An empty project outside of the tree, with the lines of the README."""
    readme = (crate / "README.md").read_text()
    program = re.search(r"```rust\n(.*?)```", readme, re.DOTALL)
    assert program is not None
    assert "cargo add tokio --features macros,rt-multi-thread" in readme
    cargo("init", "--vcs", "none", "--name", "pages", folder=tmp_path)
    manifest = tmp_path / "Cargo.toml"
    manifest.write_text(
        f'{manifest.read_text()}docpreview-client = {{ path = "{crate}" }}\n'
        'tokio = { version = "1", features = ["macros", "rt-multi-thread"] }\n'
    )
    shutil.copy(ROOT / "examples" / "seven-pages.pdf", tmp_path)
    async with Emulator() as emulator, World(emulator, {}) as world:
        assert ADDRESS in program[1]
        (tmp_path / "src" / "main.rs").write_text(program[1].replace(ADDRESS, world.target))
        await asyncio.to_thread(cargo, "build", folder=tmp_path)
        process = await asyncio.create_subprocess_exec(
            BUILT / "debug" / "pages", cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        printed, _ = await asyncio.wait_for(process.communicate(), _RUN_SECONDS)
    assert process.returncode == 0, printed.decode()
    names = [f"pages/page-{number:04}.jpg" for number in range(1, 8)]
    assert printed.decode().split() == names
    assert all((tmp_path / name).read_bytes().startswith(b"\xff\xd8") for name in names)
