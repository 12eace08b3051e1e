"""The guard of the control routes and the page against names and pages that are not the emulator's own."""

from collections.abc import Mapping

import aiohttp
import pytest

from docpreview_emulator import Emulator, Settings

from .cloud_client import CI_HOST, COS_HOST, Cloud

JSON = "application/json"
THROTTLE = b'{"kind": "throttle"}'


async def status(
    cloud: Cloud, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
) -> tuple[int, str]:
    """The status of a request to the emulator itself, and the error that it tells."""
    async with cloud.session.request(method, f"{cloud.url}{path}", data=body, headers=headers) as response:
        is_json = response.content_type == JSON
        return response.status, str((await response.json()).get("error", "")) if is_json else ""


@pytest.mark.parametrize("path", ["/", "/_emulator/health", "/_emulator/page.js", "/jobs/d0"])
@pytest.mark.parametrize("host", ["example.org", "127.0.0.1.example.org", "localhost.example.org:80", "10.0.0.1", ""])
async def test_a_host_that_does_not_name_this_machine_is_refused_with_what_to_do(
    cloud: Cloud, path: str, host: str
) -> None:
    """As a page sends it whose name is bound to 127.0.0.1 after it was loaded (DNS rebinding)."""
    code, error = await status(cloud, "GET", path, {"Host": host})
    assert code == 403
    assert "call localhost or 127.0.0.1, or start the emulator with --control-host" in error


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8089", "127.0.0.1", "[::1]", "[::1]:8089"])
async def test_the_names_of_loopback_pass_with_any_port(cloud: Cloud, host: str) -> None:
    assert await status(cloud, "GET", "/_emulator/stats", {"Host": host}) == (200, "")


async def test_a_name_of_the_settings_passes_and_so_does_the_address_that_was_called() -> None:
    """In a container the emulator listens at all addresses, and others call it by the name of its service."""
    settings = Settings(control_hosts=("emulator.example",))
    async with Emulator(host="127.0.0.2", settings=settings) as emulator, Cloud(emulator.url) as cloud:
        for host in ("Emulator.example:8089", "127.0.0.2"):
            assert await status(cloud, "GET", "/_emulator/stats", {"Host": host}) == (200, "")
    async with Emulator(host="0.0.0.0") as emulator, Cloud(f"http://127.0.0.3:{emulator.port}") as cloud:  # noqa: S104
        assert await status(cloud, "GET", "/_emulator/stats", {"Host": "127.0.0.3"}) == (200, "")
        assert (await status(cloud, "GET", "/_emulator/stats", {"Host": "0.0.0.0"}))[0] == 403  # noqa: S104


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://example.org"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
)
async def test_what_a_page_of_another_origin_makes_a_browser_send_is_refused(
    cloud: Cloud, headers: dict[str, str]
) -> None:
    """Also what needs no body and no leave of the emulator: forms, images, and requests of scripts."""
    for method, path in (("POST", "/_emulator/jobs/hold"), ("GET", "/_emulator/requests"), ("GET", "/jobs/d0/pages/0")):
        code, error = await status(cloud, method, path, headers)
        assert (code, "a page of another origin" in error) == (403, True)
    upload = f"/_emulator/upload/{COS_HOST}/a.pdf"
    assert (await status(cloud, "PUT", upload, headers, b"%PDF"))[0] == 403
    assert (await status(cloud, "OPTIONS", "/_emulator/faults", headers))[0] == 403


async def test_the_emulators_own_page_and_a_link_that_leads_to_it_pass(emulator: Emulator, cloud: Cloud) -> None:
    own = {"Origin": emulator.url, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Content-Type": JSON}
    assert await status(cloud, "POST", "/_emulator/faults", own, THROTTLE) == (200, "")
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert await status(cloud, "GET", "/", link) == (200, "")
    assert await status(cloud, "GET", "/", {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}) == (200, "")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_a_body_that_does_not_say_that_it_is_json_is_refused_with_what_to_do(
    emulator: Emulator, cloud: Cloud, kind: str
) -> None:
    """Forms of other pages cannot say that; uploads of documents need no type."""
    code, error = await status(cloud, "POST", "/_emulator/faults", {"Content-Type": kind}, THROTTLE)
    assert (code, error) == (415, "the body has to be JSON, with the header Content-Type: application/json")
    assert emulator.faults == []
    assert (await status(cloud, "PUT", f"/_emulator/upload/{COS_HOST}/a.pdf", {"Content-Type": kind}, b"%PDF"))[
        0
    ] == 200
    json = f"{JSON}; charset=utf-8"
    assert await status(cloud, "POST", "/_emulator/faults", {"Content-Type": json}, THROTTLE) == (200, "")


async def test_hosts_of_the_cloud_have_no_control_routes(cloud: Cloud) -> None:
    for host in (CI_HOST, COS_HOST):
        reply = await cloud.raw("GET", "/_emulator/requests", headers={"Host": host})
        assert reply.text("Code") == "MissingAuthorization"


async def test_a_signed_address_of_a_page_image_opens_by_any_name(emulator: Emulator) -> None:
    """Below `/_emulator/objects/` the signature decides, as it does at the cloud's host."""
    address = f"{emulator.url}/_emulator/objects/{COS_HOST}/seven.pdf"
    async with aiohttp.ClientSession() as session, session.get(address, headers={"Host": "emulator"}) as response:
        assert "MissingAuthorization" in await response.text()
