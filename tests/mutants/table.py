"""Which tests judge which module. The first ones are those that most probably notice."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.mutants import statements

if TYPE_CHECKING:
    from tests.mutants.points import Statements

ROOT = "docpreview_gateway"


class Judged(NamedTuple):
    """The tests of a module. `money`: pages or jobs that are billed depend on it, so it gets twice the mutants."""

    tests: tuple[str, ...]
    money: bool = False
    only: str = ""
    """Of the tests those that pytest selects by this expression (`-k`)."""
    statements: Statements | None = None
    """Mutants of its statements in another language, in place of those of its strings."""


def _creates(*names: str, money: bool = True) -> Judged:
    return Judged(tuple(f"tests/unit/creates/test_{name}.py" for name in names), money)


def _upstream(*names: str) -> Judged:
    return Judged(tuple(f"tests/unit/upstream/{name}.py" for name in names))


_STORE = "tests/contract/test_create_store.py"
_REDIS = Judged(
    (_STORE, "tests/unit/creates/test_redis_creates.py"),
    money=True,
    only="redis and not 100000",
    statements=statements.lua,
)

TABLE: dict[str, Judged] = {
    "creates/recorded.py": _creates("recorded", "budgets", "rendered", "rotation", "leases", "imported"),
    "creates/attempts.py": _creates("attempts", "recorded", "budgets", "rendered", "guarded_failures", "leases"),
    "creates/outcomes.py": _creates("outcomes", "recorded", "settlement", "guarded_failures"),
    "creates/evidence.py": _creates("evidence", "lists", "outcomes", "recorded"),
    "creates/lists.py": _creates("lists", "outcomes", "recorded"),
    "creates/settlement.py": _creates("settlement", "budgets", "recorded", "guarded_failures"),
    "creates/drafts.py": _creates("drafts", "rotation", "imported", "recorded", "budgets"),
    "creates/rendered.py": _creates("rendered", "recorded"),
    "creates/days.py": _creates("days", "budgets", "recorded"),
    "creates/leases.py": _creates("leases", "dead_leases", "budgets", "guarded_failures"),
    "creates/dead_leases.py": _creates("dead_leases", "leases"),
    "creates/pages.py": _creates("pages", "budgets", "settlement", "memory_creates"),
    "creates/guarded.py": _creates("guarded", "guarded_failures", "rebuild", "secret_use"),
    "creates/outlook.py": _creates("outlook", money=False),
    "creates/secret_use.py": _creates("secret_use"),
    "creates/rebuild.py": _creates("rebuild", "dead_leases", "reconciliation"),
    "creates/sqlite_transaction.py": Judged(
        (_STORE, "tests/unit/creates/test_sqlite_creates.py"), money=True, only="sqlite", statements=statements.sql
    ),
    "creates/redis_scripts.py": _REDIS,
    "creates/redis_lua.py": _REDIS,
    "creates/redis_rebuild.py": _REDIS,
    "creates/redis_answers.py": Judged(_REDIS.tests, money=True, only=_REDIS.only),
    "creates/store_memory.py": _creates("guarded", "guarded_failures", "rebuild"),
    "creates/counters.py": _creates("reconciliation", money=False),
    "creates/keys.py": _creates("keys", "rotation", "evidence", "records", money=False),
    "creates/records.py": _creates("records", "settlement", "attempts", money=False),
    "creates/reconciliation.py": _creates("reconciliation", money=False),
    "creates/refusals.py": _creates("refusals", "recorded", "attempts", "budgets", money=False),
    "upstream/cloud_clock.py": Judged(
        tuple(
            f"tests/unit/{name}.py"
            for name in ("upstream/test_cloud_clock", "creates/test_lists", "creates/test_outcomes")
        )
    ),
    "upstream/middleware/cached.py": _upstream("middleware/test_cached", "middleware/test_shared_reads"),
    "upstream/middleware/coalesced.py": _upstream("middleware/test_coalesced", "middleware/test_shared_reads"),
    "upstream/middleware/retrying.py": _upstream("middleware/test_retrying", "policies/test_retry_policy"),
    **dict.fromkeys(
        ("jobs/watching.py", "jobs/poller.py"),
        Judged(tuple(f"tests/unit/jobs/test_{name}.py" for name in ("watching", "watching_replicas", "preview_jobs"))),
    ),
}
"""By the path below `server/docpreview_gateway`; what is billed comes first."""
