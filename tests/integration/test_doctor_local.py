"""`docpreview-gateway doctor` on this machine: files, state, certificates, ports; issuers, and an emulator."""

from __future__ import annotations

import asyncio
import json
import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from typer.testing import CliRunner

from docpreview_emulator import Emulator
from docpreview_gateway.__main__ import app
from docpreview_gateway.doctor.emulator_check import emulator_findings
from docpreview_gateway.doctor.issuer_checks import issuer_findings
from docpreview_gateway.doctor.local_checks import local_findings
from docpreview_gateway.doctor.store_checks import store_findings
from docpreview_gateway.settings.access import AuthSettings
from docpreview_gateway.upstream.builtin_transport import BuiltinTransport
from docpreview_gateway.wiring.gateway import Gateway
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.edge_process import free_port
from tests.fakes.raw_server import RawServer
from tests.integration.conftest import settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from docpreview_gateway.doctor.diagnosis import Finding
    from docpreview_gateway.settings.loading import Settings

DAY = timedelta(days=1)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as running:
        yield running


def found(values: Settings, now: float | None = None) -> list[Finding]:
    return local_findings(values, SystemClock().now() if now is None else now)


def problem(values: Settings, check: str) -> Finding:
    (only,) = [each for each in found(values) if each.level != "ok" and each.check == check]
    return only


async def test_a_sound_configuration_has_no_finding_but_ok(emulator: Emulator) -> None:
    findings = found(settings(emulator))
    assert {each.level for each in findings} == {"ok"}
    assert {each.check for each in findings} >= {"files", "state", "ports"}


async def test_every_file_that_cannot_be_used_is_a_finding_with_its_setting(emulator: Emulator, tmp_path: Path) -> None:
    """All of them, not the first."""
    values = settings(
        emulator,
        credentials={"main": {"file": tmp_path / "none.yaml"}},
        ledger={"key_file": tmp_path / "none.key"},
        policy={"file": tmp_path / "policy.yaml"},
    )
    findings = [each for each in found(values) if not each.ok]
    assert [each.subject for each in findings] == ["credentials.main.file", "policy.file", "ledger.key_file"]
    assert all(str(tmp_path) in each.result and each.remedy for each in findings)


@pytest.mark.parametrize(
    ("mode", "level"),
    [(0o700, "ok"), (0o755, "ok"), (0o1755, "ok"), (0o777, "problem"), (0o770, "problem"), (0o1777, "problem")],
)
async def test_state_that_other_users_may_write_is_a_problem_with_the_mode(
    emulator: Emulator, tmp_path: Path, mode: int, level: str
) -> None:
    """They may replace the records and the secret."""
    folder = tmp_path / "state"
    folder.mkdir()
    folder.chmod(mode)
    (state,) = [each for each in found(settings(emulator, state_dir=folder)) if each.check == "state"]
    assert state.level == level
    assert f"mode {mode:04o}" in state.result
    assert state.remedy == ("" if level == "ok" else f"chmod 700 {folder}")


async def test_a_state_folder_that_cannot_be_made_is_one_problem(emulator: Emulator) -> None:
    """Whoever asks: here not even root may."""
    values = settings(emulator, state_dir="/proc/docpreview")
    (wrong,) = [each for each in [*found(values), *await store_findings(values)] if not each.ok]
    assert (wrong.subject, "cannot be made" in wrong.result) == ("/proc/docpreview", True)


@pytest.mark.parametrize(("mode", "level"), [(0o600, "ok"), (0o644, "warning"), (0o666, "problem")])
async def test_a_secret_that_others_may_read_is_a_finding(
    emulator: Emulator, tmp_path: Path, mode: int, level: str
) -> None:
    """A warning only, where a container has no other users."""
    key = tmp_path / "ledger.key"
    key.write_text("k" * 40)
    key.chmod(mode)
    (tmp_path / "state").mkdir(mode=0o700)
    values = settings(emulator, state_dir=tmp_path / "state", ledger={"key_file": key})
    levels = [each.level for each in found(values) if each.subject == str(key)]
    assert levels == ([] if level == "ok" else [level])


