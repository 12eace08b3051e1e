"""A gateway in front of an emulator, both on free loopback ports, and a client that talks to it."""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from docpreview_client import ClientOptions, DocPreviewClient
from docpreview_emulator import Emulator
from docpreview_gateway.settings.loading import Settings
from docpreview_gateway.settings.sections import BucketSettings, CredentialSettings, DrainSettings, WatchSettings
from docpreview_gateway.settings.upstream import BreakerSettings, CacheSettings, RetrySettings, UpstreamSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.deployments import deployed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from tests.fakes.raw_server import RawServer

BUCKET = "examplebucket-1250000000"
OTHER_BUCKET = "previews-1250000000"
REGION = "ap-chongqing"


ONCE = ClientOptions(request_ids=False)
"""Creates are made once, so that the gateway's answers are tested and not the client's retries."""


@dataclass
class World:
    """An emulator, a gateway in front of it, and a client: the parts that a test controls and inspects."""

    emulator: Emulator
    gateway: Gateway
    client: DocPreviewClient

    async def upload(self, key: str, data: bytes) -> None:
        """Put a source document into the bucket."""
        self.emulator.put_object(BUCKET, REGION, key, data)


_SCRATCH = tempfile.TemporaryDirectory(prefix="docpreview-tests-", ignore_cleanup_errors=True)
"""Temporary directory for the state of gateways, removed when the tests end."""


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Poll until another process, or the gateway after it has answered, has brought the condition about."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.02)


async def eventually(condition: Callable[[], Awaitable[bool]], *, expected: bool = True, seconds: float = 60) -> None:
    """As `until`, for a condition that has to be asked for."""
    async with asyncio.timeout(seconds):
        while await condition() is not expected:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.05)


def settings(emulator: Emulator | RawServer, **changes: object) -> Settings:
    """Settings of a gateway whose cloud is `emulator`."""
    values: dict[str, object] = {
        "listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "state_dir": Path(tempfile.mkdtemp(dir=_SCRATCH.name)),
        "buckets": [
            BucketSettings(name=BUCKET, region=REGION, credentials="main"),
            BucketSettings(name=OTHER_BUCKET, region=REGION, credentials="main"),
        ],
        "credentials": {
            "main": CredentialSettings(secret_id="example-secret-id", secret_key="EXAMPLEsecretKEY00000000000000000")
        },
        "upstream": UpstreamSettings(
            endpoint=emulator.url, object_url_base=f"{emulator.url}/_emulator/objects/{{host}}"
        ),
        # Tests of the cloud's behaviour need its own answer, not a cached one; test_gateway_cache.py sets other ages.
        "cache": CacheSettings(active_seconds=0, missing_seconds=0, list_seconds=0, stale_seconds=0),
        # Likewise without limits and protection; test_gateway_resilience.py sets others.
        "retry": RetrySettings(max_retries=0),
        "breaker": BreakerSettings(min_calls=0),
        "watch": WatchSettings(poll_floor_seconds=0.05, poll_cap_seconds=0.2),
        "drain": DrainSettings(delay_seconds=0, grace_seconds=5),
    }
    return Settings.model_validate(deployed(values | changes))


@pytest.fixture
def log_of_the_tests() -> Iterator[None]:
    """Commands that run in the process of the tests set up a log, which is not for those that follow."""
    handlers, level, hook = logging.root.handlers[:], logging.root.level, sys.unraisablehook
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    sys.unraisablehook = hook


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Emulator, gateway and client."""
    async with (
        Emulator() as emulator,
        Gateway(settings(emulator)) as gateway,
        DocPreviewClient(f"127.0.0.1:{gateway.port}", options=ONCE) as client,
    ):
        yield World(emulator, gateway, client)
