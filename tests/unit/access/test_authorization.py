"""Callers with rights, on a cloud in memory: rejected calls cost nothing, hidden jobs look like missing ones."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.duration_pb2 import Duration

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1 import preview_job_service_pb2 as pb
from docpreview.v1 import preview_queue_service_pb2 as queues
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions, Watermark
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.callers import ANONYMOUS
from docpreview_gateway.model.errors import GatewayError, InvalidRequest
from docpreview_gateway.model.option_rules import OptionRules
from docpreview_gateway.upstream.memory_cache import LruMemoryCache
from docpreview_gateway.upstream.middleware.cached import Cached
from docpreview_gateway.upstream.middleware.coalesced import Coalesced
from docpreview_gateway.upstream.policies.freshness import Freshness
from tests.fakes.policies import caller_of
from tests.fakes.shared_cache import FakeSharedCache
from tests.unit.conftest import BUCKET, OTHER, Office, call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from docpreview_gateway.model.call import Call
    from docpreview_gateway.model.callers import Caller

SHOP = caller_of("shop", {BUCKET.name: ("in/",)}, ("p/",))
LIMITED = caller_of("shop", {BUCKET.name: ("in/",)}, ("p/",), options=OptionRules(max_pages=10))
IMAGE_PARAMS = "watermark/1/image/YnJhbmQ="
FORCED = caller_of(
    "shop", {BUCKET.name: ("in/",)}, ("p/",), options=OptionRules(force=PreviewOptions(image_params=IMAGE_PARAMS))
)
WHOLE = caller_of("whole", {BUCKET.name: ("",)})
STRANGER = caller_of("stranger", {"stranger-1250000000": ("",)})
SUCCESS = PreviewJob.STATE_SUCCESS


def by(caller: Caller) -> Call:
    return call()._replace(caller=caller)


def stamp(key: str, bucket: str = "") -> Watermark:
    return Watermark(image=ObjectLocation(bucket=bucket, object=key))


def put(office: Office, job_id: str, key: str, state: PreviewJob.State.ValueType = SUCCESS) -> PreviewJob:
    job = office.upstream.add_job(BUCKET.name, job_id, state)
    job.input.CopyFrom(ObjectLocation(bucket=BUCKET.name, object=key))
    return job


async def watched(office: Office, request: pb.WatchPreviewJobRequest, made: Call) -> list[PreviewJob]:
    async with aclosing(office.jobs.watch(request, made)) as replies:
        return [reply.job async for reply in replies if reply.HasField("job")]


async def asked(office: Office, method: str, job_id: str, made: Call) -> Any:
    """The job, read by this method."""
    match method:
        case "get":
            return await office.jobs.get(pb.GetPreviewJobRequest(bucket=BUCKET.name, job_id=job_id), made)
        case "wait":
            request = pb.WaitPreviewJobRequest(bucket=BUCKET.name, job_id=job_id, timeout=Duration(seconds=20))
            return await office.jobs.wait(request, made)
        case _:
            (*_, last) = await watched(office, pb.WatchPreviewJobRequest(bucket=BUCKET.name, job_id=job_id), made)
            return last


async def refusal(awaitable: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await awaitable
    return caught.value


@pytest.mark.parametrize("method", ["get", "wait", "watch"])
class TestOneJob:
    async def test_a_job_under_the_callers_prefix_is_shown(self, office: Office, method: str) -> None:
        """By each method that returns a job."""
        put(office, "d1", "in/a.pdf")
        assert (await asked(office, method, "d1", by(SHOP))).job_id == "d1"

    @pytest.mark.parametrize("state", [SUCCESS, PreviewJob.STATE_RUNNING])
    async def test_a_job_outside_the_callers_prefix_is_like_one_that_does_not_exist(
        self, office: Office, method: str, state: PreviewJob.State.ValueType
    ) -> None:
        """Error and metadata are equal, nothing else is disclosed, and no call waits for its end."""
        put(office, "d1", "secret/a.pdf", state)
        ends = []
        for job_id in ("d1", "d2"):
            made = by(SHOP)
            error = await asyncio.wait_for(refusal(asked(office, method, job_id, made)), 5)
            ends.append((error.reason, error.message.replace(job_id, ""), error.metadata, error.retry_after))
            assert not made.response.disclosed
        assert ends[0] == ends[1]
        assert ends[0][0] == r.ERROR_REASON_JOB_NOT_FOUND

    async def test_a_caller_of_the_whole_bucket_sees_every_job(self, office: Office, method: str) -> None:
        """Its prefix is empty."""
        put(office, "d1", "secret/a.pdf")
        assert (await asked(office, method, "d1", by(WHOLE))).job_id == "d1"

    async def test_a_caller_without_the_bucket_is_rejected_before_the_cloud_is_asked(
        self, office: Office, method: str
    ) -> None:
        """NOT_PERMITTED."""
        put(office, "d1", "in/a.pdf")
        assert (await refusal(asked(office, method, "d1", by(STRANGER)))).reason == r.ERROR_REASON_NOT_PERMITTED
        assert office.upstream.asked == []


class TestSeveralJobs:
    async def test_hidden_jobs_of_a_batch_are_missing(self, office: Office) -> None:
        """They are among the missing ids, like those that do not exist."""
        put(office, "d1", "in/a.pdf")
        put(office, "d2", "secret/a.pdf")
        reply = await office.jobs.batch_get(
            pb.BatchGetPreviewJobsRequest(bucket=BUCKET.name, job_ids=["d1", "d2", "d3"]), by(SHOP)
        )
        assert ([job.job_id for job in reply.jobs], list(reply.missing_job_ids)) == (["d1"], ["d2", "d3"])

    async def test_hidden_jobs_are_not_listed_and_later_pages_are(self, office: Office) -> None:
        """A page token leads past them."""
        for number in range(6):
            put(office, f"d{number}", ("in/" if number % 3 else "secret/") + "a.pdf")
        found, token = [], ""
        while True:
            request = pb.ListPreviewJobsRequest(bucket=BUCKET.name, page_size=2, page_token=token)
            reply = await office.jobs.list_jobs(request, by(SHOP))
            found += [job.job_id for job in reply.jobs]
            token = reply.next_page_token
            if not token:
                break
        assert found == ["d5", "d4", "d2", "d1"]


def create_request(**fields: Any) -> pb.CreatePreviewJobRequest:
    request = pb.CreatePreviewJobRequest(
        bucket=BUCKET.name, input_object="in/a.pdf", output=ObjectLocation(object="p/${Number}.jpg")
    )
    request.MergeFrom(pb.CreatePreviewJobRequest(**fields))
    return request


class TestCreate:
    @pytest.mark.parametrize(
        "fields",
        [
            {"bucket": "previews-1250000000"},
            {"input_object": "secret/a.pdf"},
            {"input_object": "in/../secret/a.pdf"},
            {"output": ObjectLocation(object="in/${Number}.jpg")},
            {"output": ObjectLocation(object="p/../q/${Number}.jpg")},
            {"output": ObjectLocation(bucket="previews-1250000000")},
            {"output": ObjectLocation(bucket="nobody-1250000000")},
            {"preset": "thumbnail"},
            {"input_object": "secret/a.pdf", "options": PreviewOptions(quality=1000)},
            {"options": PreviewOptions(watermark=stamp("secret/a.png"))},
            {"options": PreviewOptions(watermark=stamp("in/a.png", "previews-1250000000"))},
        ],
    )
    async def test_a_create_that_is_not_permitted_is_rejected_and_nothing_sent(
        self, office: Office, fields: dict[str, Any]
    ) -> None:
        """Before validation."""
        error = await refusal(office.jobs.create(create_request(**fields), by(SHOP)))
        assert error.reason == r.ERROR_REASON_NOT_PERMITTED
        assert office.upstream.asked == []

    @pytest.mark.parametrize(
        "fields",
        [
            {"bucket": "../x"},
            {"bucket": "b" * 20_000},
            {"output": ObjectLocation(bucket="Not-A-Bucket")},
            {"preset": "p" * 65},
            {"bucket": "previews-1250000000", "preset": "not a preset"},
        ],
    )
    async def test_a_malformed_name_is_rejected_before_it_is_looked_up(
        self, office: Office, fields: dict[str, Any]
    ) -> None:
        """Whatever the rights of the caller: its form tells nothing about what exists."""
        error = await refusal(office.jobs.create(create_request(**fields), by(SHOP)))
        assert error.reason == r.ERROR_REASON_INVALID_REQUEST
        assert office.upstream.asked == []

    async def test_a_permitted_create_is_made_by_the_policys_option_rules(self, office: Office) -> None:
        """Forced values are set, exceeded bounds are violations."""
        rules = OptionRules(force=PreviewOptions(image_params="watermark/2"), at_most={"image_dpi": 150}, max_pages=10)
        shop = caller_of("shop", {BUCKET.name: ("in/",)}, ("p/",), options=rules)
        office.upstream.objects.add((BUCKET.name, "in/a.pdf"))
        job = await office.jobs.create(create_request(options=PreviewOptions(image_dpi=120)), by(shop))
        assert (job.options.image_params, job.options.image_dpi, job.options.end_page) == ("watermark/2", 120, 10)
        with pytest.raises(InvalidRequest, match=r"options\.image_dpi"):
            await office.jobs.create(create_request(options=PreviewOptions(image_dpi=200)), by(shop))

    async def test_a_caller_may_stamp_its_own_images_and_a_policy_any_of_a_configured_bucket(
        self, office: Office
    ) -> None:
        """The image's bucket and region are the configured ones, whoever chose it."""
        office.upstream.objects.add((BUCKET.name, "in/a.pdf"))
        own = create_request(options=PreviewOptions(watermark=stamp("in/logo.png")))
        rules = OptionRules(force=PreviewOptions(watermark=stamp("brand/logo.png", OTHER.name)))
        forced = caller_of("shop", {BUCKET.name: ("in/",)}, ("p/",), options=rules)
        for caller, image in ((SHOP, (BUCKET, "in/logo.png")), (forced, (OTHER, "brand/logo.png"))):
            job = await office.jobs.create(own, by(caller))
            bucket, key = image
            location = ObjectLocation(bucket=bucket.name, region=bucket.region, object=key)
            assert job.options.watermark == Watermark(image=location)

    @pytest.mark.parametrize(
        "image_params",
        [
            "watermark/1/image/aHR0cA==",
            "watermark/3/type/1/image/aHR0cA==",
            "imageMogr2/thumbnail/!50p|watermark/1/image/aHR0cA==/gravity/southeast",
            "watermark/2/text/U0hPUA|WaterMark/3/type/1",
            "watermark/2/text/U0hPUA/image/aHR0cA==",
            "imageMogr2/thumbnail/!50p%7Cwater%256dark/1/image/aHR0cA==",
            "\uff37atermark\uff0f1/image/aHR0cA==",
            "watermark/12/image/aHR0cA==",
            "watermark",
            "imageMogr2/%25252525252577",
        ],
    )
    async def test_image_params_of_a_callers_own_name_no_image(self, office: Office, image_params: str) -> None:
        """Nobody could check whose it is, in any operation and however it is written. The error leads to watermark."""
        error = await refusal(
            office.jobs.create(create_request(options=PreviewOptions(image_params=image_params)), by(SHOP))
        )
        assert error.reason == r.ERROR_REASON_NOT_PERMITTED
        assert "callers.shop.options lets image_params name no image" in str(error)
        assert "use options.watermark" in str(error)
        assert office.upstream.asked == []

    @pytest.mark.parametrize(
        ("options", "caller"),
        [
            (PreviewOptions(image_params="watermark/2/text/U0hPUA|imageMogr2/thumbnail/!50p"), SHOP),
            (PreviewOptions(image_params="imageMogr2/format/webp"), SHOP),
            (PreviewOptions(image_params="watermark/2"), SHOP),
            (PreviewOptions(image_params="watermark/1/image/aHR0cA=="), FORCED),
            (PreviewOptions(), FORCED),
            (PreviewOptions(image_params="watermark/1/image/aHR0cA=="), ANONYMOUS),
        ],
    )
    async def test_image_params_may_have_texts_and_what_the_policy_sets(
        self, office: Office, options: PreviewOptions, caller: Caller
    ) -> None:
        """Those of the policy may name images; without a policy anyone's may."""
        office.upstream.objects.add((BUCKET.name, "in/a.pdf"))
        job = await office.jobs.create(create_request(options=options), by(caller))
        assert job.options.image_params == (IMAGE_PARAMS if caller is FORCED else options.image_params)

    @pytest.mark.parametrize(
        ("image", "reason"),
        [
            (ObjectLocation(bucket="stranger-1250000000", object="a.png"), r.ERROR_REASON_BUCKET_NOT_CONFIGURED),
            (ObjectLocation(region="ap-beijing", object="a.png"), r.ERROR_REASON_INVALID_REQUEST),
            (ObjectLocation(bucket="evil.com#", object="a.png"), r.ERROR_REASON_INVALID_REQUEST),
        ],
    )
    async def test_without_a_policy_an_image_is_in_a_configured_bucket_too(
        self, office: Office, image: ObjectLocation, reason: r.ErrorReason.ValueType
    ) -> None:
        """The cloud is never given another address."""
        error = await refusal(
            office.jobs.create(create_request(options=PreviewOptions(watermark=Watermark(image=image))), call())
        )
        assert error.reason == reason
        assert office.upstream.asked == []

    @pytest.mark.parametrize(
        ("rules", "options", "field", "message"),
        [
            (
                OptionRules(force=PreviewOptions(image_params="watermark/2")),
                PreviewOptions(target_format=PreviewOptions.TARGET_FORMAT_PDF),
                "options.image_params",
                "not to TARGET_FORMAT_PDF; by the gateway's policy image_params is set by callers.shop.options.force",
            ),
            (
                OptionRules(default=PreviewOptions(target_format=PreviewOptions.TARGET_FORMAT_PDF)),
                PreviewOptions(image_params="watermark/2"),
                "options.image_params",
                "by the gateway's policy target_format is set by callers.shop.options.default",
            ),
            (
                OptionRules(max_pages=50),
                PreviewOptions(single_image=True),
                "options.single_image",
                "by the gateway's policy end_page is set by callers.shop.options.max_pages",
            ),
            (
                OptionRules(force=PreviewOptions(image_dpi=300), at_most={"image_dpi": 150}),
                PreviewOptions(),
                "options.image_dpi",
                "by the gateway's policy image_dpi is set by callers.shop.options.force",
            ),
            (
                OptionRules(at_most={"image_dpi": 150}),
                PreviewOptions(image_dpi=300),
                "options.image_dpi",
                "must be at most 150 for this caller",
            ),
        ],
    )
    async def test_a_violation_by_an_option_of_the_policy_names_the_rule_that_set_it(
        self, office: Office, rules: OptionRules, options: PreviewOptions, field: str, message: str
    ) -> None:
        """The caller did not, and would look for it in vain."""
        shop = caller_of("shop", {BUCKET.name: ("in/",)}, ("p/",), options=rules)
        with pytest.raises(InvalidRequest) as caught:
            await office.jobs.create(create_request(options=options), by(shop))
        (violation,) = caught.value.violations
        assert violation.field == field
        assert violation.description.endswith(message)

    async def test_a_preset_without_a_policy_is_invalid(self, office: Office) -> None:
        """A gateway without a policy has no presets."""
        with pytest.raises(InvalidRequest, match="preset"):
            await office.jobs.create(create_request(preset="thumbnail"), call())

    @pytest.mark.parametrize("first", [-(2**31), -1, 5001, 2**31 - 10, 2**31 - 1])
    @pytest.mark.parametrize("last", [None, -1, -(2**31), 2**31 - 1])
    @pytest.mark.parametrize("caller", [LIMITED, SHOP, ANONYMOUS], ids=["page limit", "policy", "no policy"])
    async def test_a_first_page_that_does_not_exist_is_an_invalid_field(
        self, office: Office, first: int, last: int | None, caller: Caller
    ) -> None:
        """INVALID_REQUEST, with and without a page limit, however large the number, for one image and for many."""
        office.upstream.objects.add((BUCKET.name, "in/a.pdf"))
        for single in (False, True):
            options = PreviewOptions(start_page=first, end_page=last, single_image=single)
            error = await refusal(office.jobs.create(create_request(options=options), by(caller)))
            assert isinstance(error, InvalidRequest)
            assert "options.start_page" in [violation.field for violation in error.violations]

    async def test_pages_up_to_the_last_one_are_within_a_page_limit(self, office: Office) -> None:
        """The limit adds no page that the cloud would refuse."""
        office.upstream.objects.add((BUCKET.name, "in/a.pdf"))
        job = await office.jobs.create(create_request(options=PreviewOptions(start_page=4999)), by(LIMITED))
        assert job.options.end_page == 5000

    async def test_two_callers_with_one_request_id_get_two_jobs(self, office: Office) -> None:
        """A request id gives no access to another caller's job."""
        office.upstream.objects.add((BUCKET.name, "in/a.pdf"))
        request = create_request(request_id="7d3f9b7e-6d0c-4a51-9f0e-2f4c8f6f2a10")
        first = await office.jobs.create(request, by(SHOP))
        assert (await office.jobs.create(request, by(SHOP))).job_id == first.job_id
        assert (await office.jobs.create(request, by(WHOLE))).job_id != first.job_id

    async def test_a_repeated_create_is_the_same_job_after_a_policy_change(self, office: Office) -> None:
        """The caller's request is compared, without the policy's options."""
        office.upstream.objects.add((BUCKET.name, "in/a.pdf"))
        request = create_request(request_id="7d3f9b7e-6d0c-4a51-9f0e-2f4c8f6f2a10")
        first = await office.jobs.create(request, by(SHOP))
        rules = OptionRules(force=PreviewOptions(image_params="watermark/2"))
        stricter = caller_of("shop", {BUCKET.name: ("in/",)}, ("p/",), options=rules)
        assert (await office.jobs.create(request, by(stricter))).job_id == first.job_id


