"""Faults of what creates depend on: the store, its server, page budgets, and the records themselves."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.creates.ports import Change
from docpreview_gateway.creates.sqlite_creates import SqliteCreates
from docpreview_gateway.storage.key_file import read_secrets
from tests.integration.conftest import BUCKET
from tests.integration.gateway_processes import page
from tests.integration.test_failing_records import PROBE
from tests.integration.test_record_commands import new_id
from tests.monitoring.alert_stage import said
from tests.monitoring.faults import fault
from tests.monitoring.faults_cloud import NO_BREAKER, SHORT_LEDGER
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from tests.monitoring.alert_stage import Trial

STUCK = "DocpreviewReconciliationStuck"
"""While the store cannot be read for minutes, rounds cannot read it either."""


@fault("DocpreviewRecordsFailing", beside=(STUCK,))
async def disk_full(trial: Trial) -> None:
    """No file of the process can grow, the store's neither."""
    async with trial.gateway() as gateway:
        await trial.create(gateway, new_id())
        await trial.ready(gateway)
        usual = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (1, usual[1]))
        assert await trial.create(gateway, new_id()) == "LEDGER_UNAVAILABLE"
        await trial.fires("DocpreviewRecordsFailing")
        assert "creates.db" in await trial.unready(gateway)
        assert await page(gateway.admin_port, PROBE) == (200, "ready\n")
        assert "records failing: " in said(await trial.shell(gateway).diagnose("records-failing"))
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, usual)
        await trial.ends("DocpreviewRecordsFailing")
        await trial.ready(gateway)


@fault("DocpreviewStoreLost", beside=(STUCK,))
async def store_lost(trial: Trial) -> None:
    """The file of the store is deleted, and nothing rebuilds it. The runbook's cure: accept the loss."""
    async with trial.gateway(ledger={"on_loss": "refuse"}) as gateway:
        await trial.create(gateway, new_id())
        for path in trial.folder.glob("creates.db*"):
            path.unlink()
        assert await trial.create(gateway, new_id()) == "LEDGER_UNAVAILABLE"
        await trial.fires("DocpreviewStoreLost")
        assert "the store of creates has lost records" in await trial.unready(gateway)
        shell = trial.shell(gateway)
        text = said(await shell.diagnose("store-lost"), but=("store status", "redis-cli"))
        assert "the store has lost records" in text
        assert '"event":"the store of creates has lost records' in text
        said(await shell.mend("store-lost"))
        await trial.ends("DocpreviewStoreLost")
        await trial.ready(gateway)


@fault("DocpreviewStoreLost", beside=(STUCK,))
async def store_emptied(trial: Trial) -> None:
    """Somebody has emptied the Redis server, which the runbook's commands show. The cure is that of a lost file."""
    with running_redis(trial.folder) as server:
        shared = {"url": server.url, "ledger_timeout_seconds": 3}
        changes = trial.policed(budget={"per_day": 100, "estimate": 1})
        async with trial.gateway(ledger={"on_loss": "refuse"}, shared_state=shared, **changes) as gateway:
            await trial.create(gateway, new_id())
            server.command("FLUSHALL")
            assert await trial.create(gateway, new_id()) == "LEDGER_UNAVAILABLE"
            assert await trial.create(gateway) == "LIMITER_UNAVAILABLE"
            await trial.fires("DocpreviewStoreLost")
            shell = trial.shell(gateway, REDIS=server.url)
            text = said(await shell.diagnose("store-lost"), but=("store status",))
            assert "cmdstat_flushall:calls=1" in text
            assert "uptime_in_seconds:" in text
            assert "role:master" in text
            assert "evicted_keys:0" in text
            said(await shell.mend("store-lost"))
            await trial.ends("DocpreviewStoreLost")
            await trial.ready(gateway)


@fault("DocpreviewRecordsFailing", beside=(STUCK, "DocpreviewLimiterDegraded"))
async def redis_full(trial: Trial) -> None:
    """Redis answers, and has no memory for another record. The runbook's cure: `config set maxmemory`."""
    with running_redis(trial.folder) as server:
        changes = trial.policed(budget={"per_day": 100, "estimate": 1})
        async with trial.gateway(shared_state={"url": server.url}, **changes) as gateway:
            await trial.create(gateway, new_id())
            await trial.ready(gateway)
            server.command("CONFIG SET maxmemory 1")
            assert await trial.create(gateway, new_id()) == "LEDGER_UNAVAILABLE"
            assert await trial.create(gateway) == "LIMITER_UNAVAILABLE"
            await trial.fires("DocpreviewRecordsFailing")
            shell = trial.shell(gateway, REDIS=server.url)
            assert "command not allowed when used memory > 'maxmemory'" in said(await shell.diagnose("records-failing"))
            assert "errorstat_OOM" in said(await shell.diagnose("limiter-degraded"))
            assert "maxmemory_human:1B" in said(await shell.mend("records-failing"))
            await trial.ends("DocpreviewRecordsFailing")
            await trial.ready(gateway)


