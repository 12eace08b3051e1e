"""Presigned page URLs, checked by the emulator, which has its own implementation of signatures."""

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
    async def test_a_page_url_below_a_base_opens_its_page(self, emulator: Emulator) -> None:
        """Every URL opens its own page, for keys with any characters."""
        base = f"{emulator.url}/_emulator/objects/{{host}}/"
        filled = await page_urls(base=base).fill(job(*KEYS), TTL)
        for page in filled.result.pages:
            answer = await fetch(page.url)
            assert (answer.status_code, answer.content.decode()) == (200, page.object)

    async def test_a_page_url_without_a_base_is_on_the_object_host(self, emulator: Emulator) -> None:
        """The URL has the bucket's object host and a valid signature."""
        filled = await page_urls().fill(job(*KEYS), TTL)
        for page in filled.result.pages:
            assert page.url.startswith(f"https://{BUCKET.object_host}/out/")
            target = page.url.removeprefix(f"https://{BUCKET.object_host}")
            answer = await fetch(emulator.url + target, host=BUCKET.object_host)
            assert (answer.status_code, answer.content.decode()) == (200, page.object)

    async def test_a_page_url_is_not_valid_for_another_bucket(self, emulator: Emulator) -> None:
        """A URL signed for one bucket does not open the same key in another."""
        emulator.put_object(OTHER.name, OTHER.region, KEYS[0], b"secret")
        url = (await page_urls().fill(job(KEYS[0]), TTL)).result.pages[0].url
        answer = await fetch(emulator.url + url.removeprefix(f"https://{BUCKET.object_host}"), host=OTHER.object_host)
        assert answer.status_code == 403

    async def test_a_page_url_of_temporary_keys_has_their_token(self, emulator: Emulator) -> None:
        """The token is in the query, where a browser sends it."""
        emulator.credentials["temp-id"] = Credential("temp-id", "temp-key", token="the/token+=")
        credentials = FakeCredentials(main=Credentials("temp-id", "temp-key", "the/token+="))
        base = f"{emulator.url}/_emulator/objects/{{host}}"
        url = (await page_urls(credentials, base=base).fill(job(KEYS[0]), TTL)).result.pages[0].url
        assert parse_qs(urlsplit(url).query)["x-cos-security-token"] == ["the/token+="]
        assert (await fetch(url)).status_code == 200

    async def test_a_page_url_expires(self, emulator: Emulator) -> None:
        """A URL is refused after its lifetime."""
        base = f"{emulator.url}/_emulator/objects/{{host}}"
        url = (await page_urls(base=base).fill(job(KEYS[0]), TTL)).result.pages[0].url
        emulator.clock.offset_seconds = 55
        assert (await fetch(url)).status_code == 200
        emulator.clock.offset_seconds = 65
        assert (await fetch(url)).status_code == 403

    async def test_every_page_of_a_large_job_is_signed(self, emulator: Emulator) -> None:
        """Jobs with many pages are signed in a thread, with the same result."""
        base = f"{emulator.url}/_emulator/objects/{{host}}"
        filled = await page_urls(base=base).fill(job(*[KEYS[0]] * 500), TTL)
        assert all(page.url for page in filled.result.pages)
        assert (await fetch(filled.result.pages[499].url)).status_code == 200


class TestWhatIsSigned:
    @pytest.mark.parametrize(("ttl", "end"), [(TTL, 1060), (Duration(nanos=5), 1001), (Duration(seconds=3600), 4600)])
    async def test_a_page_url_is_valid_from_now_for_its_ttl_at_least_a_second(self, ttl: Duration, end: int) -> None:
        """The signature ends `ttl` seconds from now, and not before one second."""
        filled = await page_urls(clock=FakeClock(1000)).fill(job("p"), ttl)
        assert parse_qs(urlsplit(filled.result.pages[0].url).query)["q-sign-time"] == [f"940;{end}"]

    async def test_without_a_ttl_there_are_no_page_urls(self) -> None:
        """A job without a requested `ttl` is returned unchanged."""
        given = job("p")
        assert await page_urls().fill(given, None) is given

    async def test_a_job_without_pages_is_returned_unchanged(self) -> None:
        """There is nothing to sign."""
        given = job()
        assert await page_urls().fill(given, TTL) is given

    @pytest.mark.parametrize("bucket", ["", "stranger-1250000000"])
    async def test_results_in_an_unconfigured_bucket_get_no_page_urls(self, bucket: str) -> None:
        """The gateway signs for configured buckets only."""
        given = job("p", bucket=bucket)
        assert await page_urls().fill(given, TTL) is given

    async def test_page_urls_are_on_the_output_bucket(self) -> None:
        """The output bucket's host and keys are used, not those of the source."""
        filled = await page_urls().fill(job("p", bucket=OTHER.name), TTL)
        assert filled.result.pages[0].url.startswith(f"https://{OTHER.object_host}/p?")

    async def test_page_urls_are_filled_into_a_copy_of_the_job(self) -> None:
        """A job shared with other callers is not modified."""
        given = job("p")
        filled = await page_urls().fill(given, TTL)
        assert filled is not given
        assert given.result.pages[0].url == ""

    async def test_each_job_of_a_batch_is_filled_with_page_urls(self) -> None:
        """Jobs without pages are returned in their order too."""
        filled = await page_urls().fill_all([job("p"), job("q"), job()], TTL)
        assert [len(found.result.pages[0].url) > 0 for found in filled if found.result.pages] == [True, True]
