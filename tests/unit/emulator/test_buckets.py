"""Buckets over the wire: lists of their objects, and strict mode, in which only those exist that were created."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from docpreview_emulator import Emulator, Settings

from .cloud_client import BUCKET, COS_HOST, REGION, XML, Cloud, Reply, create_body
from .pdf_files import pdf

ELSEWHERE = "ap-guangzhou"
KEYS = ["a.pdf", "b/1.jpg", "b/2.jpg", "b/c/3.jpg", "d+e &<中>.jpg", "f"]


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[Emulator]:
    async with Emulator(tmp_path / "strict", settings=Settings(submit_delay=0.0, strict=True)) as running:
        yield running


@pytest.fixture
async def client(strict: Emulator) -> AsyncIterator[Cloud]:
    async with Cloud(strict.url) as client:
        yield client


@pytest.fixture
async def filled(emulator: Emulator, cloud: Cloud) -> Cloud:
    emulator.delete_object(BUCKET, REGION, "seven.pdf")
    for key in KEYS:
        emulator.put_object(BUCKET, REGION, key, b"12")
    emulator.put_object("other-1250000000", REGION, "not listed", b"")
    emulator.put_object(BUCKET, ELSEWHERE, "not listed", b"")
    return cloud


async def listed(cloud: Cloud, **params: str) -> Reply:
    sent = {name.replace("_", "-"): value for name, value in params.items()}
    return await cloud.send("GET", "/", host=COS_HOST, params=sent)


async def on(cloud: Cloud, method: str, path: str = "/", *, service: str = "cos", region: str = REGION) -> Reply:
    return await cloud.send(method, path, host=f"{BUCKET}.{service}.{region}.myqcloud.com")


async def test_a_list_has_every_object_of_its_bucket_in_order_with_its_facts(filled: Cloud) -> None:
    reply = await listed(filled)
    assert (reply.status, reply.xml.tag, reply.text("Name")) == (200, "ListBucketResult", BUCKET)
    assert reply.texts("Contents/Key") == KEYS
    assert (reply.text("MaxKeys"), reply.text("IsTruncated"), reply.texts("NextMarker")) == ("1000", "false", [])
    first = reply.xml.find("Contents")
    assert first is not None
    head = await filled.send("HEAD", "/a.pdf", host=COS_HOST)
    assert (first.findtext("ETag"), first.findtext("Size")) == (head.headers["ETag"], "2")
    assert (first.findtext("Owner/ID"), first.findtext("StorageClass")) == ("1250000000", "STANDARD")
    assert (first.findtext("LastModified") or "")[10:11] == "T"


async def test_a_delimiter_rolls_keys_up_below_the_prefix(filled: Cloud) -> None:
    top = await listed(filled, delimiter="/")
    assert top.texts("CommonPrefixes/Prefix") == ["b/"]
    assert top.texts("Contents/Key") == ["a.pdf", "d+e &<中>.jpg", "f"]
    below = await listed(filled, delimiter="/", prefix="b/")
    assert (below.text("Prefix"), below.text("Delimiter")) == ("b/", "/")
    assert below.texts("CommonPrefixes/Prefix") == ["b/c/"]
    assert below.texts("Contents/Key") == ["b/1.jpg", "b/2.jpg"]
    assert (await listed(filled, prefix="b_")).texts("Contents/Key") == [], "no pattern of SQL"


@pytest.mark.parametrize("delimiter", ["", "/"])
@pytest.mark.parametrize("size", [1, 2, 3, 6])
async def test_a_list_in_pages_has_every_entry_once(filled: Cloud, delimiter: str, size: int) -> None:
    """A common prefix is one entry, and the next page goes on behind all that it stands for."""
    seen: list[str] = []
    marker = ""
    while True:
        page = await listed(filled, delimiter=delimiter, max_keys=str(size), marker=marker)
        entries = page.texts("Contents/Key") + page.texts("CommonPrefixes/Prefix")
        assert len(entries) <= size
        seen += entries
        if page.text("IsTruncated") == "false":
            break
        marker = page.text("NextMarker")
        assert marker == max(entries)
    assert sorted(seen) == (["a.pdf", "b/", "d+e &<中>.jpg", "f"] if delimiter else KEYS)
    assert len(seen) == len(set(seen))


async def test_a_marker_is_a_key_after_which_the_list_begins_there_or_not(filled: Cloud) -> None:
    assert (await listed(filled, marker="b/2.jpg")).texts("Contents/Key") == KEYS[3:]
    assert (await listed(filled, marker="b/2")).texts("Contents/Key") == KEYS[2:]
    assert (await listed(filled, max_keys="0")).text("IsTruncated") == "false"


async def test_an_encoded_list_has_its_keys_percent_encoded_and_says_so(filled: Cloud) -> None:
    """So that keys may have characters that XML cannot hold."""
    await filled.put("line\x01\n", b"")
    plain = await listed(filled, prefix="d+e")
    assert (plain.text("Contents/Key"), plain.texts("EncodingType")) == ("d+e &<中>.jpg", [])
    coded = await listed(filled, prefix="d+e", encoding_type="url", delimiter="&")
    assert (coded.text("EncodingType"), coded.text("Prefix")) == ("url", "d%2Be")
    assert coded.text("CommonPrefixes/Prefix") == "d%2Be%20%26"
    whole = await listed(filled, encoding_type="url")
    assert "line\x01\n" in [unquote(key) for key in whole.texts("Contents/Key")]


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"max-keys": "1001"}, "InvalidArgument"),
        ({"max-keys": "many"}, "InvalidArgument"),
        ({"encoding-type": "base64"}, "InvalidArgument"),
        ({"prefix": "p" * 1025}, "InvalidURI"),
        ({"marker": "m" * 1025}, "InvalidURI"),
    ],
)
async def test_a_list_that_the_cloud_cannot_read_is_refused(cloud: Cloud, params: dict[str, str], code: str) -> None:
    reply = await cloud.send("GET", "/", host=COS_HOST, params=params)
    assert (reply.status, reply.text("Code")) == (400, code)


async def test_several_objects_are_deleted_by_one_request(filled: Cloud) -> None:
    """Also those that are not there; a quiet one names none."""
    for quiet, keys in (("false", ["a.pdf", "missing"]), ("true", ["f"])):
        entries = "".join(f"<Object><Key>{key}</Key></Object>" for key in keys)
        body = f"<Delete><Quiet>{quiet}</Quiet>{entries}</Delete>".encode()
        reply = await filled.send("POST", "/", host=COS_HOST, params={"delete": ""}, body=body)
        assert reply.texts("Deleted/Key") == (keys if quiet == "false" else [])
    assert (await listed(filled)).texts("Contents/Key") == KEYS[1:5]
    reply = await filled.send("POST", "/", host=COS_HOST, params={"delete": ""}, body=b"<Delete/>")
    assert reply.text("Code") == "MalformedXML"


async def test_without_strict_mode_every_bucket_exists_in_every_region(cloud: Cloud) -> None:
    """It can be created and deleted all the same, for clients that do so first."""
    for region in (REGION, ELSEWHERE):
        head = await cloud.send("HEAD", "/", host=f"any-1250000000.cos.{region}.myqcloud.com")
        assert (head.status, head.headers["x-cos-bucket-region"], head.body) == (200, region, b"")
    assert [(await on(cloud, method)).status for method in ("PUT", "PUT", "HEAD")] == [200, 200, 200]


async def test_in_strict_mode_a_bucket_does_not_exist_until_it_is_created(strict: Emulator, client: Cloud) -> None:
    for method, path in (("GET", "/"), ("GET", "/k"), ("PUT", "/k"), ("DELETE", "/"), ("DELETE", "/k")):
        reply = await on(client, method, path)
        assert (reply.status, reply.text("Code"), reply.text("Resource")) == (404, "NoSuchBucket", COS_HOST + path)
    assert "create it, by PUT /" in (await on(client, "GET")).text("Message")
    assert (await on(client, "HEAD")).status == 404
    assert (await on(client, "PUT")).status == 200
    assert (await on(client, "HEAD")).headers["x-cos-bucket-region"] == REGION
    assert (await client.put("k", b"data")).status == 200
    assert (await on(client, "GET")).texts("Contents/Key") == ["k"]
    assert strict.get_object(BUCKET, REGION, "k") == b"data"


async def test_in_strict_mode_documents_need_their_bucket_too(strict: Emulator, client: Cloud) -> None:
    """Of jobs, queues and the document service; a job's output needs one as well."""
    for method, path in (("GET", "/doc_jobs/d1"), ("GET", "/docqueue"), ("POST", "/docbucket"), ("GET", "/")):
        reply = await on(client, method, path, service="ci")
        assert (reply.status, reply.text("Code")) == (404, "NoSuchBucket")
        assert reply.xml.find("Resource") is None
    assert (await client.create("seven.pdf")).text("Code") == "NoSuchBucket"
    await on(client, "PUT")
    await client.put("seven.pdf", pdf(1))
    body = create_body("seven.pdf").replace(f"<Bucket>{BUCKET}".encode(), b"<Bucket>absent-1250000000")
    absent = await client.send("POST", "/doc_jobs", headers={"content-type": XML}, body=body)
    assert (absent.status, absent.text("Code")) == (404, "NoSuchBucket")
    assert strict.accepted_jobs == 0
    assert (await strict.wait_for_job(await client.job_id("seven.pdf"))).state == "Success"


