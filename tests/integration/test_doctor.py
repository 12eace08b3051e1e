"""`docpreview-gateway doctor` against the emulated cloud: each problem, and the remedy that it names."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import json
import ssl
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from docpreview_emulator import Emulator
from docpreview_gateway.doctor.checks import run_checks
from docpreview_gateway.doctor.examination import Diagnostics
from docpreview_gateway.doctor.network import SystemNetwork
from docpreview_gateway.doctor.object_checks import page_finding, upload_finding
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.settings.sections import BucketSettings, CredentialSettings
from docpreview_gateway.settings.upstream import UpstreamSettings
from docpreview_gateway.upstream.builtin_transport import BuiltinTransport
from docpreview_gateway.upstream.wire.signing import Credentials
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.fakes.clock import FakeClock
from tests.fakes.credentials import FakeCredentials
from tests.fakes.raw_server import RawServer
from tests.integration.conftest import BUCKET, REGION, settings
from tests.integration.gateway_processes import configuration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview_gateway.doctor.diagnosis import Finding

OF_CI = "Server: tencent-ci\r\nX-Ci-Request-Id: r1\r\n"
CHECKS = {*("files", "state", "ports", "store", "dns", "clock", "signature", "binding", "queue", "pages", "emulator")}
KEYS = {"secret_id": "example-secret-id", "secret_key": "EXAMPLEsecretKEY00000000000000000"}


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """A healthy cloud."""
    async with Emulator() as running:
        running.put_object(BUCKET, REGION, "a.pdf", b"%PDF-1.4")
        yield running


async def problems(emulator: Emulator | RawServer, **changes: Any) -> dict[str, Finding]:
    """The findings with a problem, by check."""
    bucket = BucketSettings(name=BUCKET, region=REGION, credentials="main")
    found = await run_checks(settings(emulator, **({"buckets": [bucket]} | changes)))
    return {finding.check: finding for finding in found if not finding.ok}


async def test_a_healthy_configuration_passes_every_check_by_name(emulator: Emulator) -> None:
    """Nor does any check create a job."""
    found = await run_checks(settings(emulator))
    assert [finding for finding in found if not finding.ok] == []
    assert {finding.check for finding in found} == CHECKS
    assert emulator.accepted_jobs == 0


async def test_a_key_file_that_cannot_be_used_is_a_finding_and_the_cloud_is_checked_all_the_same(
    emulator: Emulator, tmp_path: Path
) -> None:
    """As other files that the configuration names."""
    key = tmp_path / "ledger.key"
    key.write_text("short")
    emulator.unbind_bucket(BUCKET, REGION)
    found = await problems(emulator, ledger={"key_file": key})
    assert list(found) == ["files", "binding"]
    assert str(key) in found["files"].result
    assert "openssl rand -base64 32" in found["files"].result


@pytest.mark.parametrize("wrong", [{"secret_id": "nobody"}, {"secret_key": "wrong"}])
async def test_wrong_keys_are_a_signature_finding_that_names_the_credentials(
    emulator: Emulator, wrong: dict[str, str]
) -> None:
    """The remedy is to check the credentials."""
    found = await problems(emulator, credentials={"main": CredentialSettings(**(KEYS | wrong))})
    assert set(found) == {"signature"}
    assert "secret_id, secret_key and token" in found["signature"].remedy
    assert "wrong" not in str(found)


async def test_an_unbound_bucket_is_a_binding_finding(emulator: Emulator) -> None:
    """The remedy is to switch document processing on."""
    emulator.unbind_bucket(BUCKET, REGION)
    found = await problems(emulator)
    assert "switch document processing on" in found["binding"].remedy


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidArgument", "UserDocServiceNotActivated"])
async def test_a_document_service_that_is_not_activated_is_a_binding_finding_whatever_its_code(code: str) -> None:
    """The remedy is to switch document processing on, not to change rights or parameters."""
    message = "Doc processing service is not activated, please come to the Console to open the service."
    body = f"<Error><Code>{code}</Code><Message>{message}</Message><RequestId>r1</RequestId></Error>".encode()
    async with RawServer(lambda exchange: exchange.answer(body, "403 Forbidden", OF_CI)) as cloud:
        found = await problems(cloud)
    assert set(found) == {"binding", "pages"}
    assert "switch document processing on" in found["binding"].remedy
    assert "not activated" in found["binding"].result


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("404 Not Found", b"<html>nginx</html>"),
        ("407 Proxy Authentication Required", b""),
        ("403 Forbidden", b"blocked"),
        ("200 OK", b"<html>log in</html>"),
        ("503 Service Unavailable", b""),
    ],
)
async def test_an_answer_of_something_on_the_way_is_a_finding_about_the_way(status: str, body: bytes) -> None:
    """It says nothing of keys, rights, bucket and clock: none of them is checked by it."""
    headers = "Server: nginx\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n"
    async with RawServer(lambda exchange: exchange.answer(body, status, headers)) as proxy:
        found = await run_checks(settings(proxy))
    of_bucket = [finding for finding in found if finding.check in {"signature", "binding", "queue", "clock"}]
    assert {finding.check for finding in of_bucket} == {"binding"}
    assert all("on the way" in finding.remedy and "upstream.endpoint" in finding.remedy for finding in of_bucket)


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (bytes(9_000_000), "", "larger than the gateway reads"),
        (gzip.compress(bytes(9_000_000)), "Content-Encoding: gzip\r\n", "larger than the gateway reads"),
        (b"plain", "Content-Encoding: gzip\r\n", "not gzip"),
    ],
)
async def test_a_reply_that_cannot_be_read_is_a_finding_and_other_checks_are_told_all_the_same(
    body: bytes, headers: str, said: str
) -> None:
    """A download page of a proxy, for example."""
    async with RawServer(lambda exchange: exchange.answer(body, "200 OK", OF_CI + headers)) as proxy:
        found = await run_checks(settings(proxy))
    assert {finding.check for finding in found} >= {"files", "state", "ports", "store", "dns", "pages"}
    of_bucket = [finding for finding in found if finding.check == "binding"]
    assert of_bucket
    assert all(said in finding.result and "on the way" in finding.remedy for finding in of_bucket)


@pytest.mark.parametrize("endpoint", [None, "https://cloud.example"])
async def test_what_to_do_names_the_endpoint_only_where_one_is_set(endpoint: str | None) -> None:
    bucket = Bucket(BUCKET, REGION, "main")
    credentials = FakeCredentials(main=Credentials(KEYS["secret_id"], KEYS["secret_key"]))
    rejected = b"<Error><Code>InvalidHostName</Code><Message>m</Message><RequestId>r1</RequestId></Error>"
    answers = [
        lambda exchange: exchange.answer(b"<html>", "404 Not Found", "Server: nginx\r\n"),
        lambda exchange: exchange.answer(rejected, "400 Bad Request", OF_CI),
        lambda exchange: exchange.answer(b"plain", "200 OK", "Content-Encoding: gzip\r\n"),
        lambda exchange: exchange.send(b"no HTTP\r\n\r\n"),
    ]
    for answer in answers:
        async with RawServer(answer) as server:
            transport = BuiltinTransport(base_url=server.url, connect_seconds=5, read_seconds=5)
            async with transport:
                network, clock = SystemNetwork({}), SystemClock()
                found = await Diagnostics(network, transport, credentials, clock, endpoint=endpoint).findings(
                    [], [bucket]
                )
                uploads = replace(bucket, upload_credentials="main")
                found.append(await upload_finding(uploads, transport, credentials, clock.now(), endpoint))  # type: ignore[arg-type]
        todo = [each.remedy for each in found if each is not None and not each.ok]
        assert todo
        assert any("upstream.endpoint" in each for each in todo) == (endpoint is not None)


async def test_an_address_of_pages_that_does_not_open_is_told_with_the_base_only_where_one_is_set() -> None:
    bucket = Bucket(BUCKET, REGION, "main")
    credentials = FakeCredentials(main=Credentials(KEYS["secret_id"], KEYS["secret_key"]))
    async with RawServer(lambda exchange: exchange.answer(b"<html>", "404 Not Found", "Server: nginx\r\n")) as web:
        transport = BuiltinTransport(base_url=web.url, connect_seconds=5, read_seconds=5)
        async with transport:
            now = SystemClock().now()
            without = await page_finding(bucket, transport, credentials, now, None)
            with_one = await page_finding(bucket, transport, credentials, now, f"{web.url}/{{host}}")
    assert "or set upstream.object_url_base" in without.remedy
    assert "correct upstream.object_url_base" in with_one.remedy


async def test_an_endpoint_that_can_be_no_host_name_is_a_dns_finding(emulator: Emulator) -> None:
    """Python's resolver has an error of its own for it."""
    found = await problems(emulator, upstream=UpstreamSettings(endpoint=f"http://{'a' * 64}.example:1"))
    assert "1 to 63 characters" in found["dns"].result


