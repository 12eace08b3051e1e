"""A running fake gateway and a client of it for each test."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from docpreview_client import ClientOptions, DocPreviewClient

from .fake_gateway import FakeGateway
from .fake_storage import FakeStorage


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway() as running:
        yield running


@pytest_asyncio.fixture
async def client(gateway: FakeGateway) -> AsyncIterator[DocPreviewClient]:
    async with DocPreviewClient(gateway.target) as opened:
        yield opened


@pytest_asyncio.fixture
async def once(gateway: FakeGateway) -> AsyncIterator[DocPreviewClient]:
    """A client that makes creates once."""
    async with DocPreviewClient(gateway.target, options=ClientOptions(request_ids=False)) as opened:
        yield opened


@pytest.fixture
def storage() -> Iterator[FakeStorage]:
    with FakeStorage() as running:
        yield running