@pytest.mark.parametrize(("mode", "level"), [(0o600, "ok"), (0o640, "ok"), (0o644, "warning"), (0o666, "problem")])
async def test_keys_that_others_may_read_are_findings_with_what_they_are_for(
    emulator: Emulator, tmp_path: Path, mode: int, level: str
) -> None:
    tls = certificate(tmp_path, begin=-DAY, end=90 * DAY)
    redis = tmp_path / "redis.key"
    redis.write_bytes(tls["key"].read_bytes())
    cloud = tmp_path / "cloud-keys.yaml"
    cloud.write_text("secret_id: a\nsecret_key: b\n")
    for path in (tls["key"], redis, cloud):
        path.chmod(mode)
    url = f"rediss://127.0.0.1:1?ssl_certfile={tls['certificate']}&ssl_keyfile={redis}"
    shared = {"url": url, "namespace": "docs"}
    key = tmp_path / "ledger.key"
    key.write_text("k" * 40)
    key.chmod(0o600)
    values = settings(
        emulator, tls=tls, credentials={"main": {"file": cloud}}, shared_state=shared, ledger={"key_file": key}
    )
    findings = {each.subject: each for each in found(values) if "mode" in each.result and each.check == "files"}
    named = {str(tls["key"]): "gateway's certificate", str(cloud): "credentials.main", str(redis): "Redis"}
    assert findings.keys() == (set() if level == "ok" else named.keys())
    assert all(each.level == level and named[path] in each.result for path, each in findings.items())
    assert all(each.remedy == f"chmod 600 {path}" for path, each in findings.items())


def certificate(folder: Path, *, begin: timedelta, end: timedelta) -> dict[str, Any]:
    now = datetime.fromtimestamp(SystemClock().now(), UTC)
    issued = trustme.CA().issue_cert("localhost", not_before=now + begin, not_after=now + end)
    issued.private_key_pem.write_to_path(folder / "tls.key")
    (folder / "tls.key").chmod(0o600)
    issued.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    return {"certificate": folder / "tls.crt", "key": folder / "tls.key"}


@pytest.mark.parametrize(
    ("begin", "end", "said"),
    [
        (-9 * DAY, -3 * DAY, "expired 3 days ago"),
        (-9 * DAY, 5 * DAY, "valid for 5 more days"),
        (3 * DAY, 90 * DAY, "valid only from"),
    ],
)
async def test_a_certificate_out_of_its_time_is_a_problem(
    emulator: Emulator, tmp_path: Path, begin: timedelta, end: timedelta, said: str
) -> None:
    """`serve` starts with it, and callers refuse it."""
    wrong = problem(settings(emulator, tls=certificate(tmp_path, begin=begin, end=end)), "certificate")
    assert said in wrong.result
    assert wrong.subject.startswith("tls.certificate")
    assert wrong.remedy


async def test_a_certificate_with_the_key_of_another_is_a_problem(emulator: Emulator, tmp_path: Path) -> None:
    values = certificate(tmp_path, begin=-DAY, end=90 * DAY)
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(tmp_path / "tls.key")
    wrong = problem(settings(emulator, tls=values), "files")
    assert (wrong.subject, "is not the key of" in wrong.result) == ("tls.key", True)


async def test_a_port_in_use_is_a_problem_unless_this_gateway_has_it(emulator: Emulator) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wrong = problem(settings(emulator, listen=f"127.0.0.1:{taken.getsockname()[1]}"), "ports")
        assert (wrong.subject, "is in use" in wrong.result) == ("listen", True)
    async with Gateway(settings(emulator, listen=f"127.0.0.1:{free_port()}")) as gateway:
        ports = await of_ports(settings(emulator, **addresses(gateway.port, gateway.admin_port)))
    assert [(each.level, "the gateway that answers" in each.result) for each in ports] == [("ok", True)] * 2


