"""`docpreview-gateway doctor` and `store status` on the records of creates: real files, a real Redis."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

from docpreview_emulator import Emulator
from docpreview_gateway.doctor import records
from docpreview_gateway.doctor.store_checks import store_findings
from docpreview_gateway.settings.sections import LedgerSettings, SharedStateSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import eventually, settings
from tests.integration.gateway_processes import configuration
from tests.integration.test_doctor_redis import with_tls
from tests.redis_server import RedisServer, running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from docpreview_gateway.doctor.diagnosis import Finding
    from docpreview_gateway.doctor.records import StoreStatus
    from docpreview_gateway.settings.loading import Settings

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as running:
        yield running


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path, *DURABLE) as server:
        yield server


def shared(emulator: Emulator, redis: RedisServer, tmp_path: Path, **more: Any) -> Settings:
    key = tmp_path / "key"
    key.write_text("k" * 40)
    state = SharedStateSettings.model_validate({"url": redis.url, "namespace": "docs", "ledger_timeout_seconds": 3})
    return settings(emulator, shared_state=state, ledger=LedgerSettings(key_file=key), state_dir=tmp_path, **more)


def as_user(values: Settings, redis: RedisServer, rights: str) -> Settings:
    """The settings with a user of the server who has these rights, and the keys and channels of the gateway."""
    user = f"ACL SETUSER docs on >pw ~docpreview:* &docpreview:* {rights}"
    assert redis.command(user) == b"+OK\r\n"
    url = redis.url.replace("redis://", "redis://docs:pw@")
    state = values.shared_state.model_copy(update={"url": SharedStateSettings.model_validate({"url": url}).url})
    return values.model_copy(update={"shared_state": state})


def results(found: list[Finding]) -> str:
    assert {finding.check for finding in found} == {"store"}
    return "\n".join(f"{finding.subject}: {finding.result}" for finding in found)


def problems(found: list[Finding]) -> str:
    return results([finding for finding in found if not finding.ok])


async def command(config: Path, *arguments: str) -> tuple[str, str, int | None]:
    """What a command writes to stdout and to stderr, and its exit code."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "docpreview_gateway", *arguments, "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    return output.decode(), errors.decode(), process.returncode


async def in_use(values: Settings) -> StoreStatus:
    """The store's status, once a gateway has made it."""

    async def is_whole() -> bool:
        return (await records.store_status(values)).kind == "whole"

    await eventually(is_whole)
    return await records.store_status(values)


async def test_a_gateway_that_was_never_started_has_no_problem_with_its_records(
    emulator: Emulator, redis: RedisServer, tmp_path: Path
) -> None:
    """Neither with a folder that is still missing, nor with an empty Redis."""
    found = await store_findings(settings(emulator, state_dir=tmp_path / "new"))
    assert ([finding for finding in found if not finding.ok], "can be made" in results(found)) == ([], True)
    found = await store_findings(shared(emulator, redis, tmp_path))
    assert ([finding for finding in found if not finding.ok], "is empty" in results(found)) == ([], True)
    assert not (tmp_path / "new").exists()


async def test_a_store_in_use_is_told_as_whole_writable_and_durable(
    emulator: Emulator, redis: RedisServer, tmp_path: Path
) -> None:
    values = shared(emulator, redis, tmp_path)
    async with Gateway(values):
        await in_use(values)
        found = await store_findings(values)
    assert [finding for finding in found if not finding.ok] == []
    text = results(found)
    for words in ("whole", "can be written", "neither evicts", "key: is readable, with 1 secret"):
        assert words in text, text
    assert redis.command("EXISTS", "docpreview:2:{docs}:doctor") == b":0\r\n"


async def test_a_file_in_use_is_told_as_whole(emulator: Emulator, tmp_path: Path) -> None:
    values = settings(emulator, state_dir=tmp_path)
    async with Gateway(values):
        status = await in_use(values)
        found = await store_findings(values)
    assert ([finding for finding in found if not finding.ok], "whole" in results(found)) == ([], True)
    assert (status.kind, status.records) == ("whole", 0)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("maxmemory-policy allkeys-lru", "set noeviction"),
        ("appendonly no", "appendonly is no"),
        ("appendfsync no", "appendfsync is no"),
    ],
)
async def test_a_redis_that_may_lose_records_is_a_finding_with_the_setting(
    emulator: Emulator, redis: RedisServer, tmp_path: Path, config: str, words: str
) -> None:
    assert redis.command("CONFIG", "SET", *config.split()) == b"+OK\r\n"
    assert words in problems(await store_findings(shared(emulator, redis, tmp_path)))


async def test_a_redis_whose_default_user_lacks_rights_is_a_finding_with_the_command_that_mends_it(
    emulator: Emulator, redis: RedisServer, tmp_path: Path
) -> None:
    """Its next restart would leave out every record: it reads transactions back as that user."""
    values = as_user(shared(emulator, redis, tmp_path), redis, "+@all")
    assert redis.command("ACL SETUSER docs ~* &* +@all") == b"+OK\r\n"
    with socket.create_connection(("127.0.0.1", redis.port), timeout=5) as default:
        # What shuts the user out would shut out the one who mends it.
        default.sendall(b"AUTH docs pw\r\nACL SETUSER default off resetkeys -@all\r\n")
        assert b"+OK" in default.recv(100)
        found = problems(await store_findings(values))
        assert "a restart loses records; ACL SETUSER default ~* &* +@all" in found
        default.sendall(b"ACL SETUSER default ~* &* +@all\r\n")
        assert b"+OK" in default.recv(100)
        assert [each for each in await store_findings(values) if each.level != "ok"] == []


