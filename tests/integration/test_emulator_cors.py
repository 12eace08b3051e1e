"""A page in a real browser whose script uses the emulator's object hosts by addresses that were signed for it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from aiohttp import web

from docpreview_emulator import Emulator, Settings
from tests.chromium import chromium
from tests.unit.emulator.cloud_client import BUCKET, COS_HOST, REGION, Signer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

# Uploads with a header that browsers ask about first, reads a part, and a key that is not there.
SCRIPT = """(async ([put, get, missing]) => {
  const sent = await fetch(put, {method: "PUT", body: "0123456789", headers: {"x-cos-meta-colour": "red"}});
  const part = await fetch(get, {headers: {Range: "bytes=2-4"}});
  const none = await fetch(missing);
  return [sent.status, sent.headers.get("x-cos-hash-crc64ecma"), part.status, await part.text(),
          part.headers.get("Content-Range"), none.status, (await none.text()).match(/<Code>(.*)<.Code>/)[1]];
})"""


def signed(emulator: Emulator, method: str, key: str) -> str:
    query = urlencode(Signer().sign(method, f"/{key}", {}, {"host": COS_HOST}))
    return f"{emulator.url}/_emulator/objects/{COS_HOST}/{key}?{query}"


async def test_a_script_uploads_and_reads_by_signed_addresses_if_its_origin_is_allowed(tmp_path: Path) -> None:
    async with (
        page_server() as allowed,
        page_server() as other,
        chromium(tmp_path) as browser,
        running(allowed) as cloud,
    ):
        addresses = [signed(cloud, *call) for call in (("PUT", "k"), ("GET", "k"), ("GET", "missing"))]
        call = f"{SCRIPT}({json.dumps(addresses)})"
        await browser.open(other)
        assert await browser.value(f"{call}.catch(error => error.name)") == "TypeError"
        await browser.open(allowed)
        status, checksum, *read = await browser.value(call)
        assert (status, read) == (200, [206, "234", "bytes 2-4/10", 404, "NoSuchKey"])
        assert checksum.isdigit()
        assert cloud.get_object(BUCKET, REGION, "k") == b"0123456789"


def running(origin: str) -> Emulator:
    return Emulator(settings=Settings(cors_origins=(origin,)))


@asynccontextmanager
async def page_server() -> AsyncIterator[str]:
    """The origin of an empty page."""

    async def page(_request: web.BaseRequest) -> web.Response:
        return web.Response(
            text="<!doctype html><link rel=icon href=data:,><title>a page</title>", content_type="text/html"
        )

    runner = web.ServerRunner(web.Server(page))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()
