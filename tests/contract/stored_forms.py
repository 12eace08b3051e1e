"""Stored forms that versions leave behind (`tests/vectors/stores`): read from the files, and made anew.

`old/` was made by the code of version 0.x (`make_old.txt`). `2/` is what this version stores: make it again only when a
form is added, never to make a test pass, because deployments have what is in it.

    python -m tests.contract.stored_forms tests/vectors/stores/2
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import sqlite3
import sys
import tempfile
from base64 import b64decode, b64encode
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from redis import Redis

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.creates.ports import Lease
from docpreview_gateway.creates.records import Record, stored_request
from docpreview_gateway.creates.redis_creates import RedisCreates
from docpreview_gateway.creates.sqlite_creates import SqliteCreates
from docpreview_gateway.model.callers import PageBudget
from docpreview_gateway.storage.redis_connections import redis_commands
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview_gateway.creates.ports import CreateStore

FORMS = Path(__file__).parents[1] / "vectors" / "stores"
BUCKET, CALLER = "examplebucket-1250000000", "one"
DAY = "2026-11-29"
NOW = 1795939200.0
"""2026-11-29 08:00 UTC, when all of them were made."""

OLD_SECRET = bytes(range(100, 132))
KEYS = CreateKeys("golden", [bytes(range(32))])


def request(name: str) -> CreatePreviewJobRequest:
    """The request of a create in the old stores; they have nothing but their ids of their own."""
    return CreatePreviewJobRequest(
        bucket=BUCKET,
        input_object="in/a.pdf",
        output=ObjectLocation(object="previews/${Number}.jpg"),
        options=PreviewOptions(password="open sesame", quality=80),
        user_data="of the caller",
        request_id=request_id(name),
    )


def request_id(name: str) -> str:
    """The id of the create of this name; without one none."""
    return str(uuid5(NAMESPACE_URL, name)) if name else ""


def old_digest(name: str) -> str:
    """The old key of a create."""
    return hashlib.sha256(f"{CALLER}\n{BUCKET}\n{request_id(name)}".encode()).hexdigest()


def copy_old_files(folder: Path) -> None:
    """Put the old files there."""
    for name in ("ledger.db", "pages.db"):
        shutil.copy(FORMS / "old" / name, folder / name)


def restore(server: Redis, path: Path, change: Callable[[list[bytes]], list[bytes]] = list) -> None:
    """Run the commands of a file, each `change`d."""
    for words in json.loads(path.read_text()):
        client: Any = server
        client.execute_command(*change([b64decode(word) for word in words]))


def commands(server: Redis) -> list[list[str]]:
    """The commands that make what the server holds, words in base64, sorted."""
    made: list[list[bytes | str]] = []
    found: Any = server
    for key in sorted(found.scan_iter("*")):
        kind = found.type(key)
        assert found.ttl(key) == -1
        if kind == b"hash":
            made += [["HSET", key, name, value] for name, value in sorted(found.hgetall(key).items())]
        elif kind == b"list":
            made.append(["RPUSH", key, *found.lrange(key, 0, -1)])
        else:
            assert kind == b"zset"
            made += [["ZADD", key, repr(score), name] for name, score in found.zrange(key, 0, -1, withscores=True)]
    return [[b64encode(word if isinstance(word, bytes) else word.encode()).decode() for word in row] for row in made]


def new_records() -> dict[str, Record]:
    """The records in the stores of this version, by what is special about them."""
    job = PreviewJob(bucket=BUCKET, job_id="d-1", state=PreviewJob.STATE_SUBMITTED)
    job.create_time.seconds = int(NOW) + 1
    plain = Record(
        key=KEYS.record_keys(CALLER, BUCKET, "open")[0],
        body=KEYS.body(request("open")),
        kid=KEYS.id,
        caller=CALLER,
        bucket=BUCKET,
        request=stored_request(request("open")),
        place=KEYS.place("open"),
        render="",
        keep=86400.0,
        day=DAY,
        asked=4,
        nonce=b"nonce-01",
        sign_start=NOW - 60,
        sign_end=NOW + 45,
        first_start=NOW - 60,
    )

    def named(name: str, **values: object) -> Record:
        key, place = KEYS.record_keys(CALLER, BUCKET, name)[0], KEYS.place(name)
        return replace(plain, **({"key": key, "place": place, "render": KEYS.render(name.encode())} | values))  # type: ignore[arg-type]

    return {
        "open": plain,
        "accepted": named("accepted", asked=3).accepted(job, NOW),
        "charged": named("charged").accepted(job, NOW).charged(2),
        "not counted": named("not counted", day="", asked=0).accepted(job, NOW),
        "imported": replace(plain, key="1:" + "ab" * 32, render="dg1-" + "a" * 26, kid="", day="", asked=0, place=""),
    }


LEASE = Lease("replica-1", CALLER, DAY, 10, NOW)


async def fill(store: CreateStore) -> None:
    """Put the records, a lease and times into an empty store."""
    for record in new_records().values():
        await store.hand_over(Lease("", "", "", 0, 0.0), [(record, NOW + 100)])
    await store.advance("", DAY)
    await store.lease(LEASE, PageBudget())
    await store.mark(NOW)


async def _make(folder: Path) -> None:
    async with SqliteCreates(folder / "creates.db", KEYS) as files:
        await fill(files)
    with closing(sqlite3.connect(folder / "creates.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with tempfile.TemporaryDirectory() as scratch, running_redis(Path(scratch)) as server:
        async with redis_commands(server.url) as send:
            shared = RedisCreates(send, KEYS)
            begun = await shared.begin_rebuild(1.0)
            await shared.end_rebuild(begun.lost_since, 0.0, [])
            await fill(shared)
        text = json.dumps(commands(Redis.from_url(server.url)), indent=1)
        (folder / "redis.json").write_text(text + "\n")


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(parents=True)
    asyncio.run(_make(Path(sys.argv[1])))
