"""The use-cases of UploadService, over an object store in memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from google.protobuf.duration_pb2 import Duration

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.upload_service_pb2 import (
    AbortUploadRequest,
    CompleteUploadRequest,
    CreateUploadRequest,
    Upload,
    UploadedObject,
)
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.callers import Caller
from docpreview_gateway.model.errors import GatewayError, InvalidRequest
from docpreview_gateway.model.policy import ANY_METHOD, Rights, UploadRights
from docpreview_gateway.uploads.plans import PART_BYTES
from docpreview_gateway.upstream.ports import ObjectFacts
from tests.fakes.objects import refusal
from tests.unit.conftest import BUCKET, Office

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docpreview.v1.error_reason_pb2 import ErrorReason

RULE = f"callers.shop.uploads[{BUCKET.name}]"
RIGHTS = UploadRights(RULE, ("in/shop/",), 2 * PART_BYTES, frozenset({"application/pdf"}))


def shop(**changes: Any) -> Caller:
    uploads = MappingProxyType({BUCKET.name: replace(RIGHTS, **changes)})
    return Caller("shop", rights=Rights("callers.shop", frozenset({ANY_METHOD}), {}, uploads=uploads))


def call(caller: Caller | None = None) -> Call:
    return Call("r1", asyncio.get_running_loop().time() + 5, caller or Caller("one"))


async def begin(office: Office, caller: Caller | None = None, **fields: Any) -> Upload:
    usual: dict[str, Any] = {"bucket": BUCKET.name, "object": "in/shop/${UploadId}.pdf", "content_length": 7}
    return await office.uploads.create(CreateUploadRequest(**usual | fields), call(caller))


async def complete(
    office: Office, upload: Upload, etags: Sequence[str] = ('"e"',), caller: Caller | None = None
) -> UploadedObject:
    request = CompleteUploadRequest(upload_token=upload.upload_token, etags=etags)
    return await office.uploads.complete(request, call(caller))


def id_of(upload: Upload) -> str:
    return upload.object.rpartition("/")[2].partition(".")[0]


def made(upload: Upload, length: int = 7, **facts: Any) -> ObjectFacts:
    return ObjectFacts(length, '"e"', 5, id_of(upload))._replace(**facts)


async def reason_of(work: Any) -> ErrorReason.ValueType:
    with pytest.raises(GatewayError) as caught:
        await work
    return caught.value.reason


async def violations(work: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        await work
    return {wrong.field: wrong.description for wrong in caught.value.violations}


async def test_an_address_is_signed_with_all_headers_of_its_put(office: Office) -> None:
    """Exactly those that the part names, host and length among them."""
    upload = await begin(office, object="in/a.pdf", content_md5=b"m" * 16, content_type="application/pdf; a=b")
    (part,) = upload.parts
    assert dict(part.headers) == {
        "host": BUCKET.object_host,
        "content-length": "7",
        "content-type": "application/pdf; a=b",
        "content-md5": "bW1tbW1tbW1tbW1tbW1tbQ==",
        "x-cos-forbid-overwrite": "true",
        "x-cos-meta-docpreview-upload": part.headers["x-cos-meta-docpreview-upload"],
    }
    url = urlsplit(part.url)
    query = parse_qs(url.query)
    assert (url.scheme, url.netloc, url.path) == ("https", BUCKET.object_host, f"/{upload.object}")
    assert query["q-header-list"] == [";".join(sorted(part.headers))]
    begin_at, end = map(int, query["q-sign-time"][0].split(";"))
    assert (end - begin_at, upload.expire_time.seconds) == (960, end)
    assert not office.objects.begun


async def test_the_time_to_live_is_the_callers(office: Office) -> None:
    """From now, by the cloud's clock."""
    office.clock.time = 1_700_000_000.0
    upload = await begin(office, ttl=Duration(seconds=60))
    assert upload.expire_time.seconds == 1_700_000_060


async def test_no_address_is_signed_before_the_time_of_the_store_is_known(office: Office) -> None:
    """It would be valid at another time than is told."""
    office.objects.failures["now"] = GatewayError(r.ERROR_REASON_UPSTREAM_UNAVAILABLE, "no")
    assert await reason_of(begin(office)) == r.ERROR_REASON_UPSTREAM_UNAVAILABLE


async def test_two_uploads_never_have_the_same_key(office: Office) -> None:
    """The placeholder is replaced wherever it stands, by 32 digits."""
    one, other = [await begin(office, object="${UploadId}/${UploadId}.pdf") for _ in range(2)]
    folder, name = one.object.split("/")
    assert (folder + ".pdf", len(folder)) == (name, 32)
    assert one.object != other.object