async def test_in_strict_mode_a_bucket_is_in_one_region_only(client: Cloud) -> None:
    """The refusal names it."""
    await on(client, "PUT")
    await client.put("k", b"data")
    for service, path in (("cos", "/k"), ("ci", "/docqueue")):
        reply = await on(client, "GET", path, service=service, region=ELSEWHERE)
        assert (reply.status, reply.text("Code")) == (404, "NoSuchBucket")
        assert reply.text("Message").endswith(f"It is in {REGION}.")
    again = await on(client, "PUT", region=ELSEWHERE)
    assert (again.status, again.text("Code")) == (409, "BucketAlreadyExists")
    assert (await on(client, "PUT")).text("Code") == "BucketAlreadyExists"
    source = {"x-cos-copy-source": f"{BUCKET}.cos.{ELSEWHERE}.myqcloud.com/k"}
    assert (await client.send("PUT", "/copy", host=COS_HOST, headers=source)).text("Code") == "NoSuchBucket"


async def test_in_strict_mode_buckets_survive_a_restart(tmp_path: Path) -> None:
    for status in (200, 409):
        settings = Settings(strict=True)
        async with Emulator(tmp_path, settings=settings) as emulator, Cloud(emulator.url) as client:
            assert (await on(client, "PUT")).status == status


