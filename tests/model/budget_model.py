"""Explicit-state model of page budgets: are more pages made than a caller may make, and is each page counted?

    python -m tests.model.budget_model      # exit 1 when something is not as expected

Old: the page quota store of version 1, with one of each replica's own for outages, or none (SQLite on a full disk). New:
the protocol of docs/creates.md: record and reservation are one; outages are served from page leases that were charged
when they were drawn, and that end by the replica's own monotonic clock; a store that was emptied is rebuilt from the
cloud's list after a quarantine. One create asks for one page. One tick is a signature (S) and the list's delay (V).
"""

from __future__ import annotations

import sys
import time
from typing import NamedTuple

from tests.model.creates_model import explore

S = V = 1
TERM = 1  # a lease may be spent for so many ticks after its last renewal
QUARANTINE = TERM + S + V + 1  # of an emptied book, and of a dead replica's lease
KINDS = ("down", "ack", "drop", "crash", "wipe", "flush")
"""The store cannot be reached by one replica (until it can again); it did as asked, and the answer was lost; a request is
lost; a replica is killed, its journal stays; its journal is gone too (disk full or lost); the store is emptied."""


class Cfg(NamedTuple):
    name: str
    design: str
    creates: tuple  # the request_id of each create (equal ones: the same id again, after it was forgotten)
    budget: int
    faults: dict
    total: int
    tmax: int = 5
    made: int = 1  # pages that a job makes in fact
    echo: bool = True
    replicas: int = 2
    fallback: bool = True  # old: replicas have a book of their own
    rules: frozenset = frozenset()
    expect: str = ""


class St(NamedTuple):
    T: int
    used: int
    recs: tuple  # creates with a reservation in the book
    done: tuple  # creates that were settled (old: ids that the book knows)
    lease: tuple  # pages of each replica's lease that the book has charged and nobody has accounted for
    dead: tuple  # for each replica: () or (pages of a dead lease, ticks)
    mode: tuple  # ("ok",) | ("lost",) | ("wait", ticks)
    link: tuple  # does a replica reach the store
    mem: tuple  # for each replica: (pages left of its lease, ticks since renewal, knows the store's generation)
    journal: tuple  # for each replica: creates that it has made alone
    net: tuple  # (create, signature's end, replica whose lease paid or -1)
    jobs: tuple  # (create, replica whose lease paid or -1)
    todo: tuple  # creates that nobody has asked for yet
    ends: tuple  # (create, end of its signature), as it is in its record
    left: tuple
    allow: int  # pages that the budget allows, and the bound for estimates


def put(values, i, value):
    return values[:i] + (value,) + values[i + 1 :]


def plus(values, *more):
    return tuple(sorted({*values, *more}))


def minus(values, *less):
    return tuple(x for x in values if x not in less)


