"""`docpreview-gateway doctor` on the Redis of shared state: each thing that can be wrong with it, and what to do."""

from __future__ import annotations

import asyncio
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
from tests.redis_groups import running_cluster
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
        ("redis+cluster://127.0.0.1:1", "no node of the cluster can be used: Connection refused"),
        (
            "redis+sentinel://127.0.0.1:1/main",
            "no Sentinel that answers knows the master of that name: 127.0.0.1:1: no connection: Connection ref",
        ),
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
def with_tls(folder: Path, *, wants: str = "no") -> Iterator[tuple[RedisServer, int]]:
    """A server with TLS too, on the port that is returned; its authority is `ca.pem`."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "server.pem")
    issued.private_key_pem.write_to_path(folder / "server.key")
    names = ("--tls-cert-file", "server.pem", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.pem")
    with running_redis(folder, *names, "--tls-auth-clients", wants) as server:
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
        ("~docpreview:2:* &docpreview:2:* +@all -evalsha", "evalsha"),
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


@pytest.mark.parametrize(
    ("url", "todo"),
    [
        ("redis://127.0.0.1:{port}/99", "a lower database"),
        ("redis+cluster://127.0.0.1:{port}", "use redis:// in place of redis+cluster://"),
        ("redis+sentinel://127.0.0.1:{port}/main", "this is no Sentinel"),
    ],
)
async def test_a_url_of_another_kind_than_its_server_is_told_with_what_to_write(
    redis: RedisServer, url: str, todo: str
) -> None:
    found = await problem(url.format(port=redis.port))
    assert todo in found.remedy
    assert "with args" not in found.result


@pytest.mark.parametrize(
    ("url", "todo"),
    [
        ("redis://127.0.0.1:{port}/0", "use redis+cluster:// in place of redis://"),
        ("redis://127.0.0.1:{port}/1", "use redis+cluster://, without a database"),
        ("redis+cluster://127.0.0.1:{port}", "complete the cluster"),
    ],
)
async def test_a_node_of_a_cluster_is_told_with_the_scheme_of_clusters(tmp_path: Path, url: str, todo: str) -> None:
    """This one is alone, and has no slots yet."""
    with running_redis(tmp_path, "--cluster-enabled", "yes", high_port=False) as node:
        assert todo in (await problem(url.format(port=node.port))).remedy


async def test_a_node_of_a_whole_cluster_is_told_with_the_scheme_of_clusters(tmp_path: Path) -> None:
    """Of three nodes two do not have the namespace's slot."""
    with running_cluster(tmp_path) as cluster:
        found = [await findings(node.url) for node in cluster.nodes]
        assert [each for each in await findings(cluster.url) if each.level != "ok"] == []
    wrong = [each for of_node in found for each in of_node if not each.ok]
    assert [each.remedy.startswith("use redis+cluster://") for each in wrong] == [True, True]


@pytest.mark.parametrize(
    ("url", "todo"),
    [
        ("redis://127.0.0.1:{port}/0", "use redis+sentinel://"),
        ("redis+sentinel://127.0.0.1:{port}/main", "the name that the master has at the Sentinels"),
        ("redis+cluster://127.0.0.1:{port}", "redis+sentinel://"),
        ("redis+sentinel://127.0.0.1:1/main", "check the address"),
    ],
)
async def test_a_sentinel_is_told_with_what_to_write(tmp_path: Path, url: str, todo: str) -> None:
    (tmp_path / "sentinel.conf").touch()
    with running_redis(tmp_path, config="sentinel.conf", mode=("--sentinel",)) as sentinel:
        assert todo in (await problem(url.format(port=sentinel.port))).remedy


@pytest.mark.parametrize("kind", ["", "+cluster"])
@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("", "is needed where it wants a client certificate"),
        ("own.pem", "must be of an authority that the server trusts"),
    ],
)
async def test_a_server_that_wants_another_client_certificate_is_told_with_the_option(
    tmp_path: Path, kind: str, own: str, said: str
) -> None:
    """Without one, and with one of an authority that it does not know."""
    trustme.CA().issue_cert("gateway").private_key_and_cert_chain_pem.write_to_path(tmp_path / "own.pem")
    with with_tls(tmp_path, wants="yes") as (_, port):
        given = f"&ssl_certfile={tmp_path}/{own}" if own else ""
        wrong = await problem(f"rediss{kind}://127.0.0.1:{port}?ssl_ca_certs={tmp_path}/ca.pem{given}")
    assert f"ssl_certfile {said}" in wrong.remedy


async def test_a_certificate_that_no_node_of_a_cluster_has_trusted_is_told_as_that(tmp_path: Path) -> None:
    with with_tls(tmp_path) as (_, port):
        wrong = await problem(f"rediss+cluster://127.0.0.1:{port}?ssl_ca_certs={tmp_path}/other.pem")
    assert "not trusted" in wrong.result
    assert "ssl_ca_certs" in wrong.remedy


async def test_sentinels_whose_certificates_are_not_trusted_are_told_as_that(tmp_path: Path) -> None:
    """The library tells only that there was an error."""
    with with_tls(tmp_path) as (_, port):
        wrong = await problem(f"rediss+sentinel://127.0.0.1:{port}/main?ssl_ca_certs={tmp_path}/other.pem")
    assert f"127.0.0.1:{port}: its certificate is not trusted" in wrong.result
    assert "ssl_ca_certs" in wrong.remedy


async def test_a_sentinel_that_wants_a_password_is_told_with_the_options_for_it(tmp_path: Path) -> None:
    (tmp_path / "sentinel.conf").write_text("requirepass secret\n")
    with running_redis(tmp_path, config="sentinel.conf", mode=("--sentinel",)) as sentinel:
        wrong = await problem(f"redis+sentinel://127.0.0.1:{sentinel.port}/main?sentinel_password=wrong")
    assert "sentinel_password" in wrong.remedy
    assert "wrong" not in str(wrong)


async def test_answers_that_are_none_of_a_redis_server_are_a_finding() -> None:
    """A server may answer anything, such as a text in place of a list."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await reader.read(65536):
            writer.write(b"$3\r\nabc\r\n" * sent.count(b"*"))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        found = await problem(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
    assert "unexpected answer" in found.result


async def test_a_full_server_is_told_with_its_memory(redis: RedisServer) -> None:
    assert redis.command("CONFIG", "SET", "maxmemory", "1") == b"+OK\r\n"
    assert "maxmemory" in (await problem(redis.url)).remedy


@pytest.mark.parametrize("ahead", [600, -600])
async def test_a_server_whose_clock_is_off_is_told_with_the_difference(redis: RedisServer, ahead: int) -> None:
    found = await problem(redis.url, clock=FakeClock(SystemClock().now() - ahead))
    assert re.search(rf"(59\d|60\d) s {'ahead of' if ahead > 0 else 'behind'}", found.result)
    assert "NTP" in found.remedy


async def test_clocks_of_one_machine_agree(redis: RedisServer) -> None:
    assert "its clock agrees with this machine's" in [each.result for each in await findings(redis.url)]


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
    tried = set(re.findall(r"try\('([A-Z]+)'", redis_checks._NEEDED.text))
    # INFO is asked for the settings of the server, which a user may be denied.
    assert used - tried <= {"INFO"}