async def test_a_paused_or_missing_queue_is_a_queue_finding(emulator: Emulator) -> None:
    """The finding says which of the two it is."""
    other = BucketSettings(name=BUCKET, region=REGION, credentials="main", default_queue_id="p123")
    assert "no queue p123" in (await problems(emulator, buckets=[other]))["queue"].result
    emulator.pause_queue(emulator.queue_id(BUCKET, REGION))
    assert "is paused" in (await problems(emulator))["queue"].result


async def test_an_unexpected_error_of_the_cloud_names_the_vendors_support_and_the_request_id(
    emulator: Emulator,
) -> None:
    """The answer was a 500."""
    emulator.add_fault("error", status=500)
    found = await problems(emulator)
    assert "request id" in found["binding"].result
    assert "vendor's support" in found["binding"].remedy


async def test_an_unresolvable_name_is_a_dns_finding_and_other_checks_still_run(emulator: Emulator) -> None:
    """The remedy is to check the resolver."""
    found = await problems(emulator, upstream=UpstreamSettings(endpoint="http://nothing.invalid:1"))
    assert set(found) == {"dns", "binding", "pages"}


async def test_an_endpoint_without_a_listener_is_a_finding_about_firewalls(emulator: Emulator) -> None:
    """The connection is refused."""
    found = await problems(emulator, upstream=UpstreamSettings(endpoint="http://127.0.0.1:1"))
    assert "firewalls" in found["binding"].remedy


