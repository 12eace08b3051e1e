"""Settings of a Redis or Valkey server on which the durability of stored records depends, and warnings about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from redis.exceptions import NoPermissionError, ResponseError

from docpreview_gateway.storage.redis_client import RedisCallError, RedisClient, expect, script_command

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SAFE_POLICY = "noeviction"

POLICY = "maxmemory_policy"
"""The check whether the server may evict keys."""

CHECKS = (POLICY, "evicted_keys", "appendonly", "appendfsync", "default_user")

REPLAYER = "default"
"""The user whose rights Redis checks when it reads transactions back from its append-only file: redis/redis#14541,
valkey-io/valkey#3983. What the user may not do is left out, with a line in the server's log and no error."""

MAY_REPLAY = "ACL SETUSER default ~* &* +@all"
"""The command that gives the user the rights. Nobody needs to be able to log in as it: it may be `off`."""

# In a script, because that goes to the server that holds the key, whichever of a cluster it is.
_INFO = """
local found = {}
for _, section in ipairs({'server', 'memory', 'persistence', 'stats', 'replication'}) do
  table.insert(found, redis.call('INFO', section))
end
return table.concat(found, '\\n')
"""


class RedisHealth(NamedTuple):
    """What a server says of itself; None: it does not say, because the user may not ask, or it is another product."""

    policy: str | None = None
    """`maxmemory-policy`."""
    appendonly: bool | None = None
    """Whether changes are written to an append-only file."""
    appendfsync: str | None = None
    """When that file is synced: `always`, `everysec` or `no`. Of a cluster, any node's."""
    evicted_keys: int | None = None
    """Keys of any kind that it has evicted since it was started."""
    server: str = ""
    """`run_id` and `master_replid`, with a colon between: another one means that the server was restarted, that another
    one took its place, or that its last replica left an hour ago. Empty: it does not say."""
    replays: bool | None = None
    """Whether it reads its append-only file back whole after a restart, by the rights of `REPLAYER`."""
    replid_before: str = ""
    """`master_replid2`: of the server whose place this one took; zeros: it took none's."""

    @property
    def keeps_all(self) -> bool:
        """Whether every change that it has acknowledged is there after a restart."""
        return self.appendonly is True and self.appendfsync == "always" and self.replays is True


async def read_health(send: Callable[..., Awaitable[object]], key: str, *, seconds: float = 1.0) -> RedisHealth:
    """The health of the server that holds `key`, in three round trips. RedisCallError when it does not answer."""
    client = RedisClient(send, name="shared state", seconds=seconds)
    try:
        info = await client.execute(*script_command(_INFO, [key]), read=_info)
    except RedisCallError as error:
        info = _refused(error)
    try:
        # One word for the library, which else does not know where in a cluster to send it.
        config = await client.execute("CONFIG GET", "appendfsync", read=_config)
    except RedisCallError as error:
        config = _refused(error)
    evicted, appendonly = info.get("evicted_keys", ""), info.get("aof_enabled")
    return RedisHealth(
        policy=info.get("maxmemory_policy"),
        appendonly=None if appendonly is None else appendonly == "1",
        appendfsync=config.get("appendfsync"),
        evicted_keys=int(evicted) if evicted.isdecimal() else None,
        server=f"{info['run_id']}:{info['master_replid']}" if {"run_id", "master_replid"} <= info.keys() else "",
        replays=await _replays(client, key),
        replid_before=info.get("master_replid2", ""),
    )


def warnings(health: RedisHealth) -> dict[str, str]:
    """What may make the server lose records, in plain words, by the check that fails; empty: nothing is known to."""
    found = {}
    if health.policy is None:
        found[POLICY] = "maxmemory-policy cannot be read: make sure that it is noeviction"
    elif health.policy != SAFE_POLICY:
        found[POLICY] = f"maxmemory-policy is {health.policy}: a full server may delete records; set noeviction"
    if health.evicted_keys:
        found["evicted_keys"] = f"{health.evicted_keys} keys were evicted since the server was started: it is too small"
    if health.appendonly is False:
        found["appendonly"] = "appendonly is no: a restart loses the changes since the last snapshot; set yes"
    elif health.appendfsync == "no":
        found["appendfsync"] = "appendfsync is no: a crash of the machine loses some 30 seconds; set everysec or always"
    if health.appendonly is not False and health.replays is False:
        found["default_user"] = (
            f"the user {REPLAYER} lacks rights, by which transactions are read back: a restart loses records; "
            f"{MAY_REPLAY}, then ACL SAVE or the same in redis.conf"
        )
    return found


def may_lack(health: RedisHealth, before: str) -> bool:
    """Whether a server may lack changes that the one with another `RedisHealth.server` has acknowledged.

    One that was promoted may lag behind, and so may one that was restarted and writes late. One that runs on and never
    took another's place has all: it gives itself a new replication id an hour after its last replica left
    (`repl-backlog-ttl`).
    """
    run, _, replid = before.partition(":")
    took_a_place = health.replid_before.strip("0") != ""
    if health.server.partition(":")[0] == run and not took_a_place:
        return False
    return health.replid_before == replid or not health.keeps_all


async def _replays(client: RedisClient, key: str) -> bool | None:
    try:
        # As the store's scripts write. Nothing is written: the server says whether the user may.
        return await client.execute("ACL DRYRUN", REPLAYER, "HSET", key, "generation", "", read=_is_allowed)
    except RedisCallError as error:
        _refused(error)
        return None


_NEVER_SAYS = ("unknown", "can't run this command", "acl failure in script")
"""Of servers without the command; of Redis 7.0, and of later ones, to a user whose script lacks the right to it."""


def _refused(error: RedisCallError) -> dict[str, str]:
    """Nothing, if the server never says it: to this user, or because it lacks the command.

    Other replies, such as `BUSY`, `OOM` or `MISCONF`, say nothing of how the server is set. It would be taken for one
    that may have lost changes.
    """
    reply = error.__cause__
    text = str(reply).lower() if isinstance(reply, ResponseError) else ""
    if isinstance(reply, NoPermissionError) or any(words in text for words in _NEVER_SAYS):
        return {}
    raise error


def _is_allowed(answer: object) -> bool:
    return _text(answer) == "OK"


def _info(answer: object) -> dict[str, str]:
    lines = expect(bytes, answer).decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _config(answer: object) -> dict[str, str]:
    # The library makes a mapping of it, unless it comes out of a pipeline.
    if isinstance(answer, dict):
        return {_text(name): _text(value) for name, value in answer.items()}
    found = expect(list, answer)
    return {_text(name): _text(value) for name, value in zip(found[::2], found[1::2], strict=True)}


def _text(value: object) -> str:
    return value if isinstance(value, str) else expect(bytes, value).decode()