@fault("DocpreviewLimiterDegraded", "DocpreviewRecordsFailing", beside=(STUCK,))
async def redis_silent(trial: Trial) -> None:
    """Redis accepts connections and answers nothing."""
    with running_redis(trial.folder) as server:
        changes = trial.policed(rate={"per_second": 1000, "burst": 1000})
        async with trial.gateway(shared_state={"url": server.url}, **changes) as gateway, trial.reads(gateway):
            await trial.create(gateway, new_id())
            await trial.ready(gateway)
            server.freeze()
            try:
                await trial.fires("DocpreviewLimiterDegraded", "DocpreviewRecordsFailing")
                assert f"127.0.0.1:{server.port}" in await trial.unready(gateway)
                shell = trial.shell(gateway, REDIS=server.url)
                said(await shell.diagnose("limiter-degraded"), but=("redis-cli",))
                assert "creates cannot be recorded" in said(await shell.diagnose("records-failing"))
            finally:
                server.thaw()
            await trial.ends("DocpreviewLimiterDegraded", "DocpreviewRecordsFailing")
            assert "PONG" in said(await shell.diagnose("limiter-degraded"))
            await trial.ready(gateway)


@fault("DocpreviewStoreMayEvict")
async def store_may_evict(trial: Trial) -> None:
    """The server of the store evicts keys when it is full. The runbook's cure: `config set`."""
    with running_redis(trial.folder, "--maxmemory-policy", "allkeys-lru", "--maxmemory", "50mb") as server:
        shared = {"url": server.url, "ledger_timeout_seconds": 3}
        async with trial.gateway(hurried=True, shared_state=shared) as gateway:
            await trial.fires("DocpreviewStoreMayEvict")
            shell = trial.shell(gateway, REDIS=server.url)
            text = said(await shell.diagnose("store-may-evict"))
            assert "allkeys-lru" in text
            assert "the server of the store of creates may lose records" in text
            said(await shell.mend("store-may-evict"))
            await trial.ends("DocpreviewStoreMayEvict")


@fault(STUCK, beside=("DocpreviewUpstreamFailing",))
async def reconciliation_stuck(trial: Trial) -> None:
    """The reply of a create is lost, and no list can tell what became of it."""
    async with trial.gateway(ledger=SHORT_LEDGER, breaker=NO_BREAKER) as gateway:
        await trial.create(gateway, new_id())
        trial.emulator.add_fault("drop_after", "create")
        trial.emulator.add_fault("error", "list", times=None)
        assert await trial.create(gateway, new_id()) == "CREATE_OUTCOME_UNKNOWN"
        await trial.fires(STUCK)
        assert "a create is not settled yet" in said(await trial.shell(gateway).diagnose("reconciliation-stuck"))
        trial.emulator.clear_faults()
        await trial.ends(STUCK)
        assert trial.emulator.accepted_jobs == 2


@fault("DocpreviewReconciliationFindings")
async def reconciliation_findings(trial: Trial) -> None:
    """The record of a job is gone. The runbook's cure: `reconcile --charge`."""
    async with trial.gateway(hurried=True, ledger=SHORT_LEDGER) as gateway:
        request_id = new_id()
        job_id = await trial.create(gateway, request_id)
        await trial.create(gateway, new_id())
        keys = CreateKeys("", read_secrets(trial.folder / "ledger.key"))
        async with SqliteCreates(trial.folder / "creates.db", keys) as store:
            (record,) = await store.find(keys.record_keys("anonymous", BUCKET, request_id)[:1])
            assert record is not None
            assert await store.change([Change(record, None, record.expires_at)]) == [True]
        await trial.fires("DocpreviewReconciliationFindings")
        shell = trial.shell(gateway)
        text = said(await shell.diagnose("reconciliation-findings"), but=("reconcile",))
        assert job_id in text
        assert '"event":"a job of ours is on no record"' in text
        said(await shell.mend("reconciliation-findings"), but=("reconcile",))
        await trial.ends("DocpreviewReconciliationFindings")


@fault("DocpreviewBudgetNearlyUsed")
async def budget_nearly_used(trial: Trial) -> None:
    """A caller's creates may make all the pages of its day. The runbook's cure: a larger budget in the policy."""
    policed = trial.policed(budget={"per_day": 10, "estimate": 1})
    async with trial.gateway(hurried=True, **policed) as gateway:
        for _ in range(10):
            assert (await trial.create(gateway, new_id())).startswith("d")
        await trial.fires("DocpreviewBudgetNearlyUsed")
        ran = await trial.shell(gateway).diagnose("budget-nearly-used")
        assert 'docpreview_pages_left{caller="one"' in said(ran)
        assert ran[-1].output.split() == ["10", '"OK"']
        trial.policy.callers["one"]["budget"]["per_day"] = 100
        trial.policy.write()
        await trial.ends("DocpreviewBudgetNearlyUsed")


@fault("DocpreviewBudgetNearlyUsed")
async def budget_lowered(trial: Trial) -> None:
    """A new policy gives a caller less than it has used. The runbook shows that, and when. The cure: the old one."""
    policed = trial.policed(budget={"per_day": 100, "estimate": 1})
    async with trial.gateway(hurried=True, **policed) as gateway:
        for _ in range(6):
            assert (await trial.create(gateway, new_id())).startswith("d")
        trial.policy.callers["one"]["budget"]["per_day"] = 5
        trial.policy.write()
        await trial.fires("DocpreviewBudgetNearlyUsed")
        assert await trial.create(gateway, new_id(), page_ranges="1-6") == "PAGE_BUDGET_TOO_SMALL"
        ran = await trial.shell(gateway).diagnose("budget-nearly-used")
        text = said(ran)
        assert '"event":"reloaded"' in text
        assert "budget admits 5 pages a day" in text
        assert '1 "PAGE_BUDGET_TOO_SMALL"' in ran[-1].output
        trial.policy.callers["one"]["budget"]["per_day"] = 100
        trial.policy.write()
        await trial.ends("DocpreviewBudgetNearlyUsed")
        assert (await trial.create(gateway, new_id())).startswith("d")
