"""Signed addresses of pages, judged by the emulator, which checks signatures with code of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from google.protobuf.duration_pb2 import Duration

from docpreview.v1.preview_job_pb2 import ObjectLocation, Page, PreviewJob, PreviewResult
from docpreview_emulator import Credential, Emulator
from docpreview_gateway.access.bucket_registry import BucketRegistry
from docpreview_gateway.jobs.page_urls import PageUrls
from docpreview_gateway.upstream.wire.signing import Credentials
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.fakes.clock import FakeClock
from tests.fakes.credentials import FakeCredentials
from tests.unit.conftest import BUCKET, OTHER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview_gateway.model.call import Clock

TTL = Duration(seconds=60)
KEYS = ["out/p-1.jpg", "out/with space & plus+.jpg", "out/预览/幻灯片-2.jpg", "out/100%25?a=b#c.jpg", "out/~'()*!.jpg"]


def job(*keys: str, bucket: str = BUCKET.name) -> PreviewJob:
    pages = [Page(page_number=number, object=key) for number, key in enumerate(keys, 1)]
    return PreviewJob(
        job_id="d1", bucket=BUCKET.name, output=ObjectLocation(bucket=bucket), result=PreviewResult(pages=pages)
    )


def page_urls(
    credentials: FakeCredentials | None = None, *, base: str | None = None, clock: Clock | None = None
) -> PageUrls:
    register = BucketRegistry([BUCKET, OTHER])
    return PageUrls(register, credentials or FakeCredentials(), clock or SystemClock(), base=base)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as running:
        for key in KEYS:
            running.put_object(BUCKET.name, BUCKET.region, key, key.encode())
        yield running


async def fetch(url: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as browser:
        return await browser.get(url, headers=headers)


class TestOpening:
    async def test_with_a_base_for_the_buckets_host(self, emulator: Emulator) -> None:
        """Every address opens its own page, whatever characters its key has."""
        base = f"{emulator.url}/_emulator/objects/{{host}}/"
        filled = await page_urls(base=base).fill(job(*KEYS), TTL)
        for page in filled.result.pages:
            answer = await fetch(page.url)
            assert (answer.status_code, answer.content.decode()) == (200, page.object)

    async def test_with_the_host_of_the_bucket(self, emulator: Emulator) -> None:
        """Without a base the address is that of the bucket's object host, and its signature good there."""
        filled = await page_urls().fill(job(*KEYS), TTL)
        for page in filled.result.pages:
            assert page.url.startswith(f"https://{BUCKET.object_host}/out/")
            target = page.url.removeprefix(f"https://{BUCKET.object_host}")
            answer = await fetch(emulator.url + target, host=BUCKET.object_host)
            assert (answer.status_code, answer.content.decode()) == (200, page.object)

    async def test_with_another_host(self, emulator: Emulator) -> None:
        """An address that was signed for one bucket does not open the same key in another."""
        emulator.put_object(OTHER.name, OTHER.region, KEYS[0], b"secret")
        url = (await page_urls().fill(job(KEYS[0]), TTL)).result.pages[0].url
        answer = await fetch(emulator.url + url.removeprefix(f"https://{BUCKET.object_host}"), host=OTHER.object_host)
        assert answer.status_code == 403

    async def test_with_temporary_keys(self, emulator: Emulator) -> None:
        """The token of temporary keys stands in the query, where a browser sends it."""
        emulator.credentials["temp-id"] = Credential("temp-id", "temp-key", token="the/token+=")
        credentials = FakeCredentials(main=Credentials("temp-id", "temp-key", "the/token+="))
        base = f"{emulator.url}/_emulator/objects/{{host}}"
        url = (await page_urls(credentials, base=base).fill(job(KEYS[0]), TTL)).result.pages[0].url
        assert parse_qs(urlsplit(url).query)["x-cos-security-token"] == ["the/token+="]
        assert (await fetch(url)).status_code == 200

    async def test_after_their_time(self, emulator: Emulator) -> None:
        """An address stops to open when its time is over."""
        base = f"{emulator.url}/_emulator/objects/{{host}}"
        url = (await page_urls(base=base).fill(job(KEYS[0]), TTL)).result.pages[0].url
        emulator.clock.offset_seconds = 55
        assert (await fetch(url)).status_code == 200
        emulator.clock.offset_seconds = 65
        assert (await fetch(url)).status_code == 403

    async def test_every_page_of_a_large_job_is_signed(self, emulator: Emulator) -> None:
        """Jobs with thousands of pages are signed beside the event loop, with the same result."""
        base = f"{emulator.url}/_emulator/objects/{{host}}"
        filled = await page_urls(base=base).fill(job(*[KEYS[0]] * 500), TTL)
        assert all(page.url for page in filled.result.pages)
        assert (await fetch(filled.result.pages[499].url)).status_code == 200


class TestWhatIsSigned:
    @pytest.mark.parametrize(("ttl", "end"), [(TTL, 1060), (Duration(nanos=5), 1001), (Duration(seconds=3600), 4600)])
    async def test_a_page_url_is_valid_from_now_for_its_ttl_at_least_a_second(self, ttl: Duration, end: int) -> None:
        """The address is valid for `ttl` from now, at least a second."""
        filled = await page_urls(clock=FakeClock(1000)).fill(job("p"), ttl)
        assert parse_qs(urlsplit(filled.result.pages[0].url).query)["q-sign-time"] == [f"940;{end}"]

    async def test_without_a_ttl_there_are_no_page_urls(self) -> None:
        """Without a time there are no addresses."""
        given = job("p")
        assert await page_urls().fill(given, None) is given

    async def test_job_without_pages(self) -> None:
        """Nothing to sign."""
        given = job()
        assert await page_urls().fill(given, TTL) is given

    @pytest.mark.parametrize("bucket", ["", "stranger-1250000000"])
    async def test_results_in_a_bucket_that_is_not_configured(self, bucket: str) -> None:
        """No address: the gateway's key opens only what the configuration names."""
        given = job("p", bucket=bucket)
        assert await page_urls().fill(given, TTL) is given

    async def test_other_output_bucket(self) -> None:
        """The results' own bucket counts, not the source's."""
        filled = await page_urls().fill(job("p", bucket=OTHER.name), TTL)
        assert filled.result.pages[0].url.startswith(f"https://{OTHER.object_host}/p?")

    async def test_job_that_others_hold(self) -> None:
        """A job that is shared with other callers never gets their addresses: a copy is filled."""
        given = job("p")
        filled = await page_urls().fill(given, TTL)
        assert filled is not given
        assert given.result.pages[0].url == ""

    async def test_each_job_of_a_batch_is_filled_with_page_urls(self) -> None:
        """Each job of a batch is filled."""
        filled = await page_urls().fill_all([job("p"), job("q"), job()], TTL)
        assert [len(found.result.pages[0].url) > 0 for found in filled if found.result.pages] == [True, True]