class Model:
    def __init__(self, cfg):
        self.c = cfg
        self.new = cfg.design == "new"

    def initial(self):
        left = tuple(self.c.faults.get(k, 0) for k in KINDS) + (self.c.total,)
        return St(0, 0, (), (), (0, 0), ((), ()), ("ok",), (True, True), ((0, 0, True), (0, 0, True)), ((), ()), (), (),
                  tuple(range(len(self.c.creates))), (), left, self.c.budget)  # fmt: skip

    def tidy(self, s):
        return s

    def has(self, s, kind):
        return s.left[-1] > 0 and s.left[KINDS.index(kind)] > 0

    def use(self, s, kind):
        i = KINDS.index(kind)
        return s._replace(left=put(put(s.left, i, s.left[i] - 1), len(KINDS), s.left[-1] - 1))

    def held(self, s):
        return s.used + len(s.recs) + sum(s.lease) + sum(d[0] for d in s.dead if d)

    def send(self, s, n, payer):
        return self.bound(s._replace(net=plus(s.net, (n, s.T + S, payer)), ends=plus(s.ends, (n, s.T + S))))

    def bound(self, s):
        """What estimates may add: as much for each page that was reserved or leased at one moment, and not settled."""
        unsettled = len(s.recs) + sum(s.lease) + sum(d[0] for d in s.dead if d)
        return s._replace(allow=max(s.allow, self.c.budget + (self.c.made - 1) * unsettled))

    def succ(self, s):
        if s.T < self.c.tmax:
            yield "one tick passes", self.tick(s)
        for n, end, payer in s.net:
            t = s._replace(net=minus(s.net, (n, end, payer)))
            if s.T <= end:
                yield f"cloud makes the job of c{n}", t._replace(jobs=plus(t.jobs, (n, payer)))
                if self.has(s, "drop"):
                    yield f"request of c{n} is lost", self.use(t, "drop")
            else:
                yield f"request of c{n} is refused by its signature", t
        for r in range(self.c.replicas):
            if s.link[r] and self.has(s, "down"):
                yield f"R{r} loses the store", self.use(s, "down")._replace(link=put(s.link, r, False))
            if not s.link[r]:
                t = s._replace(link=put(s.link, r, True))
                yield f"R{r} reaches the store again", self.contact(t, r) if self.new else t
        if self.has(s, "flush"):
            t = self.use(s, "flush")
            t = t._replace(used=0, recs=(), done=(), lease=(0, 0), dead=((), ()))
            yield "the store is emptied", t._replace(mode=("lost",)) if self.new else t
        yield from (self.succ_new if self.new else self.succ_old)(s)

    def tick(self, s):
        mem = tuple(
            (left, 0 if s.link[r] and known and s.mode[0] == "ok" else min(age + 1, TERM + 1), known)
            for r, (left, age, known) in enumerate(s.mem)
        )
        dead = tuple((d[0], min(d[1] + 1, QUARANTINE)) if d else d for d in s.dead)
        mode = ("wait", min(s.mode[1] + 1, QUARANTINE)) if s.mode[0] == "wait" else s.mode
        return s._replace(T=s.T + 1, mem=mem, dead=dead, mode=mode)

    # --- new -----------------------------------------------------------------------------------------------------

    def contact(self, s, r):
        """A replica speaks to the store: an unknown generation ends its lease and begins the quarantine."""
        left, age, known = s.mem[r]
        if s.mode[0] == "lost":
            s = s._replace(mode=("wait", 0), mem=tuple((left, age, False) for left, age, _ in s.mem))
        if not s.mem[r][2]:
            s = s._replace(mem=put(s.mem, r, (0, 0, s.mode[0] == "ok")))
        return s

    def succ_new(self, s):
        rules = self.c.rules
        for r in (0, 1):
            left, age, known = s.mem[r]
            if s.link[r] and (s.mode[0] == "lost" or not known and s.mode[0] == "ok"):
                yield f"R{r} sees another generation", self.contact(s, r)
            usable = s.link[r] and s.mode[0] == "ok" and known
            for n in s.todo[:1]:  # creates are equal: in order
                t = s._replace(todo=minus(s.todo, n))
                if usable and self.held(s) + 1 <= self.c.budget:
                    t = t._replace(recs=plus(t.recs, n), ends=plus(t.ends, (n, s.T + S)))
                    yield f"R{r} records c{n} and sends it", self.send(t, n, -1)
                    if self.has(s, "ack"):
                        yield f"R{r} records c{n}, hears no answer, sends nothing", self.use(t, "ack")
                elif not s.link[r] and left > 0 and (age < TERM or "no_term" in rules):
                    t = t._replace(
                        mem=put(t.mem, r, (left - 1, age, known)), journal=put(t.journal, r, plus(t.journal[r], n))
                    )
                    yield f"R{r} pays c{n} from its lease", self.send(t, n, r)
            if usable and left == 0 and not s.journal[r] and self.held(s) + 1 <= self.c.budget:
                t = s._replace(lease=put(s.lease, r, s.lease[r] + 1), mem=put(s.mem, r, (1, 0, known)))
                yield f"R{r} draws a lease of one page", self.bound(t)
            if s.journal[r] and usable:
                n = s.journal[r][0]
                t = s
                if n not in s.recs and n not in s.done:
                    seen_in_scan = any(job[0] == n for job in s.jobs) or s.lease[r] > 0
                    t = t._replace(
                        lease=put(t.lease, r, max(0, t.lease[r] - 1)), recs=plus(t.recs, n) if seen_in_scan else t.recs
                    )
                elif "hand_over_twice" in rules and n in s.done:
                    t = t._replace(recs=plus(t.recs, n))
                yield f"R{r} hands c{n} over", t._replace(journal=put(t.journal, r, t.journal[r][1:]))
                if self.has(s, "ack"):
                    yield f"R{r} hands c{n} over and hears no answer", self.use(t, "ack")
            for kind in ("crash", "wipe"):
                if self.has(s, kind) and (s.mem[r][0] or s.journal[r]):
                    t = self.use(s, kind)
                    journal = s.journal[r] if kind == "crash" else ()
                    whole = s.lease[r] if s.mode[0] == "ok" and known else 0
                    lost = whole - len([n for n in journal if n not in s.recs and n not in s.done])
                    t = t._replace(mem=put(t.mem, r, (0, 0, known)), journal=put(t.journal, r, journal))
                    if lost > 0:
                        old = t.dead[r][0] if t.dead[r] else 0
                        t = t._replace(lease=put(t.lease, r, t.lease[r] - lost), dead=put(t.dead, r, (lost + old, 0)))
                    yield f"R{r} is killed" + (", its journal is gone" if kind == "wipe" else ""), t
            if (
                s.dead[r]
                and (s.dead[r][1] >= QUARANTINE or "no_reclaim_wait" in rules)
                and s.mode[0] == "ok"
                and any(s.link)
            ):
                if self.c.echo:
                    orphans = [
                        job[0]
                        for job in s.jobs
                        if job[1] == r
                        and job[0] not in s.recs
                        and job[0] not in s.done
                        and not any(job[0] in j for j in s.journal)
                    ]
                    t = s._replace(
                        dead=put(s.dead, r, ()), used=s.used + self.c.made * len(orphans), done=plus(s.done, *orphans)
                    )
                else:  # nobody can tell: all of it counts as made
                    t = s._replace(dead=put(s.dead, r, ()), used=s.used + s.dead[r][0])
                yield f"R{r}'s dead lease is accounted for", t
        if any(s.link) and s.mode[0] == "ok":
            for n in s.recs:
                if any(job[0] == n for job in s.jobs):
                    yield (
                        f"c{n} is charged",
                        s._replace(recs=minus(s.recs, n), done=plus(s.done, n), used=s.used + self.c.made),
                    )
                elif s.T > dict(s.ends)[n] + V and not any(x[0] == n for x in s.net):
                    yield f"c{n} is absent: released", s._replace(recs=minus(s.recs, n))
        if s.mode[0] == "wait" and (s.mode[1] >= QUARANTINE or "no_quarantine" in rules) and any(s.link):
            found = [job[0] for job in s.jobs]
            yield (
                "the book is rebuilt from the cloud's list",
                s._replace(mode=("ok",), used=self.c.made * len(found), done=plus((), *found)),
            )

    # --- old -----------------------------------------------------------------------------------------------------

    def succ_old(self, s):
        ids = self.c.creates
        for r in range(self.c.replicas):
            for n in s.todo[:1]:
                if ids.index(ids[n]) < n and (ids.index(ids[n]) in s.todo or s.T < 2):
                    continue  # the same id again: only once the ledger has forgotten it
                t = s._replace(todo=minus(s.todo, n))
                if s.link[r]:
                    known = any(ids[x] == ids[n] for x in s.done)
                    if known:
                        yield f"R{r} sends c{n}: its id is known to the book", self.send(t, n, -1)
                    elif s.used + len(s.recs) + 1 <= self.c.budget:
                        yield f"R{r} reserves c{n} and sends it", self.send(t._replace(recs=plus(t.recs, n)), n, -1)
                elif not self.c.fallback:
                    yield f"R{r} sends c{n} uncounted", self.send(t, n, -1)
                elif len(s.journal[r]) + 1 <= self.c.budget:
                    yield (
                        f"R{r} reserves c{n} in its own book and sends it",
                        self.send(t._replace(journal=put(t.journal, r, plus(t.journal[r], n))), n, -1),
                    )
            if s.link[r] and s.journal[r]:
                yield f"R{r} hands over", s._replace(recs=plus(s.recs, *s.journal[r]), journal=put(s.journal, r, ()))
        if any(s.link):
            for n in s.recs:
                if any(job[0] == n for job in s.jobs):
                    yield (
                        f"c{n} is charged",
                        s._replace(recs=minus(s.recs, n), done=plus(s.done, n), used=s.used + self.c.made),
                    )

    # --- what must hold ------------------------------------------------------------------------------------------

    def check(self, s):
        made = self.c.made * len(s.jobs)
        if made > s.allow:
            return f"EXCEEDED: {made} pages made, {self.c.budget} allowed"
        if s.mode[0] == "ok" and all(known for *_, known in s.mem):
            covered = (
                s.used
                + self.c.made * len(s.recs)
                + self.c.made * sum(len(j) for j in s.journal)
                + (sum(s.lease) + sum(d[0] for d in s.dead if d)) * self.c.made
            )
            if covered < made:
                return f"LOST COUNT: {made} pages made, {covered} counted, reserved or leased"
            quiet = not s.net and not s.recs and not any(s.journal) and not any(s.dead)
            if quiet and (s.used != made if self.c.echo else s.used < made):
                return f"COUNT: {made} pages made, {s.used} counted"
        return ""