async def test_the_library_and_the_control_routes_create_the_bucket_that_they_name(
    strict: Emulator, client: Cloud
) -> None:
    strict.put_object(BUCKET, REGION, "k", b"data")
    assert (await client.fetch("k")).body == b"data"
    host = f"other-1250000000.cos.{REGION}.myqcloud.com"
    await client.raw("PUT", f"/_emulator/upload/{host}/k", body=b"data")
    assert (await client.send("GET", "/k", host=host)).body == b"data"


@pytest.mark.parametrize("left", ["object", "upload"])
async def test_a_bucket_is_deleted_once_it_is_empty(client: Cloud, left: str) -> None:
    """Of objects, and of uploads that have not ended. Its queue is as new if it is created again."""
    await on(client, "PUT")
    queue = (await client.send("GET", "/docqueue")).text("QueueList/QueueId")
    config = "<NotifyConfig><Url>http://127.0.0.1:9/hook</Url></NotifyConfig>"
    body = f"<Request><Name>mine</Name><State>Paused</State>{config}</Request>".encode()
    assert (await client.send("PUT", f"/docqueue/{queue}", headers={"content-type": XML}, body=body)).status == 200
    params = {} if left == "object" else {"uploads": ""}
    method = "PUT" if left == "object" else "POST"
    made = await client.send(method, "/k", host=COS_HOST, params=params, body=b"")
    refused = await on(client, "DELETE")
    assert (refused.status, refused.text("Code")) == (409, "BucketNotEmpty")
    ended = {} if left == "object" else {"uploadId": made.text("UploadId")}
    assert (await client.send("DELETE", "/k", host=COS_HOST, params=ended)).status == 204
    gone = await on(client, "DELETE")
    assert (gone.status, gone.body) == (204, b"")
    assert (await on(client, "GET")).text("Code") == "NoSuchBucket"
    await on(client, "PUT")
    shown = await client.send("GET", "/docqueue")
    facts = [shown.text(f"QueueList/{name}") for name in ("Name", "State", "NotifyConfig/State")]
    assert facts == ["queue-doc-process-1", "Active", "Off"]


