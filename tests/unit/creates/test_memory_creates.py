"""The faults of `MemoryCreates`, which other tests rest on. What it promises otherwise is in `tests/contract`."""

from __future__ import annotations

import pytest

from docpreview_gateway.creates.pages import Periods
from docpreview_gateway.creates.ports import Lease, StoreError, StoreLost
from docpreview_gateway.model.callers import PageBudget
from tests.fakes.creates import MemoryCreates

DAY = "2026-11-30"
LEASE = Lease("x", "a", DAY, 5, 1.0)


async def test_a_call_that_fails_before_changes_nothing() -> None:
    store = MemoryCreates(fail_before=1)
    with pytest.raises(StoreError):
        await store.lease(LEASE, PageBudget())
    assert await store.leases() == []


async def test_a_call_that_fails_after_has_changed_everything() -> None:
    store = MemoryCreates(fail_after=1)
    with pytest.raises(StoreError):
        await store.lease(LEASE, PageBudget())
    assert await store.leases() == [LEASE]


async def test_faults_can_be_of_some_methods_alone() -> None:
    """The others work, and do not use the faults up. All calls are counted."""
    store = MemoryCreates(fail_before=2, failing={"lease"})
    await store.count("a", Periods(DAY, DAY[:7]))
    for _ in range(2):
        with pytest.raises(StoreError):
            await store.lease(LEASE, PageBudget())
    assert await store.lease(LEASE, PageBudget()) == LEASE
    assert store.calls == {"count": 1, "lease": 3}


async def test_an_emptied_store_is_lost_to_all_its_connections() -> None:
    store = MemoryCreates()
    other = store.beside()
    await store.state()
    await other.lease(LEASE, PageBudget())
    store.empty()
    for each in (store, other):
        with pytest.raises(StoreLost):
            await each.leases()
    assert (await store.begin_rebuild(1.0)).generation
    assert await other.leases() == []
