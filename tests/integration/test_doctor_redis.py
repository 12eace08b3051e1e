"""`docpreview-gateway doctor` on the Redis of shared state: each thing that can be wrong with it, and what to do."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

import docpreview_gateway
from docpreview_gateway.doctor import redis_checks
from docpreview_gateway.doctor.redis_checks import redis_findings
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.fakes.clock import FakeClock
from tests.redis_server import RedisServer, running_redis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docpreview_gateway.doctor.diagnosis import Finding
    from docpreview_gateway.model.call import Clock


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as server:
        yield server


async def findings(url: str, *, clock: Clock | None = None) -> list[Finding]:
    return await redis_findings("url", url, "docs", has_channels=True, clock=clock or SystemClock())


async def problem(url: str, *, clock: Clock | None = None) -> Finding:
    """The one finding that is not ok."""
    (found,) = [each for each in await findings(url, clock=clock) if each.level != "ok"]
    assert found.check == "redis"
    assert found.subject.startswith("shared_state.url redis")
    assert not re.search(r"[A-Z][a-z]+Error|\[Errno|Error \d", found.result), found.result
    return found


async def test_a_server_that_can_be_used_is_ok_and_left_as_it_was(redis: RedisServer) -> None:
    found = await findings(redis.url)
    assert [each for each in found if each.level != "ok"] == []
    assert redis.command("DBSIZE") == b":0\r\n"


async def test_a_server_that_is_not_there_is_told_with_the_words_of_the_system() -> None:
    found = await problem("redis://127.0.0.1:1/0")
    assert found.result == "no connection: Connection refused"
    assert "rediss://" in found.remedy


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+cluster://127.0.0.1:1", "no node of the cluster answers: Connection refused"),
        ("redis+sentinel://127.0.0.1:1/main", "no Sentinel that answers knows the master"),
        ("unix:///tmp/docpreview-none.sock", "no connection: No such file or directory"),
    ],
)
async def test_servers_of_other_kinds_that_are_not_there_are_told_without_the_librarys_objects(
    url: str, said: str
) -> None:
    (found,) = await findings(url)
    assert found.result.startswith(said)
    assert "<" not in found.result


@pytest.mark.parametrize("login", ["", ":wrong@", "nobody:secret@"])
async def test_a_wrong_or_missing_password_is_told_as_that_and_not_shown(tmp_path: Path, login: str) -> None:
    with running_redis(tmp_path, "--requirepass", "secret") as server:
        found = await problem(f"redis://{login}127.0.0.1:{server.port}/0")
    assert "refuses user or password" in found.result
    assert "in the URL" in found.remedy
    assert "wrong" not in str(found)
    assert "secret" not in str(found)


@contextmanager
def with_tls(folder: Path) -> Iterator[tuple[RedisServer, int]]:
    """A server with TLS too, on the port that is returned; its authority is `ca.pem`."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "server.pem")
    issued.private_key_pem.write_to_path(folder / "server.key")
    names = ("--tls-cert-file", "server.pem", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.pem")
    with running_redis(folder, *names, "--tls-auth-clients", "no") as server:
        for port in range(server.port + 1, server.port + 50):
            if redis_ok := server.command("CONFIG", "SET", "tls-port", str(port)) == b"+OK\r\n":
                yield server, port
                return
        raise AssertionError(redis_ok)


async def test_tls_with_the_servers_authority_is_ok_and_with_another_one_is_a_problem(tmp_path: Path) -> None:
    with with_tls(tmp_path) as (_, port):
        found = await findings(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path}/ca.pem")
        assert [each for each in found if each.level != "ok"] == []
        assert "over TLS" in found[0].result
        wrong = await problem(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path}/other.pem")
    assert "not trusted" in wrong.result
    assert "ssl_ca_certs" in wrong.remedy


async def test_a_certificate_of_another_address_is_told_with_what_to_write(tmp_path: Path) -> None:
    with with_tls(tmp_path) as (_, port):
        wrong = await problem(f"rediss://localhost:{port}/0?ssl_ca_certs={tmp_path}/ca.pem&ssl_check_hostname=true")
    assert "the name that its certificate has" in wrong.remedy


async def test_tls_where_there_is_none_and_none_where_there_is_are_told_with_the_other_scheme(tmp_path: Path) -> None:
    with with_tls(tmp_path) as (server, port):
        speaks_none = await problem(f"rediss://127.0.0.1:{server.port}/0?ssl_ca_certs={tmp_path}/ca.pem")
        speaks_only = await problem(f"redis://127.0.0.1:{port}/0")
    assert "redis://" in speaks_none.remedy
    assert "rediss://" in speaks_only.remedy


@pytest.mark.parametrize(
    ("rights", "lacking"),
    [
        ("~docpreview:2:* &docpreview:2:* +@all -hset", "HSET"),
        ("~docpreview:2:* &docpreview:2:* +@all -eval", "eval"),
        ("~others:* &docpreview:2:* +@all", "key"),
        ("~docpreview:2:* resetchannels +@all", "PUBLISH"),
        ("~docpreview:2:* &docpreview:2:* +@all -subscribe", "SUBSCRIBE"),
    ],
)
async def test_a_user_without_a_right_is_told_with_the_command_and_the_rule_to_set(
    redis: RedisServer, rights: str, lacking: str
) -> None:
    assert redis.command("ACL", "SETUSER", "docs", "on", ">pw", *rights.split()) == b"+OK\r\n"
    found = await findings(f"redis://docs:pw@127.0.0.1:{redis.port}/0")
    wrong = [each for each in found if each.level == "problem"]
    assert any(lacking in each.result for each in wrong)
    assert all("ACL SETUSER <user> ~docpreview:2:* &docpreview:2:* +@all" in each.remedy for each in wrong)


async def test_the_rule_that_a_remedy_names_is_enough(redis: RedisServer) -> None:
    assert redis.command("ACL", "SETUSER", "docs", "on", ">pw", "~docpreview:2:*", "&docpreview:2:*", "+@all")
    found = await findings(f"redis://docs:pw@127.0.0.1:{redis.port}/0")
    assert [each for each in found if each.level != "ok"] == []


async def test_a_full_server_is_told_with_its_memory(redis: RedisServer) -> None:
    assert redis.command("CONFIG", "SET", "maxmemory", "1") == b"+OK\r\n"
    assert "maxmemory" in (await problem(redis.url)).remedy


@pytest.mark.parametrize("ahead", [600, -600])
async def test_a_server_whose_clock_is_off_is_told_with_the_difference(redis: RedisServer, ahead: int) -> None:
    found = await problem(redis.url, clock=FakeClock(SystemClock().now() - ahead))
    assert re.search(rf"(59\d|60\d) s {'ahead of' if ahead > 0 else 'behind'}", found.result)
    assert "NTP" in found.remedy


async def test_a_namespace_without_records_beside_others_is_a_warning_that_names_them(redis: RedisServer) -> None:
    """It may be misspelt, or new."""
    redis.command("HSET", "docpreview:2:{dcos}:c", "generation", "x")
    found = await problem(redis.url)
    assert (found.level, found.ok) == ("warning", True)
    assert "those of dcos" in found.result
    redis.command("HSET", "docpreview:2:{docs}:c", "generation", "x")
    assert [each for each in await findings(redis.url) if each.level != "ok"] == []


def test_every_command_of_the_gateways_scripts_is_tried() -> None:
    """A new command in a script is a new right, which the check has to know."""
    used = set()
    for path in Path(docpreview_gateway.__path__[0]).rglob("*.py"):
        if path.name not in {"old_redis.py", "redis_checks.py", "redis_probe.py"}:
            used |= set(re.findall(r"redis\.call\('([A-Z]+)'", path.read_text()))
    tried = set(re.findall(r"try\('([A-Z]+)'", redis_checks._NEEDED))
    # INFO is asked for the settings of the server, which a user may be denied.
    assert used - tried <= {"INFO"}
