"""The health of a Redis server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import NoPermissionError, OutOfMemoryError, ResponseError

from docpreview_gateway.storage.redis_client import RedisCallError
from docpreview_gateway.storage.redis_connections import redis_batches, redis_commands
from docpreview_gateway.storage.redis_health import CHECKS, RedisHealth, may_lack, read_health, warnings
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from pathlib import Path

    from tests.redis_groups import Cluster
    from tests.redis_server import RedisServer

GOOD = RedisHealth("noeviction", appendonly=True, appendfsync="everysec", evicted_keys=0, server="a:b", replays=True)
KEY = "docpreview:2:{x}:c"


def test_a_good_server_has_no_warnings() -> None:
    assert warnings(GOOD) == {}
    assert warnings(GOOD._replace(appendfsync="always")) == {}


@pytest.mark.parametrize(
    ("health", "word"),
    [
        (GOOD._replace(policy="allkeys-lru"), "allkeys-lru"),
        (GOOD._replace(policy="volatile-ttl"), "volatile-ttl"),
        (GOOD._replace(policy=None), "cannot be read"),
        (GOOD._replace(evicted_keys=3), "3 keys"),
        (GOOD._replace(appendonly=False), "appendonly"),
        (GOOD._replace(appendfsync="no"), "appendfsync"),
        (GOOD._replace(replays=False), "ACL SETUSER default ~* &* +@all"),
    ],
)
def test_each_thing_that_may_lose_records_is_a_warning(health: RedisHealth, word: str) -> None:
    ((check, warning),) = warnings(health).items()
    assert check in CHECKS
    assert word in warning


def test_unknown_settings_of_durability_are_no_warnings() -> None:
    """Managed servers say nothing of them; the policy alone has to be known."""
    assert warnings(RedisHealth(policy="noeviction")) == {}


async def test_a_server_says_how_it_is_set(tmp_path: Path) -> None:
    """Read over single commands and over batches alike."""
    arguments = ("--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru", "--appendfsync", "no")
    with running_redis(tmp_path, *arguments) as server:
        for connected in (redis_commands, redis_batches):
            async with connected(server.url) as send:
                health = await read_health(send, KEY)
                assert health[:4] == ("allkeys-lru", False, "no", 0)
                assert [len(part) for part in health.server.split(":")] == [40, 40]


async def test_evicted_keys_are_counted(tmp_path: Path) -> None:
    with running_redis(tmp_path, "--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru") as server:
        async with redis_commands(server.url) as send:
            for number in range(400):
                await send("SET", f"other:{number}", "x" * 10_000)
            assert (await read_health(send, KEY)).evicted_keys


async def test_another_server_has_another_id(tmp_path: Path, redis_server: RedisServer) -> None:
    """Also one that was started again without its data."""
    with running_redis(tmp_path) as server:
        async with redis_commands(server.url) as send, redis_commands(redis_server.url) as other:
            first = (await read_health(send, KEY)).server
            assert (await read_health(other, KEY)).server != first
            assert (await read_health(send, KEY)).server == first
            server.kill()
            server.start()
            with pytest.raises(RedisCallError):
                await read_health(send, KEY)
            assert (await read_health(send, KEY)).server not in {"", first}


async def test_a_server_that_runs_on_when_its_last_replica_has_left_lacks_nothing(tmp_path: Path) -> None:
    """Its replication id changes then, after `repl-backlog-ttl`: an hour, unless it is set."""
    (tmp_path / "replica").mkdir()
    with running_redis(tmp_path, "--repl-backlog-ttl", "1", "--repl-diskless-sync-delay", "0") as server:
        async with redis_commands(server.url) as send:
            before = (await read_health(send, KEY)).server
            follow = ("--replicaof", *server.url.removeprefix("redis://").partition("/")[0].rsplit(":", 1))
            with running_redis(tmp_path / "replica", *follow):
                async with asyncio.timeout(30):
                    while "online" not in str(await send("INFO", "replication")):  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
            async with asyncio.timeout(30):
                while (after := await read_health(send, KEY)).server == before:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert not after.keeps_all
            assert not may_lack(after, before)


async def test_a_cluster_says_how_its_nodes_are_set(redis_cluster: Cluster) -> None:
    """Replication ids are those of the node that holds the key."""
    async with redis_commands(redis_cluster.url) as send:
        health = {(await read_health(send, f"{{{slot}}}")) for slot in "abcdefgh"}
    assert {each.policy for each in health} == {"noeviction"}
    assert {each.replays for each in health} == {True}
    assert len({each.server for each in health}) > 1


@pytest.mark.parametrize(
    ("rights", "replays"),
    [
        ("on nopass ~* &* +@all", True),
        ("off ~* &* +@all", True),
        ("off resetkeys -@all", False),
        ("on ~* &* +@read", False),
        ("on resetkeys ~others:* &* +@all", False),
    ],
)
async def test_a_server_reads_transactions_back_by_the_rights_of_its_default_user(
    tmp_path: Path, rights: str, *, replays: bool
) -> None:
    """As the real server does: two writes of one script are there after a restart, or they are not."""
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    with running_redis(tmp_path, *durable, config=_users(tmp_path, rights)) as server:
        async with redis_commands(server.url.replace("redis://", "redis://writer:secret@")) as send:
            script = "redis.call('HSET', KEYS[1], 'a', '1') redis.call('HSET', KEYS[1], 'b', '1')"
            await send("EVAL", script, 1, KEY)
            assert (await read_health(send, KEY)).replays is replays
            server.kill()
            server.start()
        async with redis_commands(server.url.replace("redis://", "redis://writer:secret@")) as send:
            assert await send("HLEN", KEY) == (2 if replays else 0)


def _users(folder: Path, rights: str) -> str:
    """The name of a configuration with a user who writes, and these rights of the user default."""
    users = folder / "users.acl"
    users.write_text(f"user default {rights}\nuser writer on >secret ~* &* +@all\n")
    path = folder / "redis.conf"
    path.write_text(f"aclfile {users}\n")
    return str(path)


@pytest.mark.parametrize("lacking", ["-acl", "-acl|dryrun", "-@admin"])
async def test_a_user_who_may_not_ask_for_rights_does_not_know_them(redis_server: RedisServer, lacking: str) -> None:
    redis_server.command("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@all", lacking)
    try:
        async with redis_commands(redis_server.url.replace("redis://", "redis://reader:secret@")) as send:
            assert (await read_health(send, KEY)).replays is None
    finally:
        redis_server.command("ACL", "DELUSER", "reader")


async def test_a_user_who_may_not_ask_for_the_configuration_gets_the_rest(redis_server: RedisServer) -> None:
    """A managed server refuses CONFIG, or names it otherwise."""
    user = ("reader", "on", ">secret", "~*", "+@all", "-config")
    redis_server.command("ACL", "SETUSER", *user)
    try:
        async with redis_commands(redis_server.url.replace("redis://", "redis://reader:secret@")) as send:
            health = await read_health(send, KEY)
        assert health[:4] == ("noeviction", False, None, 0)
    finally:
        redis_server.command("ACL", "DELUSER", "reader")


async def test_a_server_that_refuses_every_question_is_unknown() -> None:
    async def send(*_command: object) -> object:
        raise NoPermissionError("this user has no permissions")

    health = await read_health(send, KEY)
    assert health == RedisHealth()
    assert len(warnings(health)) == 1


@pytest.mark.parametrize(
    "reply",
    [
        ResponseError("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."),
        ResponseError("MISCONF Errors writing to the AOF file: No space left on device"),
        OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
    ],
    ids=lambda reply: str(reply)[:10],
)
async def test_a_server_that_cannot_answer_now_is_not_taken_for_one_that_does_not_say(reply: Exception) -> None:
    """After a restart, one that does not say whether it keeps all would be taken for one that lost changes."""

    async def send(*command: object) -> object:
        if command[0] == "CONFIG GET":
            raise reply
        return b"run_id:a\r\nmaster_replid:b\r\naof_enabled:1\r\n"

    with pytest.raises(RedisCallError):
        await read_health(send, KEY)


async def test_a_server_without_the_command_does_not_say() -> None:
    async def send(*command: object) -> object:
        if command[0] == "CONFIG GET":
            raise ResponseError("unknown command 'CONFIG', with args beginning with: 'GET'")
        return b"run_id:a\r\nmaster_replid:b\r\naof_enabled:1\r\n"

    health = await read_health(send, KEY)
    assert health.appendonly
    assert health.appendfsync is None


@pytest.mark.parametrize("answer", [None, 7, [b"one"], b"maxmemory_policy"], ids=repr)
async def test_an_answer_that_makes_no_sense_is_an_error(answer: Any) -> None:
    async def send(*_command: object) -> object:
        return answer

    with pytest.raises(RedisCallError):
        await read_health(send, KEY)


async def test_a_server_that_does_not_answer_is_an_error() -> None:
    async def send(*_command: object) -> object:
        raise NoConnection("refused")

    with pytest.raises(RedisCallError, match="refused"):
        await read_health(send, KEY)
