"""Scripts of pages in browsers: which origins may use object hosts."""

from collections.abc import AsyncIterator

import pytest

from docpreview_emulator import Emulator, Settings

from .cloud_client import BUCKET, CI_HOST, COS_HOST, REGION, Cloud, Reply, Signer

PAGE = "http://localhost:3000"
ALLOW = "Access-Control-Allow-Origin"


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(settings=Settings(cors_origins=(PAGE, "https://app.example.com"))) as running:
        running.put_object(BUCKET, REGION, "k", b"data")
        yield running


async def preflight(cloud: Cloud, path: str, host: str = COS_HOST, **headers: str) -> Reply:
    sent = {"host": host, "origin": PAGE, "access-control-request-method": "PUT"}
    return await cloud.raw("OPTIONS", path, headers=sent | {n.replace("_", "-"): v for n, v in headers.items()})


async def test_a_preflight_needs_no_signature_and_allows_what_it_asks_for(cloud: Cloud) -> None:
    """To any path, there or not; also to the form of addresses that browsers can open."""
    for path in ("/new", "/", f"/_emulator/objects/{COS_HOST}/new"):
        reply = await preflight(cloud, path, access_control_request_headers="authorization,x-cos-meta-a")
        assert (reply.status, reply.headers[ALLOW]) == (200, PAGE)
        assert reply.headers["Access-Control-Allow-Methods"] == "GET, PUT, POST, DELETE, HEAD"
        assert reply.headers["Access-Control-Allow-Headers"] == "authorization,x-cos-meta-a"
        assert reply.headers["Access-Control-Max-Age"] == "600"
        assert reply.headers["Vary"] == "Origin"


async def test_a_page_may_read_answers_and_errors_with_the_headers_that_it_needs(cloud: Cloud) -> None:
    for path, status in (("/k", 200), ("/missing", 404)):
        reply = await cloud.send("GET", path, host=COS_HOST, headers={"origin": PAGE})
        assert (reply.status, reply.headers[ALLOW]) == (status, PAGE)
        exposed = reply.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"ETag", "x-cos-hash-crc64ecma", "x-cos-request-id"} <= set(exposed)
    unsigned = await cloud.raw("GET", "/k", headers={"host": COS_HOST, "origin": PAGE})
    assert (unsigned.status, unsigned.headers[ALLOW]) == (403, PAGE), "a script learns what is wrong"


async def test_an_address_that_was_signed_is_read_by_a_script_in_its_path_form(cloud: Cloud) -> None:
    query = Signer().sign("GET", "/k", {}, {"host": COS_HOST})
    path = f"/_emulator/objects/{COS_HOST}/k"
    reply = await cloud.raw("GET", path, params=query, headers={"origin": PAGE})
    assert (reply.body, reply.headers[ALLOW]) == (b"data", PAGE)


@pytest.mark.parametrize(
    "headers", [{"origin": "http://localhost:3001"}, {"origin": "null"}, {"access_control_request_method": "PATCH"}]
)
async def test_another_origin_or_method_is_forbidden(cloud: Cloud, headers: dict[str, str]) -> None:
    reply = await preflight(cloud, "/k", **headers)
    assert (reply.status, reply.text("Code")) == (403, "AccessForbidden")


async def test_another_origin_is_answered_without_leave_to_read(cloud: Cloud) -> None:
    for origin in ({"origin": "http://localhost:3001"}, {}):
        reply = await cloud.send("GET", "/k", host=COS_HOST, headers=origin)
        assert (reply.status, ALLOW in reply.headers) == (200, False)


async def test_hosts_of_document_jobs_are_for_no_page(cloud: Cloud) -> None:
    assert (await preflight(cloud, "/doc_jobs", CI_HOST)).status == 403
    reply = await cloud.send("GET", "/docqueue", headers={"origin": PAGE})
    assert (reply.status, ALLOW in reply.headers) == (200, False)


async def test_a_star_allows_every_origin_and_by_default_there_is_none() -> None:
    for origins, status, allowed in ((("*",), 200, "*"), ((), 403, None)):
        async with Emulator(settings=Settings(cors_origins=origins)) as emulator, Cloud(emulator.url) as cloud:
            reply = await preflight(cloud, "/k")
            assert (reply.status, reply.headers.get(ALLOW)) == (status, allowed)