class CountingCache(LruMemoryCache):
    """A cache that counts look-ups."""

    lookups = 0

    def get(self, key: str) -> bytes | None:
        self.lookups += 1
        return super().get(key)


CALLERS = 20
BUCKETS = [Bucket(f"team{number}-1250000000", "ap-chongqing", "main") for number in range(CALLERS)]


@pytest.fixture
async def warm() -> AsyncIterator[tuple[Office, CountingCache]]:
    """Twenty buckets with ten cached jobs each, half of them under in/."""
    memory = CountingCache(64 * 1024 * 1024)
    office = Office(buckets=BUCKETS)
    freshness = Freshness(active=1e9, missing=1e9, listing=1e9, stale=0)
    cached = Cached(
        Coalesced(office.upstream, office.telemetry, longest=30.0),
        memory,
        FakeSharedCache(),
        freshness=freshness,
        clock=office.clock,
        telemetry=office.telemetry,
    )
    office.wire(cached)
    for bucket in BUCKETS:
        for number in range(10):
            job = office.upstream.add_job(bucket.name, f"j{number}", SUCCESS)
            job.input.CopyFrom(
                ObjectLocation(bucket=bucket.name, object=f"{'in' if number % 2 else 'secret'}/{bucket.name}.pdf")
            )
            await office.jobs.get(pb.GetPreviewJobRequest(bucket=bucket.name, job_id=f"j{number}"), call())
    yield office, memory
    await office.watching.close()


