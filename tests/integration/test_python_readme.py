"""The programs of the Python client's README and its examples, run as they stand but for names and addresses."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.conftest import BUCKET

if TYPE_CHECKING:
    from tests.integration.conftest import World

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients" / "python"
SEVEN = ROOT / "examples" / "seven-pages.pdf"
PROGRAMS = [
    text
    for text in re.findall(r"^```python\n(.*?)^```", (CLIENT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    if "import " in text
]


async def printed(folder: Path, *words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, output.decode()
    return output.decode()


async def run(text: str, world: World, folder: Path) -> str:
    """What a program of the README prints, for the gateway and the document of the test."""
    for there, here in (
        ("dns:///docpreview:50051", f"127.0.0.1:{world.gateway.port}"),
        ("docs-1250000000", BUCKET),
        ("a.pptx", "a.pdf"),
    ):
        assert there in text
        text = text.replace(there, here)
    return await printed(folder, "-c", text)


def test_the_readme_has_a_program_for_each_client() -> None:
    assert ["BlockingClient" in text for text in PROGRAMS] == [True, False]


async def test_the_readmes_first_program_turns_a_local_file_into_pages_on_disk(world: World, tmp_path: Path) -> None:
    shutil.copy(SEVEN, tmp_path / "a.pdf")
    assert "page-0007.jpg" in await run(PROGRAMS[0], world, tmp_path)
    assert len(list((tmp_path / "pages").glob("*.jpg"))) == 7


async def test_the_readmes_second_program_prints_the_addresses_of_all_pages(world: World, tmp_path: Path) -> None:
    await world.upload("a.pdf", SEVEN.read_bytes())
    assert (await run(PROGRAMS[1], world, tmp_path)).count("q-signature=") == 7


@pytest.mark.parametrize("count", [1, 3])
async def test_the_example_of_many_documents_brings_home_the_pages_of_each(
    world: World, tmp_path: Path, count: int
) -> None:
    names = [f"{number}.pdf" for number in range(count)]
    for name in names:
        shutil.copy(SEVEN, tmp_path / name)
    target = f"127.0.0.1:{world.gateway.port}"
    output = await printed(tmp_path, str(CLIENT / "examples" / "preview_many.py"), BUCKET, "pages", target, *names)
    assert sorted(output.splitlines()) == [f"{number} 7 pages" for number in range(count)]
    assert len(list((tmp_path / "pages").glob("*/*.jpg"))) == 7 * count