@pytest.mark.parametrize("name", ["noappid", "Under_score-1250000000", "-a-1250000000", "a" * 50 + "-1250000000"])
async def test_a_host_whose_bucket_has_no_valid_name_is_refused(cloud: Cloud, name: str) -> None:
    for service, path in (("cos", "/k"), ("cos", "/"), ("ci", "/docqueue")):
        for method in ("GET", "PUT"):
            host = f"{name}.{service}.{REGION}.myqcloud.com"
            reply = await cloud.send(method, path, host=host)
            assert (reply.status, reply.text("Code")) == (400, "InvalidBucketName")
            assert "then - and the APPID" in reply.text("Message")


async def test_a_bucket_of_60_characters_has_a_valid_name(cloud: Cloud) -> None:
    name = "a" * 49 + "-1250000000"
    assert len(name) == 60
    assert (await cloud.send("HEAD", "/", host=f"{name}.cos.{REGION}.myqcloud.com")).status == 200


async def test_an_output_in_a_bucket_without_a_valid_name_is_refused(emulator: Emulator, cloud: Cloud) -> None:
    body = create_body("seven.pdf").replace(f"<Bucket>{BUCKET}".encode(), b"<Bucket>../x")
    reply = await cloud.send("POST", "/doc_jobs", headers={"content-type": XML}, body=body)
    assert (reply.status, reply.text("Code")) == (400, "InvalidBucketName")
    assert emulator.accepted_jobs == 0


async def test_the_document_service_of_all_regions_is_listed_on_demand(emulator: Emulator, cloud: Cloud) -> None:
    """Else of those that are named, else of the host's."""
    emulator.bind_bucket("b-1250000000", ELSEWHERE)
    emulator.bind_bucket("c-1250000000", "eu-frankfurt")
    emulator.unbind_bucket("d-1250000000", "eu-frankfurt")
    for regions, names in (
        ("All", [BUCKET, "b-1250000000", "c-1250000000"]),
        (f"{ELSEWHERE},eu-frankfurt", ["b-1250000000", "c-1250000000"]),
        ("", [BUCKET]),
    ):
        params = {"regions": regions} if regions else {}
        reply = await cloud.send("GET", "/docbucket", host=f"ci.{REGION}.myqcloud.com", params=params)
        assert reply.texts("DocBucketList/Name") == names
        assert reply.text("TotalCount") == str(len(names))


@pytest.mark.parametrize("strict", [False, True])
async def test_the_buckets_of_all_regions_or_of_one_are_listed(tmp_path: Path, *, strict: bool) -> None:
    """Those that were created or, without strict mode, are used."""
    async with Emulator(tmp_path, settings=Settings(strict=strict)) as emulator, Cloud(emulator.url) as client:
        emulator.put_object(BUCKET, REGION, "k", b"")
        for name in ("b-1250000000", "c-1250000000"):
            await client.send("PUT", "/", host=f"{name}.cos.{ELSEWHERE}.myqcloud.com")
        names = []
        for host, params in (
            ("service.cos.myqcloud.com", {"marker": "", "max-keys": "2000"}),
            ("service.cos.myqcloud.com", {"region": ELSEWHERE, "marker": "b-1250000000"}),
            (f"cos.{REGION}.myqcloud.com", {}),
        ):
            reply = await client.send("GET", "/", host=host, params=params)
            assert (reply.status, reply.xml.tag) == (200, "ListAllMyBucketsResult")
            names.append(
                list(zip(reply.texts("Buckets/Bucket/Name"), reply.texts("Buckets/Bucket/Location"), strict=True))
            )
        made = [("b-1250000000", ELSEWHERE), ("c-1250000000", ELSEWHERE)]
        assert names == [[*made, (BUCKET, REGION)], made[1:], [(BUCKET, REGION)]]
