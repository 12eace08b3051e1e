"""Taking over the creates and pages that a version before 2.0 has left, before the new store is used.

What is left is read and judged first: a record that cannot be read changes nothing. Then earlier versions are closed
out, and all is inserted into the new store under a name, once. A process that is killed at any point begins again and
comes to the same.
"""

from __future__ import annotations

import asyncio
import json
import os
from base64 import b64decode, b64encode
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog

from docpreview_gateway.creates.imported import OldStoreError, taken_over
from docpreview_gateway.creates.keys import SECRET_BYTES
from docpreview_gateway.creates.old_sqlite import LEDGER, OldFiles, locked, new_source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from docpreview_gateway.creates.imported import OldIds, TakenOver
    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.creates.old_redis import OldRedis, OldSecret
    from docpreview_gateway.creates.ports import StoreState
    from docpreview_gateway.creates.records import Record, Timing

OLD_KEY = "ledger.old"
"""The file with the secret of the old store, by which repeated requests are compared with old ones."""

log = structlog.get_logger("docpreview_gateway.creates")


class TakingStore(Protocol):
    """What is needed of the new store."""

    async def state(self) -> StoreState:
        """As `CreateStore` says."""
        ...

    async def begin_rebuild(self, now: float) -> StoreState:
        """As `CreateStore` says."""
        ...

    async def end_rebuild(self, lost_since: float, cloud_mark: float, used: Sequence[tuple[str, str, int]]) -> bool:
        """As `CreateStore` says."""
        ...

    async def take_over(
        self, source: str, records: Sequence[tuple[Record, float]], used: Sequence[tuple[str, str, int]]
    ) -> bool:
        """Insert records, each unless its key is there, with the time when it is due, and add used pages of periods.

        False, and nothing is changed, when all that has the name `source` was inserted before. Nothing else may use the
        store until this has returned: parts may be inserted one after the other.
        """
        ...


class OldKey(NamedTuple):
    """What the file `OLD_KEY` holds: the secret, and until when (cloud's time) old ids are looked up; 0: never."""

    secret: bytes = b""
    until: float = 0.0


class Migration:
    """Takes over old stores, each once, in this order."""

    def __init__(self, *parts: FilesMigration | RedisMigration) -> None:
        self._left = list(parts)

    async def run(self) -> None:
        """Take over what is left. OldStoreError, StoreError: nothing is lost, and it may be called again."""
        while self._left:
            await self._left[0].run()
            del self._left[0]


class FilesMigration:
    """Takes over those of the old files that count (`names`). `ids` learns what was found, if `ledger.db` counts."""

    def __init__(  # noqa: PLR0913 - collaborators, named by wiring
        self, folder: Path, names: Sequence[str], store: TakingStore, *, keys: CreateKeys, timing: Timing, ids: OldIds
    ) -> None:
        self._folder = folder
        self._names = names
        self._store = store
        self._keys = keys
        self._timing = timing
        self._ids = ids

    async def run(self) -> None:
        """Take over what is there. OldStoreError; StoreError of the new store."""
        try:
            if self._files().paths:
                # A thread of its own: another worker may take it over, and this one waits.
                lock = await asyncio.to_thread(locked, self._folder)
                try:
                    await self._take_over(self._files())
                finally:
                    os.close(lock)
            if LEDGER in self._names:
                known = read_old_key(self._folder / OLD_KEY)
                self._ids.learn(known.secret, known.until)
        except OSError as error:
            raise OldStoreError(f"{self._folder}: {error}") from error

    async def _take_over(self, files: OldFiles) -> None:
        if not files.paths:
            return
        source, found = await asyncio.to_thread(self._closed, files)
        await _make_whole(self._store)
        made = await self._store.take_over(source, found.records, found.used)
        await asyncio.to_thread(files.put_away)
        if made:
            _tell(found)

    def _closed(self, files: OldFiles) -> tuple[str, TakenOver]:
        """The name and the contents of the files, which earlier versions refuse from now on."""
        files.check_unused()
        old = files.read()
        if LEDGER not in self._names:
            # Its creates are elsewhere: what may have made a job counts.
            old = old._replace(reservations=[replace(each, ledger_key="") for each in old.reservations])
        found = taken_over(old, self._keys, self._timing)
        source, secret, path = files.source() or new_source(), files.secret(), self._folder / OLD_KEY
        if secret and LEDGER in self._names:
            write_old_key(path, OldKey(secret, found.until))
        files.close(source)
        return source, found

    def _files(self) -> OldFiles:
        return OldFiles(self._folder, self._names)


class RedisMigration:
    """Takes over what is left in Redis or Valkey. `ids` learns what was found."""

    def __init__(self, old: OldRedis, store: TakingStore, *, keys: CreateKeys, timing: Timing, ids: OldIds) -> None:
        self._old = old
        self._store = store
        self._keys = keys
        self._timing = timing
        self._ids = ids

    async def run(self) -> None:
        """Take over what is there. OldStoreError; StoreError of the server."""
        standing = await self._old.look()
        if not standing.is_done:
            standing = await self._take_over(standing)
        secret = self._secret(standing)
        if secret is None:
            self._ids.learn(b"", 0.0)
        else:
            self._ids.learn(secret, float(standing.items[3]))

    def _secret(self, standing: OldSecret) -> bytes | None:
        """The old secret; None when nothing is left, or another deployment takes it over."""
        return self._keys.unwrap(standing.items[2]) if standing.is_closed else None

    async def _take_over(self, standing: OldSecret) -> OldSecret:
        old = await self._old.read()
        if standing.kind == "none" and not old:
            return standing
        found = taken_over(old, self._keys, self._timing)
        if not standing.is_closed:
            secret = standing.items[0] if standing.kind == "string" else b""
            if standing.kind not in {"none", "string"} or len(secret) not in {0, SECRET_BYTES}:
                raise OldStoreError("shared_state: the secret of the earlier version is damaged: nothing is taken over")
            wrapped = self._keys.wrap(secret or bytes(SECRET_BYTES))
            standing = await self._old.close(new_source(), wrapped, found.until)
            # What the earlier version has written until now.
            found = taken_over(await self._old.read(), self._keys, self._timing)
        if self._secret(standing) is None:
            log.info("what an earlier version has left in Redis belongs to another deployment")
            return standing
        await _make_whole(self._store)
        made = await self._store.take_over(standing.items[1].decode(), found.records, found.used)
        await self._old.done()
        if made:
            _tell(found)
        return standing


def read_old_key(path: Path) -> OldKey:
    """The secret of the old store; nothing when there is no such file. OldStoreError when it is damaged."""
    if not path.exists():
        return OldKey()
    try:
        found = json.loads(path.read_text())
        return OldKey(b64decode(found["secret"], validate=True), float(found["until"]))
    except (ValueError, KeyError, TypeError) as error:
        raise OldStoreError(
            f"{path} is damaged. Restore it from a backup; or delete it, and ids of before the upgrade are forgotten"
        ) from error


def write_old_key(path: Path, key: OldKey) -> None:
    """Write the file, at once and whole, for this user alone. OSError."""
    new = path.with_suffix(".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({"secret": b64encode(key.secret).decode(), "until": key.until}, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


async def _make_whole(store: TakingStore) -> None:
    """A store that is empty gets its generation."""
    if not (await store.state()).generation:
        begun = await store.begin_rebuild(1.0)
        await store.end_rebuild(begun.lost_since, 0.0, [])


def _tell(found: TakenOver) -> None:
    states = Counter(record.state.value for record, _ in found.records)
    log.info("creates and pages of an earlier version are taken over", used=len(found.used), **states)