async def test_a_port_of_another_program_is_a_problem_beside_the_admin_port_of_another_gateway(
    emulator: Emulator,
) -> None:
    """Each of the two is in use, and neither by a gateway with this configuration."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        other = taken.getsockname()[1]
        async with Gateway(settings(emulator, listen=f"127.0.0.1:{free_port()}")) as gateway:
            ports = await of_ports(settings(emulator, **addresses(other, gateway.admin_port)))
    assert [(each.subject, each.level) for each in ports] == [("listen", "problem"), ("admin_listen", "problem")]
    assert all(f"listens on 127.0.0.1:{gateway.port}" in each.result for each in ports)
    assert all("choose another port" in each.result for each in ports)


async def test_a_gateway_on_all_interfaces_has_its_port_on_loopback_too(emulator: Emulator) -> None:
    everywhere = f"0.0.0.0:{free_port()}"
    async with Gateway(settings(emulator, listen=everywhere, auth="insecure")) as gateway:
        ports = await of_ports(settings(emulator, **addresses(gateway.port, gateway.admin_port)))
    assert [each.level for each in ports] == ["ok", "ok"]


def addresses(port: int, admin_port: int) -> dict[str, str]:
    return {"listen": f"127.0.0.1:{port}", "admin_listen": f"127.0.0.1:{admin_port}"}


async def of_ports(values: Settings) -> list[Finding]:
    return [each for each in await asyncio.to_thread(found, values) if each.check == "ports"]


async def test_a_web_server_on_the_admin_port_is_not_taken_for_a_gateway(emulator: Emulator) -> None:
    """Whatever it answers, such as 200 to everything."""
    async with RawServer(lambda exchange: exchange.answer(b"ready", "200 OK", "Server: nginx\r\n")) as web:
        values = settings(emulator, admin_listen=web.url.removeprefix("http://"))
        ports = [each for each in await asyncio.to_thread(found, values) if each.check == "ports"]
    assert [each.level for each in ports] == ["ok", "problem"]


def of_issuer(emulator: Emulator, url: str) -> Settings:
    issuer = {"issuer": "https://idp.example", "audience": "docpreview", "jwks_url": url}
    auth = AuthSettings.model_validate({"jwt": [issuer]})
    return settings(emulator).model_copy(update={"auth": auth})


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        ("200 OK", b"<html>", "not a JWKS"),
        ("200 OK", b"{}", "not a JWKS"),
        ("200 OK", b'{"keys": []}', "no public key"),
        ("404 Not Found", b"", "status 404"),
        ("200 OK", json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}]}).encode(), "of the kind OKP"),
    ],
)
async def test_an_issuer_whose_keys_cannot_be_used_is_a_problem(
    emulator: Emulator, status: str, body: bytes, said: str
) -> None:
    async with RawServer(lambda exchange: exchange.answer(body, status, "")) as issuer:
        (wrong,) = await issuer_findings(of_issuer(emulator, f"{issuer.url}/jwks"))
    assert (wrong.level, wrong.subject) == ("problem", "https://idp.example")
    assert said in wrong.result
    assert "auth.jwt" in wrong.remedy


async def test_an_issuer_that_is_not_there_is_a_problem_in_the_words_of_the_system(emulator: Emulator) -> None:
    (wrong,) = await issuer_findings(of_issuer(emulator, "http://127.0.0.1:1/jwks"))
    assert wrong.result.endswith("no connection: Connection refused")


@pytest.mark.parametrize(
    ("health", "said"),
    [
        ({"libreoffice": True, "cjk_fonts": True}, []),
        ({"libreoffice": False, "cjk_fonts": True}, ["no LibreOffice"]),
        ({"libreoffice": True, "cjk_fonts": False}, ["no font for Chinese"]),
        ({"libreoffice": True, "cjk_fonts": None}, []),
    ],
)
async def test_an_emulator_without_converters_or_fonts_is_a_warning(health: Mapping[str, Any], said: list[str]) -> None:
    """With the packages that bring them."""
    async with RawServer(lambda exchange: exchange.answer(json.dumps(health).encode(), "200 OK", "")) as server:
        first, *wrong = await asked(server.url)
    assert "is an emulator" in first.result
    assert [each.level for each in wrong] == ["warning"] * len(said)
    assert all(words in each.result and "apt-get" in each.remedy for words, each in zip(said, wrong, strict=True))


async def test_the_real_emulator_is_known_and_another_server_is_not(emulator: Emulator) -> None:
    assert "is an emulator" in (await asked(emulator.url))[0].result
    async with RawServer(lambda exchange: exchange.answer(b"{}", "200 OK", "")) as server:
        assert await asked(server.url) == []


async def asked(url: str) -> list[Finding]:
    async with BuiltinTransport(base_url=url, connect_seconds=5, read_seconds=15) as transport:
        return await emulator_findings(transport, url)


def test_a_configuration_that_cannot_be_loaded_is_a_finding_for_each_mistake_and_exit_code_2(tmp_path: Path) -> None:
    """By --json too, so that whoever reads that reads findings and nothing else."""
    path = tmp_path / "gateway.yaml"
    path.write_text("buckets: []\ncredentials: {}\nlisen: x\nworkers: 0\n")
    done = CliRunner().invoke(app, ["doctor", "--config", str(path), "--json"])
    findings = [json.loads(line) for line in done.output.splitlines()]
    assert done.exit_code == 2
    assert [(each["check"], each["subject"]) for each in findings] == [
        ("configuration", "workers"),
        ("configuration", "lisen"),
    ]
    assert all(each["level"] == "problem" and each["remedy"] for each in findings)
