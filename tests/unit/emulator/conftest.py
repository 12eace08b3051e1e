from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from docpreview_emulator import Emulator, Settings
from tests.programs import need

from .cloud_client import BUCKET, REGION, Cloud
from .pdf_files import pdf

QUICK = Settings(submit_delay=0.0)


@pytest.fixture
async def emulator(tmp_path: Path) -> AsyncIterator[Emulator]:
    async with Emulator(tmp_path / "data", settings=QUICK) as running:
        running.put_object(BUCKET, REGION, "seven.pdf", pdf(7))
        yield running


@pytest.fixture
async def cloud(emulator: Emulator) -> AsyncIterator[Cloud]:
    async with Cloud(emulator.url) as client:
        yield client


@pytest.fixture
def _office() -> None:
    need("soffice")
