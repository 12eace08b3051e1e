"""A running fake gateway and a client of it for each test."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from docpreview_client import DocPreviewClient

from .fake_gateway import FakeGateway


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway() as running:
        yield running


@pytest_asyncio.fixture
async def client(gateway: FakeGateway) -> AsyncIterator[DocPreviewClient]:
    async with DocPreviewClient(gateway.target) as opened:
        yield opened
