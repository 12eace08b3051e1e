"""The programs of the Python client's README and its examples, run as they stand but for names and addresses."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.documents.blocks import run_by
from tests.integration.conftest import BUCKET
from tests.unit.emulator.office_files import workbook

if TYPE_CHECKING:
    from tests.integration.conftest import World

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "clients" / "python"
SEVEN = ROOT / "examples" / "seven-pages.pdf"
HERE = "tests/integration/test_python_readme.py"


async def printed(folder: Path, *words: str, code: int = 0) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == code, output.decode()
    return output.decode()


async def run(test: str, world: World, folder: Path) -> str:
    """What the program of the README that a test runs prints, for the gateway and the document of the test."""
    (text,) = (block.text for block in run_by(f"{HERE}::{test}"))
    for there, here in (
        ("dns:///docpreview:50051", f"127.0.0.1:{world.gateway.port}"),
        ("docs-1250000000", BUCKET),
        ("a.pptx", "a.pdf"),
    ):
        assert there in text
        text = text.replace(there, here)
    return await printed(folder, "-c", text)


async def test_the_readmes_first_program_turns_a_local_file_into_pages_on_disk(world: World, tmp_path: Path) -> None:
    shutil.copy(SEVEN, tmp_path / "a.pdf")
    assert "page-0007.jpg" in await run(
        "test_the_readmes_first_program_turns_a_local_file_into_pages_on_disk", world, tmp_path
    )
    assert len(list((tmp_path / "pages").glob("*.jpg"))) == 7


async def test_the_readmes_program_with_options_makes_the_pages_that_it_asks_for(world: World, tmp_path: Path) -> None:
    shutil.copy(SEVEN, tmp_path / "a.pdf")
    printed = await run("test_the_readmes_program_with_options_makes_the_pages_that_it_asks_for", world, tmp_path)
    assert printed.strip() == "3 pages in pages"
    assert [file.name for file in sorted((tmp_path / "pages").glob("*.png"))] == [
        f"page-000{number}.png" for number in (1, 3, 4)
    ]


async def test_the_readmes_last_program_prints_the_addresses_of_all_pages(world: World, tmp_path: Path) -> None:
    await world.upload("a.pdf", SEVEN.read_bytes())
    printed = await run("test_the_readmes_last_program_prints_the_addresses_of_all_pages", world, tmp_path)
    assert printed.count("q-signature=") == 7


@pytest.mark.parametrize("count", [1, 3])
async def test_the_example_of_many_documents_brings_home_the_pages_of_each(
    world: World, tmp_path: Path, count: int
) -> None:
    names = [f"{number}.pdf" for number in range(count)]
    for name in names:
        shutil.copy(SEVEN, tmp_path / name)
    target = f"127.0.0.1:{world.gateway.port}"
    output = await printed(tmp_path, str(CLIENT / "examples" / "preview_many.py"), BUCKET, "pages", target, *names)
    assert output.splitlines() == [f"{name} 7 pages" for name in names]
    assert [len(list((tmp_path / "pages" / name).glob("*.jpg"))) for name in names] == [7] * count


async def test_the_example_of_many_documents_goes_on_after_one_that_fails(world: World, tmp_path: Path) -> None:
    """Documents of one stem have directories of their own; a workbook has a template with sheets."""
    shutil.copy(SEVEN, tmp_path / "a.pdf")
    (tmp_path / "a.xlsx").write_bytes(workbook({"One": [["a"]], "Two": [["b"]]}))
    (tmp_path / "empty.pdf").touch()
    (tmp_path / "broken.docx").write_bytes(b"no document")
    names = ["empty.pdf", "broken.docx", "a.pdf", "missing.pdf", "a.xlsx"]
    target = f"127.0.0.1:{world.gateway.port}"
    example = str(CLIENT / "examples" / "preview_many.py")
    output = (await printed(tmp_path, example, BUCKET, "pages", target, *names, code=1)).splitlines()
    assert output[0].endswith("empty.pdf is empty")
    assert output[2] == "a.pdf 7 pages"
    assert output[3].startswith("missing.pdf [Errno 2]")
    assert output[4] == "a.xlsx 2 pages"
    assert output[5] == "3 of 5 documents have no pages"
    assert sorted(file.name for file in (tmp_path / "pages").iterdir()) == ["a.pdf", "a.xlsx", "broken.docx"]