@pytest.mark.parametrize(
    ("rights", "unknown"),
    [
        ("-acl", "the rights of its user default"),
        ("-config", "appendfsync"),
        ("-info", "appendonly"),
        ("-@admin -@dangerous +info +config|get", "the rights of its user default"),
    ],
)
async def test_what_a_user_may_not_ask_the_server_is_a_warning_with_the_rights_to_give(
    emulator: Emulator, redis: RedisServer, tmp_path: Path, rights: str, unknown: str
) -> None:
    values = as_user(shared(emulator, redis, tmp_path), redis, f"+@all {rights}")
    warned = [each for each in await store_findings(values) if each.level == "warning"]
    assert len(warned) == 1
    assert warned[0].result.endswith(f"the server does not say {unknown}")
    assert "+info +config|get +acl|dryrun" in warned[0].remedy
    assert redis.command("ACL SETUSER docs +info +config|get +acl|dryrun") == b"+OK\r\n"
    assert "warning" not in {each.level for each in await store_findings(values)}


@pytest.mark.parametrize(
    ("command", "todo"),
    [("CONFIG SET maxmemory 1", "more memory (maxmemory)"), ("REPLICAOF 127.0.0.1 1", "name the master")],
)
async def test_a_redis_that_takes_no_writes_is_a_finding_with_what_to_do(
    emulator: Emulator, redis: RedisServer, tmp_path: Path, command: str, todo: str
) -> None:
    """It is full, or a replica, and still answers every read."""
    assert redis.command(*command.split()) == b"+OK\r\n"
    (found,) = [each for each in await store_findings(shared(emulator, redis, tmp_path)) if not each.ok]
    assert found.result.startswith("cannot be written")
    assert todo in found.remedy


async def test_a_redis_that_does_not_answer_is_a_finding_without_its_password(
    emulator: Emulator, redis: RedisServer, tmp_path: Path
) -> None:
    values = shared(emulator, redis, tmp_path)
    url = redis.url.replace("redis://", "redis://:hidden-word@")
    state = values.shared_state.model_copy(update={"url": SharedStateSettings.model_validate({"url": url}).url})
    redis.kill()
    found = problems(await store_findings(values.model_copy(update={"shared_state": state})))
    assert "cannot be read" in found
    assert "hidden-word" not in found


async def test_a_redis_whose_certificate_is_not_trusted_is_told_as_that_by_doctor_and_by_the_store(
    emulator: Emulator, redis: RedisServer, tmp_path: Path
) -> None:
    """The number of OpenSSL's error is also that of a system error, `Operation not permitted`."""
    values = shared(emulator, redis, tmp_path)
    with with_tls(tmp_path) as (_, port):
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path}/other.pem"
        state = values.shared_state.model_copy(update={"url": SharedStateSettings.model_validate({"url": url}).url})
        (found,) = [
            each for each in await store_findings(values.model_copy(update={"shared_state": state})) if not each.ok
        ]
    assert "the server's certificate is not trusted: " in found.result
    assert "not permitted" not in found.result
    assert "ssl_ca_certs" in found.remedy


async def test_a_user_who_may_not_ask_for_settings_is_told_with_the_rights(
    emulator: Emulator, redis: RedisServer, tmp_path: Path
) -> None:
    rights = ("~docpreview:2:*", "&docpreview:2:*", "+@all", "-info")
    assert redis.command("ACL", "SETUSER", "docs", "on", ">pw", *rights) == b"+OK\r\n"
    values = shared(emulator, redis, tmp_path)
    url = redis.url.replace("redis://", "redis://docs:pw@")
    state = values.shared_state.model_copy(update={"url": SharedStateSettings.model_validate({"url": url}).url})
    found = await store_findings(values.model_copy(update={"shared_state": state}))
    assert any("+info +config|get" in each.remedy for each in found)


async def test_a_key_file_or_folder_that_cannot_be_used_is_a_finding(
    emulator: Emulator, redis: RedisServer, tmp_path: Path
) -> None:
    values = shared(emulator, redis, tmp_path)
    blocked = tmp_path / "file"
    blocked.write_text("a file where the folder should be")
    assert "it is no folder" in problems(await store_findings(values.model_copy(update={"state_dir": blocked})))
    (tmp_path / "key").unlink()
    assert "No such file" in problems(await store_findings(values))


async def test_records_are_counted_in_redis(emulator: Emulator, redis: RedisServer, tmp_path: Path) -> None:
    values = shared(emulator, redis, tmp_path)
    async with Gateway(values):
        status = await in_use(values)
    assert (status.kind, status.records) == ("whole", 0)


@pytest.mark.parametrize(
    "arguments", [("doctor", "--json"), ("store", "status"), ("reconcile", "--since", "2026-01-01")]
)
async def test_a_command_writes_findings_to_stdout_and_the_log_to_stderr(
    emulator: Emulator, redis: RedisServer, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Also when Redis answers with an error, which is a debug line of the log, and an error of each command."""
    async with Gateway(shared(emulator, redis, tmp_path)):
        await in_use(shared(emulator, redis, tmp_path))
    assert redis.command("SET", "docpreview:2:{docs}:p", "oops") == b"+OK\r\n"
    config = configuration(
        emulator,
        tmp_path,
        shared_state={"url": redis.url, "namespace": "docs"},
        ledger={"key_file": str(tmp_path / "key")},
        logging={"level": "DEBUG", "format": "json"},
    )
    output, log, code = await command(config, *arguments)
    lines = output.splitlines()
    if arguments[0] == "doctor":
        assert [json.loads(line)["subject"] for line in lines if not json.loads(line)["ok"]], output
    else:
        assert (lines, code) == ([], 3)
        assert "error: the store cannot be read: " in log
        assert "       to do: check that this is a Redis or Valkey server" in log
    assert "Redis error reply" in log