async def _random_call(office: Office, bucket: str, rnd: random.Random, made: Call) -> list[PreviewJob]:
    """Every job in the reply to a random call."""
    job_id = f"j{rnd.randrange(12)}"
    match rnd.randrange(6):
        case 0:
            request = pb.BatchGetPreviewJobsRequest(bucket=bucket, job_ids=[job_id, "j1", "j2"])
            cached = office.jobs.cached_batch(request, made)
            whole = await office.jobs.batch_get(request, made) if cached is None else None
            return list((whole or pb.BatchGetPreviewJobsResponse.FromString(cached or b"")).jobs)
        case 1:
            return list((await office.jobs.list_jobs(pb.ListPreviewJobsRequest(bucket=bucket), made)).jobs)
        case 2 if rnd.random() < 0.02:
            return [await office.jobs.wait(pb.WaitPreviewJobRequest(bucket=bucket, job_id=job_id), made)]
        case 3 if rnd.random() < 0.02:
            return await watched(office, pb.WatchPreviewJobRequest(bucket=bucket, job_id=job_id), made)
        case 4:
            await office.queues.list_queues(queues.ListPreviewQueuesRequest(bucket=bucket), made)
            return []
        case _:
            get = pb.GetPreviewJobRequest(bucket=bucket, job_id=job_id)
            cached_job = office.jobs.cached_get(get, made)
            return [await office.jobs.get(get, made) if cached_job is None else PreviewJob.FromString(cached_job)]


@pytest.mark.slow
async def test_no_random_call_leaks_a_job_and_rejected_ones_look_nothing_up(warm: tuple[Office, CountingCache]) -> None:
    """100,000 calls of twenty callers on each other's buckets, on a warm cache."""
    office, memory = warm
    rnd = random.Random(16)  # noqa: S311 - no secret
    callers = [caller_of(f"team{number}", {bucket.name: ("in/",)}) for number, bucket in enumerate(BUCKETS)]
    rejected = answered = 0
    for _ in range(100_000):
        who, where = rnd.randrange(CALLERS), rnd.randrange(CALLERS)
        if rnd.random() < 0.3:
            where = who
        before = memory.lookups, len(office.upstream.asked)
        found: list[PreviewJob] = []
        reason = None
        try:
            found = await _random_call(office, BUCKETS[where].name, rnd, by(callers[who]))
        except GatewayError as error:
            reason = error.reason
        if where != who:
            rejected += 1
            assert reason == r.ERROR_REASON_NOT_PERMITTED
            assert (memory.lookups, len(office.upstream.asked)) == before
        for job in found:
            answered += 1
            assert job.input.object == f"in/{BUCKETS[who].name}.pdf"
    assert rejected > 50_000
    assert answered > 10_000