async def test_a_large_content_begins_a_multipart_upload_with_the_objects_headers(office: Office) -> None:
    """Each part is signed with its number and the upload, its length and the host."""
    upload = await begin(office, content_length=2 * PART_BYTES + 1, content_md5=b"m" * 16)
    headers = {"content-type": "application/pdf", "x-cos-meta-docpreview-upload": id_of(upload)}
    assert office.objects.begun == [(upload.object, headers)]
    for number, part in enumerate(upload.parts, 1):
        assert set(part.headers) == {"host", "content-length"}
        query = parse_qs(urlsplit(part.url).query)
        assert (query["partNumber"], query["uploadId"]) == ([str(number)], ["u1"])
        assert query["q-url-param-list"] == ["partnumber;uploadid"]
        assert query["q-header-list"] == ["content-length;host"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"object": ""}, "object"),
        ({"object": "/in/a.pdf"}, "object"),
        ({"object": "in/../a.pdf"}, "object"),
        ({"object": "in\\a.pdf"}, "object"),
        ({"object": "a" * 840 + "${UploadId}"}, "object"),
        ({"content_length": 0}, "content_length"),
        ({"content_length": 209_715_201}, "content_length"),
        ({"content_type": "pdf"}, "content_type"),
        ({"content_type": "a/b\r\nx: y"}, "content_type"),
        ({"content_type": "a/" + "b" * 126}, "content_type"),
        ({"content_md5": b"m"}, "content_md5"),
        ({"ttl": Duration()}, "ttl"),
        ({"ttl": Duration(seconds=3601)}, "ttl"),
        ({"bucket": "B"}, "bucket"),
    ],
)
async def test_what_cannot_be_uploaded_is_invalid(office: Office, fields: dict[str, Any], field: str) -> None:
    """Before anything is begun."""
    assert list(await violations(begin(office, **fields))) == [field]
    assert not office.objects.begun


async def test_without_a_policy_everyone_uploads_to_every_bucket_and_overwrites_nothing(office: Office) -> None:
    """As everyone may do everything else; another bucket does not exist."""
    upload = await begin(office, object="any/where.txt")
    assert upload.parts[0].headers["x-cos-forbid-overwrite"] == "true"
    reason = await reason_of(begin(office, bucket="other-1250000000"))
    assert reason == r.ERROR_REASON_BUCKET_NOT_CONFIGURED


@pytest.mark.parametrize(
    ("caller", "fields", "rule"),
    [
        (shop(), {"object": "in/bank/a.pdf"}, f"{RULE}.prefixes"),
        (shop(), {"object": "in/shop/%2e%2e/a.pdf"}, f"{RULE}.prefixes"),
        (shop(), {"content_length": 2 * PART_BYTES + 1}, f"{RULE}.max_bytes"),
        (shop(), {"object": "in/shop/a.txt"}, f"{RULE}.types"),
        (shop(), {"content_type": "text/html"}, f"{RULE}.types"),
        (shop(), {"bucket": "other-1250000000"}, "callers.shop.uploads"),
        (Caller("none", rights=Rights("callers.none", frozenset({ANY_METHOD}), {})), {}, "callers.none.uploads"),
    ],
)
async def test_what_the_policy_does_not_name_is_not_permitted(
    office: Office, caller: Caller, fields: dict[str, Any], rule: str
) -> None:
    """The rule is in the error and in the audit."""
    with pytest.raises(GatewayError) as caught:
        await begin(office, caller, **fields)
    assert caught.value.reason == r.ERROR_REASON_NOT_PERMITTED
    assert caught.value.rule == rule  # type: ignore[attr-defined]
    assert [(stage, outcome) for stage, outcome, _ in office.log.uploads] == [("create", "NOT_PERMITTED")]


async def test_types_are_compared_without_case_and_parameters(office: Office) -> None:
    """Media types are."""
    upload = await begin(office, shop(), content_type="Application/PDF; charset=x")
    assert upload.parts[0].headers["content-type"] == "Application/PDF; charset=x"