FOUR = ("a", "b", "c", "d")
ANY = {"down": 2, "ack": 1, "drop": 1, "crash": 1, "wipe": 1, "flush": 1}
CONFIGS = [
    Cfg("old: each outage has the whole budget again", "old", FOUR, 2, {"down": 1}, 1, tmax=1, expect="EXCEEDED"),
    Cfg("old: one replica, a flapping store", "old", ("a", "b", "c"), 1, {"down": 2}, 2, tmax=1, replicas=1, expect="EXCEEDED"),
    Cfg("old: no book of its own (full disk)", "old", ("a", "b"), 1, {"down": 2}, 2, tmax=1, fallback=False, expect="LOST"),
    Cfg("old: an id that the ledger has forgotten and the book has not", "old", ("a", "a"), 1, {}, 0, tmax=2, expect="EXCEEDED"),
    Cfg("old: the store is emptied", "old", ("a", "b"), 1, {"flush": 1}, 1, tmax=1, expect="LOST"),
    Cfg("new: three creates, budget 2, any two of six faults", "new", ("a", "b", "c"), 2, ANY, 2, tmax=3),
    Cfg("new: outages and lost answers", "new", ("a", "b", "c"), 2, {"down": 2, "ack": 2}, 3, tmax=3),
    Cfg("new: emptied while a replica is cut off", "new", ("a", "b", "c"), 2, {"down": 1, "flush": 1}, 2, tmax=5),
    Cfg("new: killed in an outage, journal kept or lost", "new", ("a", "b", "c"), 2, {"down": 1, "wipe": 1, "crash": 1}, 2, tmax=5),
    Cfg("new: the same without echo (at least all is counted)", "new", ("a", "b"), 2, {"down": 1, "wipe": 1}, 2, tmax=5, echo=False),
    Cfg("new: jobs of two pages, estimated as one", "new", ("a", "b", "c"), 2, {"down": 1}, 1, tmax=3, made=2),
    Cfg("without: end of a lease", "new", ("a", "b"), 2, {"down": 1, "flush": 1}, 2, tmax=5, rules=frozenset({"no_term"}), expect=("EXCEEDED", "LOST")),
    Cfg("without: quarantine of an emptied book", "new", ("a", "b"), 2, {"down": 1, "flush": 1}, 2, tmax=3, rules=frozenset({"no_quarantine"}), expect=("EXCEEDED", "LOST", "COUNT")),
    Cfg("without: knowing what was handed over", "new", ("a", "b"), 2, {"down": 1, "ack": 1}, 2, tmax=3, rules=frozenset({"hand_over_twice"}), expect="COUNT"),
    Cfg("without: quarantine of a dead lease", "new", ("a", "b"), 2, {"down": 1, "wipe": 1}, 2, tmax=4, rules=frozenset({"no_reclaim_wait"}), expect=("EXCEEDED", "LOST", "COUNT")),
]  # fmt: skip


def run(cfg: Cfg) -> tuple[str, int, list[str]]:
    """What breaks first (empty: nothing), the number of states, and the way there."""
    broken, count, trace, _ = explore(Model(cfg))
    return broken, count, trace


def main(names):
    bad = 0
    for cfg in CONFIGS:
        if names and not any(name in cfg.name for name in names):
            continue
        at = time.process_time()
        broken, count, trace = run(cfg)
        as_expected = broken.startswith(cfg.expect) if cfg.expect else not broken
        bad += not as_expected
        print(
            f"{'ok ' if as_expected else 'BAD'} {cfg.name}: {broken or 'holds'} [{count} states, {time.process_time() - at:.1f} s]"
        )
        for n, line in enumerate(trace, 1):
            print(f"      {n}. {line}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
