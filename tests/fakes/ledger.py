"""A ledger in memory."""

from __future__ import annotations

from docpreview_gateway.creates.records import Record, Stage


class FakeLedger:
    """A `RequestLedger` in memory."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}

    async def secret(self) -> bytes:
        return b"s" * 32

    async def begin(self, record: Record, now: float) -> Record:
        standing = self.records.get(record.key)
        if standing is None or standing.expires_at <= now:
            self.records[record.key] = standing = record
        return standing

    async def replace(self, old: Record, new: Record) -> bool:
        if not self._is_owned(old):
            return False
        self.records[new.key] = new
        return True

    async def remove(self, record: Record) -> None:
        if self._is_owned(record):
            del self.records[record.key]

    async def open(self, now: float) -> list[Record]:
        stages = {Stage.SENT, Stage.UNKNOWN}
        return [found for found in self.records.values() if found.stage in stages and found.lease_until <= now]

    async def find(self, key: str) -> Record | None:
        return self.records.get(key)

    async def others_open(self, record: Record) -> bool:
        return any(
            found.target == record.target and found.key != record.key and found.stage is not Stage.ACCEPTED
            for found in self.records.values()
        )

    def _is_owned(self, record: Record) -> bool:
        standing = self.records.get(record.key)
        return standing is not None and (standing.owner, standing.attempt) == (record.owner, record.attempt)