@pytest.mark.parametrize(
    ("name", "days", "result", "remedy"),
    [
        ("127.0.0.1", -30, "the certificate has expired", "this machine's clock"),
        ("127.0.0.1", 30, "the certificate is not valid yet", "this machine's clock"),
        ("other.example", 0, "the certificate is for another name", "another server answers"),
    ],
)
async def test_a_certificate_that_is_refused_has_a_cause_and_a_remedy_that_fits(  # noqa: PLR0917 - of a table
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, days: int, result: str, remedy: str
) -> None:
    """The same at the host and in the request for each bucket. Firewalls have no part in it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    begin = dt.datetime.fromtimestamp(SystemClock().now(), dt.UTC) + dt.timedelta(days=days - 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, not_before=begin, not_after=begin + dt.timedelta(days=2)).configure_cert(context)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        endpoint = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        found = await problems(emulator, upstream=UpstreamSettings(endpoint=endpoint))
    for check in ("tls", "binding"):
        assert result in found[check].result
        assert remedy in found[check].remedy
        assert "firewall" not in found[check].remedy


async def test_an_untrusted_certificate_is_a_tls_finding(emulator: Emulator) -> None:
    """The remedy is to check the trusted authorities."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        endpoint = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        found = await problems(emulator, upstream=UpstreamSettings(endpoint=endpoint))
    assert "the certificate is not of a trusted authority" in found["tls"].result
    assert "ca-certificates" in found["tls"].remedy


@pytest.mark.parametrize("ahead", [1200, -1200])
async def test_a_clock_20_minutes_off_is_found_once_with_its_direction(emulator: Emulator, ahead: int) -> None:
    """Other checks that fail because of the clock do not repeat it."""
    transport = BuiltinTransport(base_url=emulator.url, connect_seconds=5, read_seconds=5)
    bucket = Bucket(BUCKET, REGION, "main")
    async with transport:
        clock = FakeClock(SystemClock().now() + ahead)
        credentials = FakeCredentials(main=Credentials(KEYS["secret_id"], KEYS["secret_key"]))
        examination = Diagnostics(SystemNetwork({}), transport, credentials, clock, endpoint=emulator.url)
        found = [finding for finding in await examination.findings([], [bucket]) if not finding.ok]
    assert {finding.check for finding in found} == {"clock"}
    assert any(("ahead of" if ahead > 0 else "behind") in finding.result for finding in found)


async def test_an_unreadable_policy_is_a_files_finding_and_comes_first(emulator: Emulator, tmp_path: Path) -> None:
    """Checks of the cloud need the files."""
    path = configuration(emulator, tmp_path, policy={"file": str(tmp_path / "none.yaml")})
    code, lines = await command("--config", str(path))
    assert code == 1
    assert "PROBLEM  files" in lines[0]


