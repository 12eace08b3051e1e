"""Presigned page URLs, checked by the emulator, which has its own implementation of signatures."""

from __future__ import annotations

from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from google.protobuf.duration_pb2 import Duration

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import ObjectLocation, Page, PreviewJob, PreviewResult
from docpreview_emulator import Credential, Emulator
from docpreview_gateway.access.bucket_registry import BucketRegistry
from docpreview_gateway.jobs.page_urls import PageUrls
from docpreview_gateway.model.callers import ANONYMOUS, Caller
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.model.policy import BucketRights, Rights
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from docpreview_gateway.upstream.wire.signing import Credentials
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.fakes.clock import FakeClock
from tests.fakes.credentials import FakeCredentials
from tests.unit.conftest import BUCKET, OTHER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.call import Call, Clock

TTL = Duration(seconds=60)
TEMPLATES = [
    "out/p-${Page}.jpg",
    "out/with space & plus+${Page}.jpg",
    "out/预览/幻灯片-${Page}.jpg",
    "out/100%25?a=b#c${Page}.jpg",
    "out/~'()*!${Page}.jpg",
]
KEYS = [template.replace("${Page}", "1") for template in TEMPLATES]


Keys = dict[str, tuple[str, ...]]


def job(
    *keys: str, template: str = "out/p-${Page}.jpg", bucket: str = BUCKET.name, region: str = BUCKET.region
) -> PreviewJob:
    pages = [Page(page_number=number, object=key) for number, key in enumerate(keys, 1)]
    output = ObjectLocation(bucket=bucket, region=region, object=template)
    return PreviewJob(job_id="d1", bucket=BUCKET.name, output=output, result=PreviewResult(pages=pages))


def shop(outputs: Keys | None = None, pages: Keys | None = None, *, page_urls: bool = True) -> Caller:
    """A caller that sees every job of the bucket."""
    of_bucket = BucketRights("callers.shop.buckets[x]", ("",), outputs or {}, pages or {})
    return Caller(
        "shop", rights=Rights("callers.shop", frozenset({"*"}), {BUCKET.name: of_bucket}, page_urls=page_urls)
    )


async def signed(job: PreviewJob, caller: Caller = ANONYMOUS) -> list[str]:
    """The keys of the pages that get an address."""
    filled = await page_urls().fill(job, TTL, caller)
    assert all(page.url.startswith("https://") for page in filled.result.pages if page.url)
    return [page.object for page in filled.result.pages if page.url]


def page_urls(
    credentials: FakeCredentials | None = None, *, base: str | None = None, clock: Clock | None = None
) -> PageUrls:
    register = BucketRegistry([BUCKET, OTHER])
    return PageUrls(register, credentials or FakeCredentials(), CloudTimes(clock or SystemClock()), base=base)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as running:
        for key in KEYS:
            running.put_object(BUCKET.name, BUCKET.region, key, key.encode())
        yield running


