"""The commands and programs of the documents, run in their order, one session for each document."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.documents.blocks import blocks
from tests.documents.surroundings import fresh, paged, served
from tests.programs import PROGRAMS, need

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.documents.blocks import Block
    from tests.documents.surroundings import Sessions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RUN = [block for block in blocks() if not block.marked and block.language in {"console", "python"}]
RUNBOOKS = "docs/runbooks/"


def documents(*, runbooks: bool) -> list[str]:
    return sorted({block.document for block in RUN if block.document.startswith(RUNBOOKS) is runbooks})


def session_of(document: str) -> list[Block]:
    """Its blocks that are run, and the files that it has the reader write. The programs that they need are here."""
    found = [block for block in blocks() if block.document == document and not block.marked]
    for block in found:
        for name in PROGRAMS:
            if block.language == "console" and re.search(rf"(^\$ |[|(] *){name}\b", block.text, re.MULTILINE):
                need(name)
    return found


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def of_a_caller(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sessions]:
    async with served(tmp_path_factory.mktemp("documents")) as sessions:
        yield sessions


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def on_call(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Sessions]:
    async with paged(tmp_path_factory.mktemp("runbooks")) as sessions:
        yield sessions


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("document", documents(runbooks=False))
async def test_every_command_and_program_of_a_document_does_what_the_document_says(
    document: str, of_a_caller: Sessions, tmp_path: Path
) -> None:
    """In its order, and with the output that it shows.

    A document that starts servers has its own, the others find those that their reader has.
    """
    found = session_of(document)
    starts = any(
        re.search(r"docpreview-(gateway|emulator) serve|docpreview-gateway dev", block.text) for block in found
    )
    await (fresh if starts else of_a_caller)(tmp_path / "session").run(found)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("document", documents(runbooks=True))
async def test_every_command_of_a_runbook_works_beside_a_gateway_with_redis_and_prometheus(
    document: str, on_call: Sessions, tmp_path: Path
) -> None:
    """`kubectl` is a stand-in that knows what the chart calls its objects."""
    await on_call(tmp_path / "session").run(session_of(document))