async def test_the_commands_exit_code_says_whether_there_is_anything_to_do(emulator: Emulator, tmp_path: Path) -> None:
    """With --json each line is a finding."""
    base = f"{emulator.url}/_emulator/objects/{{host}}"
    path = configuration(emulator, tmp_path, upstream={"endpoint": emulator.url, "object_url_base": base})
    code, lines = await command("--config", str(path), "--json")
    assert code == 0
    assert {json.loads(line)["check"] for line in lines} >= {"clock", "signature", "queue"}
    assert all(json.loads(line)["ok"] for line in lines)
    emulator.unbind_bucket(BUCKET, REGION)
    code, lines = await command("--config", str(path))
    assert code == 1
    assert any(line.strip().startswith("to do: bind the bucket") for line in lines)


@pytest.mark.parametrize("status", ["404 Not Found", "500 Internal Server Error", "200 OK"])
async def test_a_failure_of_the_cloud_itself_says_nothing_of_the_credentials(status: str) -> None:
    """It may be told before the signature is looked at: only an answer to what was asked proves them."""
    code = "NoSuchBucket" if status.startswith("404") else "InternalError"
    body = f"<Error><Code>{code}</Code><Message>m</Message><RequestId>r1</RequestId></Error>".encode()
    async with RawServer(lambda exchange: exchange.answer(body, status, OF_CI)) as cloud:
        found = await run_checks(settings(cloud))
    assert not [finding for finding in found if finding.check == "signature"]
    assert [finding for finding in found if finding.check == "binding" and not finding.ok]


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        ("301 Moved Permanently", "PermanentRedirect", "correct buckets[].region"),
        ("404 Not Found", "NoSuchBucket", "check the bucket's name and region"),
    ],
)
async def test_a_wrong_region_is_a_binding_finding_that_names_it(status: str, code: str, said: str) -> None:
    """The cloud says one or the other."""
    body = f"<Error><Code>{code}</Code><Message>m</Message><RequestId>r1</RequestId></Error>".encode()
    async with RawServer(lambda exchange: exchange.answer(body, status, OF_CI)) as cloud:
        found = await problems(cloud)
    assert said in found["binding"].remedy


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("{cloud}/_emulator/objects/{{host}}", ""),
        ("{cloud}/wrong/{{host}}", "something else answered"),
        ("http://127.0.0.1:1/{{host}}", "no connection"),
        ("{web}/{{host}}", "something else answered"),
    ],
)
async def test_a_wrong_base_of_page_addresses_is_a_pages_finding(emulator: Emulator, base: str, said: str) -> None:
    """A web server that answers 404 to everything is not the object store without an object."""
    async with RawServer(lambda exchange: exchange.answer(b"<html>", "404 Not Found", "Server: nginx\r\n")) as web:
        address = base.format(cloud=emulator.url, web=web.url)
        found = await problems(emulator, upstream=UpstreamSettings(endpoint=emulator.url, object_url_base=address))
    assert list(found) == (["pages"] if said else [])
    assert all(said in each.result and "upstream.object_url_base" in each.remedy for each in found.values())


@pytest.mark.parametrize(
    ("secret", "level", "said"),
    [(KEYS["secret_key"], "warning", "may read"), ("wrong", "problem", "SignatureDoesNotMatch")],
)
async def test_the_key_of_uploads_is_checked_at_the_object_store(
    emulator: Emulator, secret: str, level: str, said: str
) -> None:
    """The emulator knows no rights: a key that it accepts may read objects, which one of uploads should not."""
    bucket = BucketSettings(name=BUCKET, region=REGION, credentials="main", upload_credentials="writer")
    keys = {"main": CredentialSettings(**KEYS), "writer": CredentialSettings(**KEYS | {"secret_key": secret})}
    findings = await run_checks(settings(emulator, buckets=[bucket], credentials=keys))
    (found,) = [each for each in findings if each.check == "uploads"]
    assert (found.level, said in found.result) == (level, True)
    assert "credentials.writer" in found.subject
    assert found.remedy


async def test_a_key_of_uploads_that_may_not_read_is_as_it_should_be() -> None:
    """The store knows it: it says AccessDenied, and not that the signature is wrong."""
    body = b"<Error><Code>AccessDenied</Code><Message>m</Message><RequestId>r1</RequestId></Error>"
    cos = "Server: tencent-cos\r\nx-cos-request-id: r1\r\n"
    async with RawServer(lambda exchange: exchange.answer(body, "403 Forbidden", cos)) as store:
        bucket = BucketSettings(name=BUCKET, region=REGION, credentials="main", upload_credentials="main")
        found = await run_checks(settings(store, buckets=[bucket]))
    assert [each.level for each in found if each.check == "uploads"] == ["ok"]


async def command(*arguments: str) -> tuple[int | None, list[str]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "docpreview_gateway", "doctor", *arguments), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode().splitlines()