@pytest.mark.parametrize(
    ("caller", "key", "forbidden"),
    [
        (shop(), "in/shop/a.pdf", True),
        (None, "in/shop/a.pdf", True),
        (shop(overwrite=True), "in/shop/a.pdf", False),
        (shop(), "in/shop/${UploadId}.pdf", False),
        (None, "${UploadId}/a.pdf", False),
    ],
)
async def test_an_object_may_be_replaced_where_the_policy_says_so_or_the_key_is_new(
    office: Office, caller: Caller | None, key: str, *, forbidden: bool
) -> None:
    """Otherwise a header forbids it: in the address, at the begin and at the end."""
    upload = await begin(office, caller, object=key)
    assert ("x-cos-forbid-overwrite" in upload.parts[0].headers) == forbidden
    upload = await begin(office, caller, object=key, content_length=PART_BYTES + 1)
    ((_, headers),) = office.objects.begun
    assert ("x-cos-forbid-overwrite" in headers) == forbidden
    upload_id = headers["x-cos-meta-docpreview-upload"]
    office.objects.found = ObjectFacts(PART_BYTES + 1, '"e"', None, upload_id)
    await complete(office, upload, ["1", "2"], caller)
    expected = {"x-cos-forbid-overwrite": "true"} if forbidden else {}
    assert office.objects.completed == [("u1", ["1", "2"], expected)]


async def test_a_completed_object_is_told_with_what_the_store_says(office: Office) -> None:
    """ETags are compared without their quotes."""
    upload = await begin(office)
    office.objects.found = made(upload)
    assert await complete(office, upload, ["e"]) == UploadedObject(
        bucket=BUCKET.name, object=upload.object, content_length=7, etag='"e"', content_crc64=5
    )
    office.objects.found = made(upload, crc64=None)
    assert not (await complete(office, upload)).HasField("content_crc64")
    assert office.telemetry.uploads == [("one", "announced", 7), ("one", "completed", 7), ("one", "completed", 7)]


@pytest.mark.parametrize(
    "facts",
    [
        {"length": 8},
        {"etag": '"f"'},
        {"crc64": 6},
        {"upload_id": "", "etag": '"f"'},
        {"upload_id": "0" * 32, "etag": '"f"'},
        {"upload_id": "0" * 32, "length": 8},
        {"upload_id": "0" * 32, "crc64": 6},
    ],
)
async def test_an_object_that_is_not_what_was_announced_is_incomplete(office: Office, facts: dict[str, Any]) -> None:
    """Another length, content, checksum, or an object that another upload made."""
    upload = await begin(office, content_crc64=5)
    office.objects.found = made(upload, **facts)
    assert await reason_of(complete(office, upload)) == r.ERROR_REASON_UPLOAD_INCOMPLETE
    office.objects.found = None
    assert await reason_of(complete(office, upload)) == r.ERROR_REASON_UPLOAD_INCOMPLETE
    assert [stage for _, stage, _ in office.telemetry.uploads] == ["announced"]


async def test_an_object_of_another_upload_with_the_same_content_will_do(office: Office) -> None:
    """By its length and the ETag that is given: an upload to a fixed key can be repeated. Not of several parts."""
    office.objects.found = ObjectFacts(7, '"e"', 5, "0" * 32)
    for caller in (shop(), shop(overwrite=True)):
        upload = await begin(office, caller, object="in/shop/a.pdf")
        assert (await complete(office, upload, ['"e"'], caller)).etag == '"e"'
    upload = await begin(office, shop(), object="in/shop/a.pdf", content_length=PART_BYTES + 1)
    office.objects.failures["complete"] = refusal("NoSuchUpload", 404)
    office.objects.found = ObjectFacts(PART_BYTES + 1, '"1"', 5, "0" * 32)
    assert await reason_of(complete(office, upload, ['"1"', '"2"'], shop())) == r.ERROR_REASON_UPLOAD_NOT_FOUND


async def test_an_object_of_another_upload_is_told_as_what_is_in_the_way(office: Office) -> None:
    """Where it must not be replaced; elsewhere the content is still to be put."""
    office.objects.found = ObjectFacts(7, '"f"', 5, "0" * 32)
    for caller, message, reason in (
        (shop(), "exists already", r.ERROR_REASON_OBJECT_EXISTS),
        (shop(overwrite=True), "PUT it", r.ERROR_REASON_UPLOAD_INCOMPLETE),
    ):
        upload = await begin(office, caller, object="in/shop/a.pdf")
        with pytest.raises(GatewayError, match=message) as caught:
            await complete(office, upload, caller=caller)
        assert caught.value.reason == reason


async def test_a_checksum_that_the_cloud_does_not_tell_is_not_compared(office: Office) -> None:
    """The contract says so."""
    upload = await begin(office, content_crc64=6)
    office.objects.found = made(upload, crc64=None)
    await complete(office, upload)


