import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from docpreview_emulator import Emulator, Settings
from tests.programs import need

from .cloud_client import BUCKET, REGION, Cloud
from .pdf_files import pdf

QUICK = Settings(submit_delay=0.0)


@pytest.fixture(scope="session")
def _profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the profile goes that LibreOffice has made for the first test: it takes seconds."""
    return tmp_path_factory.mktemp("office") / "profile"


@pytest.fixture
def data_dir(tmp_path: Path, _profile: Path) -> Iterator[Path]:
    """The data directory of an emulator, with LibreOffice's profile when there is one."""
    data, own = tmp_path / "data", tmp_path / "data" / "office"
    if _profile.exists():
        shutil.copytree(_profile, own, symlinks=True)
    yield data
    if own.exists() and not _profile.exists():
        shutil.copytree(own, _profile, symlinks=True)


@pytest.fixture
async def emulator(data_dir: Path) -> AsyncIterator[Emulator]:
    async with Emulator(data_dir, settings=QUICK) as running:
        running.put_object(BUCKET, REGION, "seven.pdf", pdf(7))
        yield running


@pytest.fixture
async def cloud(emulator: Emulator) -> AsyncIterator[Cloud]:
    async with Cloud(emulator.url) as client:
        yield client


@pytest.fixture
def _office() -> None:
    need("soffice")
