"""Documents that call, explode, never end or lie do not hurt: nothing is heard, shown or kept waiting."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops

from docpreview_emulator import Emulator, Settings
from docpreview_emulator.model import Job
from docpreview_emulator.sandbox import KINDS, LANDLOCK, LIMITS, NAMESPACES
from tests.programs import need

from .cloud_client import BUCKET, REGION, Cloud
from .hostile_files import (
    MAGENTA,
    Machine,
    calling,
    endless_pdf,
    exploding,
    lying,
    page_of_size,
    slow_workbook,
    zip_bomb,
)
from .office_files import letter
from .office_jobs import converted
from .pdf_files import pdf

TIGHT = Settings(
    submit_delay=0,
    workers=3,
    conversion_timeout=20,
    max_cpu_time=6,
    max_files=100,
    max_unpacked=64,
    max_page_megapixels=20,
    max_job_megapixels=100,
)
ANOTHER_BUCKET = "anotherbucket-1250000000"


class Listener:
    """Hears every connection to its port, and every datagram."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.url = ""

    async def __aenter__(self) -> "Listener":
        self._server = await asyncio.start_server(self._hear, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard.append(await reader.readline())
        writer.close()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    async with Listener() as listening:
        yield listening


def shows_a_file_of_the_machine(emulator: Emulator, job: Job) -> bool:
    """Whether a page has many pixels in the colour of the files that no document may read."""
    pages = job.result.pages if job.result else ()
    return any(_magenta(emulator.get_object(BUCKET, REGION, page.target.removeprefix("/"))) > 50 for page in pages)


def _magenta(page: bytes) -> int:
    image = Image.open(io.BytesIO(page)).convert("RGB")
    apart = ImageChops.difference(image, Image.new("RGB", image.size, MAGENTA)).convert("L")
    return sum(apart.histogram()[:20])


async def all_ended(emulator: Emulator, documents: dict[str, bytes]) -> dict[str, Job]:
    """The jobs of all documents, which are converted beside each other."""

    async def one(cloud: Cloud, name: str, data: bytes) -> tuple[str, Job]:
        return name, await converted(emulator, cloud, name, data, f"{name}/${{SheetID}}/${{Number}}", TgtType="png")

    async with Cloud(emulator.url) as cloud:
        return dict(await asyncio.gather(*(one(cloud, *document) for document in documents.items())))