async def test_an_upload_that_is_gone_was_completed_if_its_object_is_there(office: Office) -> None:
    """A completion whose reply was lost. Otherwise it was aborted."""
    upload = await begin(office, content_length=PART_BYTES + 1)
    office.objects.failures["complete"] = refusal("NoSuchUpload", 404)
    office.objects.found = made(upload, PART_BYTES + 1)
    assert (await complete(office, upload, ["1", "2"])).content_length == PART_BYTES + 1
    office.objects.found = made(upload, PART_BYTES + 1, upload_id="")
    assert await reason_of(complete(office, upload, ["1", "2"])) == r.ERROR_REASON_UPLOAD_NOT_FOUND
    office.objects.found = None
    assert await reason_of(complete(office, upload, ["1", "2"])) == r.ERROR_REASON_UPLOAD_NOT_FOUND


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("InvalidPart", 400, r.ERROR_REASON_UPLOAD_INCOMPLETE),
        ("InvalidPartOrder", 400, r.ERROR_REASON_UPLOAD_INCOMPLETE),
        ("EntityTooSmall", 400, r.ERROR_REASON_UPLOAD_INCOMPLETE),
        ("FileAlreadyExists", 409, r.ERROR_REASON_OBJECT_EXISTS),
        ("Strange", 400, r.ERROR_REASON_UPSTREAM_UNMAPPED),
    ],
)
async def test_each_refusal_of_a_completion_has_its_reason(
    office: Office, code: str, status: int, reason: ErrorReason.ValueType
) -> None:
    """Parts that are not those of the upload are UPLOAD_INCOMPLETE."""
    upload = await begin(office, content_length=PART_BYTES + 1)
    office.objects.failures["complete"] = refusal(code, status)
    assert await reason_of(complete(office, upload, ["1", "2"])) == reason


async def test_an_upload_is_not_begun_where_an_object_is(office: Office) -> None:
    """The message says what to do."""
    office.objects.failures["initiate"] = refusal("FileAlreadyExists", 409)
    with pytest.raises(GatewayError, match="in the key") as caught:
        await begin(office, content_length=PART_BYTES + 1)
    assert caught.value.reason == r.ERROR_REASON_OBJECT_EXISTS


async def test_a_completion_names_as_many_etags_as_there_are_parts(office: Office) -> None:
    """At least one, and none with control characters."""
    upload = await begin(office)
    assert list(await violations(complete(office, upload, ["1", "2"]))) == ["etags"]
    assert list(await violations(complete(office, upload, []))) == ["etags"]
    assert list(await violations(complete(office, upload, ["\n"]))) == ["etags"]


async def test_an_abort_deletes_the_parts_and_can_be_repeated(office: Office) -> None:
    """An upload of one part has none."""
    upload = await begin(office, content_length=PART_BYTES + 1)
    request = AbortUploadRequest(upload_token=upload.upload_token)
    await office.uploads.abort(request, call())
    assert office.objects.aborted == ["u1"]
    office.objects.failures["abort"] = refusal("NoSuchUpload", 404)
    await office.uploads.abort(request, call())
    office.objects.failures["abort"] = refusal("SlowDown", 503)
    assert await reason_of(office.uploads.abort(request, call())) == r.ERROR_REASON_UPSTREAM_UNMAPPED
    single = await begin(office)
    await office.uploads.abort(AbortUploadRequest(upload_token=single.upload_token), call())


async def test_a_token_is_valid_for_a_day(office: Office) -> None:
    """Then the answer is that for any text."""
    upload = await begin(office)
    office.objects.found = made(upload)
    office.clock.time += 86_000
    await complete(office, upload)
    office.clock.time += 500
    assert list(await violations(complete(office, upload))) == ["upload_token"]


async def test_a_policy_that_has_changed_counts_at_the_end(office: Office) -> None:
    """A caller that lost its right completes nothing."""
    upload = await begin(office, shop())
    office.objects.found = made(upload)
    assert await reason_of(complete(office, upload, caller=shop(max_bytes=6))) == r.ERROR_REASON_NOT_PERMITTED
    await complete(office, upload, caller=shop())


async def test_every_call_is_audited_once(office: Office) -> None:
    """With the upload's id, which is in the object's metadata too."""
    upload = await begin(office)
    await reason_of(complete(office, upload))
    await office.uploads.abort(AbortUploadRequest(upload_token=upload.upload_token), call())
    stages = [("create", "OK"), ("complete", "UPLOAD_INCOMPLETE"), ("abort", "OK")]
    assert [(stage, outcome) for stage, outcome, _ in office.log.uploads] == stages
    for _, _, facts in office.log.uploads:
        assert (facts.bucket, facts.object, facts.upload_id) == (BUCKET.name, upload.object, id_of(upload))
        assert facts.content_length == 7