async def fetch(url: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as browser:
        return await browser.get(url, headers=headers)


async def query_at(now: float, ttl: Duration) -> dict[str, str]:
    """The query of the address of a page at this instant."""
    given = job("out/p-1.jpg")
    given.result.pages[0].content_type = "image/png"
    filled = await page_urls(clock=FakeClock(now)).fill(given, ttl, ANONYMOUS)
    return {name: value for name, (value,) in parse_qs(urlsplit(filled.result.pages[0].url).query).items()}


class TestOpening:
    async def test_a_page_url_below_a_base_opens_its_page(self, emulator: Emulator) -> None:
        """Every URL opens its own page, for keys with any characters."""
        base = f"{emulator.url}/_emulator/objects/{{host}}/"
        for key, template in zip(KEYS, TEMPLATES, strict=True):
            filled = await page_urls(base=base).fill(job(key, template=template), TTL, ANONYMOUS)
            answer = await fetch(filled.result.pages[0].url)
            assert (answer.status_code, answer.content.decode()) == (200, key)

    async def test_a_page_url_without_a_base_is_on_the_object_host(self, emulator: Emulator) -> None:
        """The URL has the bucket's object host and a valid signature."""
        for key, template in zip(KEYS, TEMPLATES, strict=True):
            (page,) = (await page_urls().fill(job(key, template=template), TTL, ANONYMOUS)).result.pages
            assert page.url.startswith(f"https://{BUCKET.object_host}/out/")
            target = page.url.removeprefix(f"https://{BUCKET.object_host}")
            answer = await fetch(emulator.url + target, host=BUCKET.object_host)
            assert (answer.status_code, answer.content.decode()) == (200, key)

    async def test_a_page_url_is_valid_now_although_our_clock_is_wrong(self, emulator: Emulator) -> None:
        """A cache had the job, and no reply has told the cloud's time: the object store is asked, until one has."""
        asked = []

        async def now(bucket: Bucket, key: str, _call: Call) -> float:
            asked.append((bucket.name, key))
            return SystemClock().now()

        times = CloudTimes(FakeClock(SystemClock().now() - 90_000))
        urls = PageUrls(
            BucketRegistry([BUCKET]),
            FakeCredentials(),
            times,
            ask=now,
            base=f"{emulator.url}/_emulator/objects/{{host}}",
        )
        (page,) = (await urls.fill(job(KEYS[0]), TTL, ANONYMOUS)).result.pages
        assert (await fetch(page.url)).status_code == 200
        assert asked == [(BUCKET.name, "out/p-${Page}.jpg")]
        times.hear(BUCKET.ci_host, formatdate(SystemClock().now(), usegmt=True))
        (page,) = (await urls.fill(job(KEYS[0]), TTL, ANONYMOUS)).result.pages
        assert (await fetch(page.url)).status_code == 200
        assert len(asked) == 1

    async def test_a_page_has_a_url_by_our_own_clock_when_the_object_store_does_not_answer(
        self, emulator: Emulator
    ) -> None:
        async def now(_bucket: Bucket, _key: str, _call: Call) -> float:
            raise GatewayError(reasons.ERROR_REASON_DEADLINE_EXCEEDED, "no")

        urls = PageUrls(
            BucketRegistry([BUCKET]),
            FakeCredentials(),
            CloudTimes(SystemClock()),
            ask=now,
            base=f"{emulator.url}/_emulator/objects/{{host}}",
        )
        (page,) = (await urls.fill(job(KEYS[0]), TTL, ANONYMOUS)).result.pages
        assert (await fetch(page.url)).status_code == 200

    async def test_a_page_url_is_not_valid_for_another_bucket(self, emulator: Emulator) -> None:
        """A URL signed for one bucket does not open the same key in another."""
        emulator.put_object(OTHER.name, OTHER.region, KEYS[0], b"secret")
        url = (await page_urls().fill(job(KEYS[0]), TTL, ANONYMOUS)).result.pages[0].url
        answer = await fetch(emulator.url + url.removeprefix(f"https://{BUCKET.object_host}"), host=OTHER.object_host)
        assert answer.status_code == 403

    async def test_a_page_url_of_temporary_keys_has_their_token(self, emulator: Emulator) -> None:
        """The token is in the query, where a browser sends it."""
        emulator.credentials["temp-id"] = Credential("temp-id", "temp-key", token="the/token+=")
        credentials = FakeCredentials(main=Credentials("temp-id", "temp-key", "the/token+="))
        base = f"{emulator.url}/_emulator/objects/{{host}}"
        url = (await page_urls(credentials, base=base).fill(job(KEYS[0]), TTL, ANONYMOUS)).result.pages[0].url
        assert parse_qs(urlsplit(url).query)["x-cos-security-token"] == ["the/token+="]
        assert (await fetch(url)).status_code == 200

    async def test_a_page_url_expires(self, emulator: Emulator) -> None:
        """A URL is refused after its lifetime."""
        base = f"{emulator.url}/_emulator/objects/{{host}}"
        url = (await page_urls(base=base).fill(job(KEYS[0]), TTL, ANONYMOUS)).result.pages[0].url
        emulator.clock.offset_seconds = 55
        assert (await fetch(url)).status_code == 200
        emulator.clock.offset_seconds = 75
        assert (await fetch(url)).status_code == 403

    async def test_the_page_is_served_with_the_signed_headers(self, emulator: Emulator) -> None:
        """Whoever changes them has another address, which is refused."""
        given = job(KEYS[0])
        given.result.pages[0].content_type = "image/png"
        base = f"{emulator.url}/_emulator/objects/{{host}}"
        url = (await page_urls(base=base).fill(given, TTL, ANONYMOUS)).result.pages[0].url
        answer = await fetch(url)
        assert answer.headers["cache-control"] == "private, max-age=60"
        assert answer.headers["content-type"] == "image/png"
        assert (await fetch(url.replace("max-age%3D60", "max-age%3D61"))).status_code == 403

    async def test_every_page_of_a_large_job_is_signed(self, emulator: Emulator) -> None:
        """Jobs with many pages are signed in a thread, with the same result."""
        base = f"{emulator.url}/_emulator/objects/{{host}}"
        filled = await page_urls(base=base).fill(job(*[KEYS[0]] * 500), TTL, ANONYMOUS)
        assert all(page.url for page in filled.result.pages)
        assert (await fetch(filled.result.pages[499].url)).status_code == 200


class TestWhatIsSigned:
    @pytest.mark.parametrize(
        ("ttl", "most"), [(1, 2), (5, 6), (60, 70), (600, 700), (3600, 4200)], ids=lambda seconds: f"{seconds}s"
    )
    async def test_an_address_is_valid_for_its_ttl_and_at_most_a_sixth_longer(self, ttl: int, most: int) -> None:
        """At every instant, and from now on."""
        for now in range(1000, 1000 + 2 * ttl, max(1, ttl // 7)):
            query = await query_at(now, Duration(seconds=ttl))
            begin, end = map(int, query["q-sign-time"].split(";"))
            assert begin <= now
            assert ttl <= end - now <= most

    async def test_a_part_of_a_second_counts_as_one(self) -> None:
        """No address ends before it was asked to."""
        assert (await query_at(1000, Duration(seconds=59, nanos=1)))["q-sign-time"] == "940;1070"

    async def test_the_address_of_a_page_is_the_same_within_a_window_and_another_in_the_next(self) -> None:
        """Of ten minutes for an hour."""
        hour = Duration(seconds=3600)
        first, last, following = [await query_at(now, hour) for now in (1200, 1799, 1800)]
        assert first == last != following

    async def test_the_answer_may_be_kept_as_long_as_the_address_was_asked_for(self) -> None:
        """By the caller only; and it has the type of the page. Both are signed."""
        query = await query_at(1000, TTL)
        assert query["response-cache-control"] == "private, max-age=60"
        assert query["response-content-type"] == "image/png"
        assert query["q-url-param-list"] == "response-cache-control;response-content-type"

    async def test_without_a_ttl_there_are_no_page_urls(self) -> None:
        """A job without a requested `ttl` is returned unchanged."""
        given = job("out/p-1.jpg")
        assert await page_urls().fill(given, None, ANONYMOUS) is given

    async def test_a_job_without_pages_is_returned_unchanged(self) -> None:
        """There is nothing to sign."""
        given = job()
        assert await page_urls().fill(given, TTL, ANONYMOUS) is given

    @pytest.mark.parametrize("bucket", ["", "stranger-1250000000"])
    async def test_results_in_an_unconfigured_bucket_get_no_page_urls(self, bucket: str) -> None:
        """The gateway signs for configured buckets only."""
        given = job("out/p-1.jpg", bucket=bucket)
        assert await page_urls().fill(given, TTL, ANONYMOUS) is given

    async def test_page_urls_are_on_the_output_bucket(self) -> None:
        """The output bucket's host and keys are used, not those of the source."""
        filled = await page_urls().fill(job("out/p-1.jpg", bucket=OTHER.name, region=OTHER.region), TTL, ANONYMOUS)
        assert filled.result.pages[0].url.startswith(f"https://{OTHER.object_host}/out/p-1.jpg?")

    async def test_page_urls_are_filled_into_a_copy_of_the_job(self) -> None:
        """A job shared with other callers is not modified."""
        given = job("out/p-1.jpg")
        filled = await page_urls().fill(given, TTL, ANONYMOUS)
        assert filled is not given
        assert given.result.pages[0].url == ""

    async def test_each_job_of_a_batch_is_filled_with_page_urls(self) -> None:
        """Jobs without pages are returned in their order too."""
        filled = await page_urls().fill_all([job("out/p-1.jpg"), job("out/p-2.jpg"), job()], TTL, ANONYMOUS)
        assert [len(found.result.pages[0].url) > 0 for found in filled if found.result.pages] == [True, True]


class TestKeysThatTheJobCanHaveMade:
    @pytest.mark.parametrize(
        ("template", "keys"),
        [
            ("/test_doc/normal/abc_${Number}.jpg", ["test_doc/normal/abc_1.jpg", "test_doc/normal/abc_3.jpg"]),
            ("big/test-${Number}", ["big/test-1", "big/test-5000"]),
            ("mark/${SheetID}/pic-${Page}.png", ["mark/1/pic-1.png", "mark/2/pic-1.png"]),
            ("${Number}", ["1", "10"]),
            ("whole.pdf", ["whole.pdf"]),
        ],
    )
    async def test_every_key_of_a_jobs_template_gets_an_address(self, template: str, keys: list[str]) -> None:
        """With the variables of the vendor, with a leading slash in the template, and without any variable."""
        assert await signed(job(*keys, template=template)) == keys

    @pytest.mark.parametrize(
        "key",
        [
            "",
            "/",
            "out",
            "out/",
            "out/p-.jpg",
            "out/p-${Page}.jpg",
            "out/p-1.jpg/",
            "out/p-1.jpg?acl",
            "out/p-1.jpg\n",
            "out/p-one.jpg",
            "out/p--1.jpg",
            "out/p-\u0661.jpg",
            "out/p-1.png",
            "out/P-1.jpg",
            "out%2Fp-1.jpg",
            "out/%70-1.jpg",
            "out/p-%31.jpg",
            "out/./p-1.jpg",
            "out/../out/p-1.jpg",
            "out//p-1.jpg",
            "/out/p-1.jpg",
            "in/secret.pdf",
            "out/p-1.jpg out/p-2.jpg",
            "out/p-" + "1" * 900 + ".jpg",
        ],
    )
    async def test_a_key_that_the_jobs_template_cannot_have_made_gets_none(self, key: str) -> None:
        """Whatever a reply of the cloud says; the address of no key would be that of the bucket's list."""
        assert await signed(job("out/p-1.jpg", key)) == ["out/p-1.jpg"]

    @pytest.mark.parametrize(
        "template", ["", "/", "//", "../${Page}", "out/../${Page}", "x" * 900, " out/${Page}", "out/\x00${Page}"]
    )
    async def test_the_pages_of_a_job_without_a_usable_template_get_no_address(self, template: str) -> None:
        """No template can be checked against; others name another object on the way."""
        assert not await signed(job(template.replace("${Page}", "1"), "", "1", "in/a.pdf", template=template))

    async def test_a_variable_has_one_number_in_a_key(self) -> None:
        """So a template that repeats its variables is not a riddle."""
        template = "${Number}${Page}" * 50 + ".jpg"
        good, bad = "12" * 50 + ".jpg", "12" * 49 + "13.jpg"
        assert await signed(job(good, bad, template=template)) == [good]

    @pytest.mark.parametrize(("region", "count"), [("", 1), (BUCKET.region, 1), ("ap-guangzhou", 0)])
    async def test_pages_in_another_region_than_the_buckets_get_no_address(self, region: str, count: int) -> None:
        """Another region has another bucket of that name."""
        assert len(await signed(job("out/p-1.jpg", region=region))) == count


class TestWhatACallerGets:
    @pytest.mark.parametrize(
        ("caller", "keys"),
        [
            (shop(), []),
            (shop({BUCKET.name: ("out/",)}), ["out/p-1.jpg", "out/p-2.jpg"]),
            (shop({BUCKET.name: ("",)}), ["out/p-1.jpg", "out/p-2.jpg"]),
            (shop({BUCKET.name: ("other/", "out/p/")}), []),
            (shop({OTHER.name: ("out/",)}), []),
            (shop({BUCKET.name: ("other/",)}, {BUCKET.name: ("out/",)}), ["out/p-1.jpg", "out/p-2.jpg"]),
            (shop(pages={BUCKET.name: ("out/",)}), ["out/p-1.jpg", "out/p-2.jpg"]),
            (shop(pages={OTHER.name: ("",)}), []),
            (shop({BUCKET.name: ("",)}, {BUCKET.name: ("",)}, page_urls=False), []),
        ],
    )
    async def test_a_caller_gets_addresses_under_its_outputs_and_pages_only(
        self, caller: Caller, keys: list[str]
    ) -> None:
        """The job may be another caller's: the keys are shown, the addresses are not."""
        given = job("out/p-1.jpg", "out/p-2.jpg")
        assert await signed(given, caller) == keys
        filled = await page_urls().fill(given, TTL, caller)
        assert [page.object for page in filled.result.pages] == ["out/p-1.jpg", "out/p-2.jpg"]

    async def test_the_rights_of_one_source_bucket_are_not_those_of_another(self) -> None:
        """Outputs and pages belong to the bucket of the job's source."""
        given = job("out/p-1.jpg")
        given.bucket = OTHER.name
        assert not await signed(given, shop({BUCKET.name: ("",)}, {BUCKET.name: ("",)}))

    @pytest.mark.parametrize("template", ["out/%2e%2e/${Page}", "out//${Page}", "out/\N{TWO DOT LEADER}/${Page}"])
    async def test_a_key_that_leaves_the_callers_prefix_in_any_encoding_gets_no_address(self, template: str) -> None:
        """As strictly as for creates."""
        key = template.replace("${Page}", "1")
        assert await signed(job(key, template=template)) == [key]
        assert not await signed(job(key, template=template), shop({BUCKET.name: ("out/",)}, {BUCKET.name: ("out/",)}))

    async def test_the_pages_of_a_large_job_are_checked_one_by_one(self) -> None:
        """Signed in a thread, with the same result."""
        keys = [f"out/{number}/p.jpg" for number in range(500)]
        given = job(*keys, template="out/${Number}/p.jpg")
        assert await signed(given, shop(pages={BUCKET.name: ("out/7/", "out/8/")})) == ["out/7/p.jpg", "out/8/p.jpg"]
