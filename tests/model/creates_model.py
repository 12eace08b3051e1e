"""Explicit-state model of creates: who owns which job, how often a create is billed, what its caller is told.

Breadth-first, so a counterexample is a shortest one. Two designs: "old", that of the ledger of version 1, whose faults
the model shows, and "new", the protocol of docs/creates.md.

    python -m tests.model.creates_model            # everything; exit 1 when something is not as expected
    python -m tests.model.creates_model NAME ...   # some configurations, with traces

One tick is the length of a signature (S) and the longest promised delay of the cloud's list (V). T is the cloud's clock.
Old: everything is judged by the replica's wall clock (T + its offset). New: by the cloud's `Date` and by ticks that
the replica itself has seen pass (its monotonic clock, lost in a crash).
"""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import NamedTuple

S = V = 1
KEEP = 4  # how long an accepted id is promised to be remembered
J = 5  # a clock's jump, or a wrong Date: further than KEEP
WAIT = S + V + 1  # what a replica must have seen pass itself: signature, slack of its start, delay of the list
Q = S + V + 1  # quarantine after the loss of the store
NONE = -99
KINDS = ("drop", "reply", "delay", "crash", "jump", "page", "lie", "lose", "lag")
"""Faults: request lost on its way; reply lost; reply late (the request may arrive any time later); process killed and
restarted; wall clock of one replica jumps by +J, -J or back; list with an empty middle page, or cut (token repeated);
one Date is J ahead; the store is emptied; a job is hidden for longer than V (only to show that this is an assumption)."""


class Cfg(NamedTuple):
    """`ids`: for each request_id the bodies that calls bring, a body being (place, options). `foreign`: bodies of jobs
    that others make without marker, at most one. `faults`: how often each kind may strike, and all together."""

    name: str
    design: str
    ids: tuple
    calls: tuple
    faults: dict
    total: int
    tmax: int = 6
    foreign: tuple = ()
    echo: bool = True
    exclusive: bool = False
    loop: bool = True  # background loops: finding out and forgetting without a caller
    rules: frozenset = frozenset()  # old: faults that it has; new: rules that are left out
    expect: str = ""  # "" or the invariant that must break


class St(NamedTuple):
    T: int
    reps: tuple  # of (wall offset, belief about the cloud's clock, operation, what was seen since when)
    store: tuple  # a record or None for each id
    mode: tuple  # ("ok",) | ("lost",) not noticed yet | ("wait", ticks since noticed) | ("blind",)
    jobs: tuple  # (id or -1, life, attempt, body, created, delay of the list), as created
    net: tuple  # requests on their way: (id, attempt, body, signature's end, life)
    told: tuple  # for each id: sorted ((life, job, body of the call), ...)
    calls: tuple
    left: tuple  # of each fault, and of all
    absent: tuple  # attempts that were concluded to have no job
    foreign: int
    life: tuple  # for each id: how often it was rightly forgotten
    att: int  # next attempt's nonce
    final: tuple  # for each id: was told a final answer without a job


def put(values, i, value):
    return values[:i] + (value,) + values[i + 1 :]


class Model:
    def __init__(self, cfg: Cfg):
        self.c = cfg
        self.n = len(cfg.ids)
        self.new = cfg.design == "new"
        self.free = False  # a fair continuation: no bounds

    def tidy(self, s: St) -> St:
        return tidy(s)

    def initial(self) -> St:
        n = self.n
        rep = (0, NONE, (), ((),) * n)
        left = tuple(self.c.faults.get(k, 0) for k in KINDS) + (self.c.total,)
        return St(0, (rep, rep), (None,) * n, ("ok",), (), (), ((),) * n, self.c.calls, left, (), int(bool(self.c.foreign)),
                  (0,) * n, 0, (False,) * n)  # fmt: skip

    # --- helpers -------------------------------------------------------------------------------------------------

    def has(self, s: St, kind: str) -> bool:
        return s.left[-1] > 0 and s.left[KINDS.index(kind)] > 0

    def use(self, s: St, kind: str) -> St:
        i = KINDS.index(kind)
        return s._replace(left=put(put(s.left, i, s.left[i] - 1), len(KINDS), s.left[-1] - 1))

    def op(self, s: St, r: int, op) -> St:
        off, est, _, seen = s.reps[r]
        if op:  # whoever works on an attempt has seen it
            i, att = op[0], op[2]
            if not seen[i] or seen[i][0] != att:
                seen = put(seen, i, (att, 0))
        return s._replace(reps=put(s.reps, r, (off, est, op, seen)))

    def heard(self, s: St, r: int, date_error: int) -> St:
        off, _, op, seen = s.reps[r]
        return s._replace(reps=put(s.reps, r, (off, date_error, op, seen)))

    def tell(self, s: St, i: int, job: int, body) -> St:
        entry = (max(s.jobs[job][1], 0), job, body)
        return s if entry in s.told[i] else s._replace(told=put(s.told, i, tuple(sorted((*s.told[i], entry)))))

    def visible(self, s: St):
        return [k for k, j in enumerate(s.jobs) if s.T >= j[4] + j[5]]

    def marked(self, s: St, k: int):
        """The id whose marker the list shows for a job, or None."""
        return s.jobs[k][0] if self.c.echo and s.jobs[k][0] >= 0 else None

    # --- successors ----------------------------------------------------------------------------------------------

    def succ(self, s: St):
        c = self.c
        if s.T < c.tmax:
            yield "one tick passes", self.tick(s)
        for i in range(self.n):
            if s.calls[i] > 0:
                for r, rep in enumerate(s.reps):
                    if not rep[2]:
                        for body in c.ids[i]:
                            t = s._replace(calls=put(s.calls, i, s.calls[i] - 1))
                            if not self.new or rep[1] != NONE:
                                yield f"call id{i} {body} at R{r}", self.begin(t, r, i, body)
                                continue
                            # Nothing is signed before the cloud's Date was heard: a read comes first.
                            yield f"call id{i} {body} at R{r}", self.begin(self.heard(t, r, 0), r, i, body)
                            if self.has(t, "lie"):
                                t = self.heard(self.use(t, "lie"), r, J)
                                yield f"call id{i} {body} at R{r} (Date {J:+d})", self.begin(t, r, i, body)
            rec = s.store[i]
            if rec is not None and rec[0] in "OSU" and c.loop:
                for r, rep in enumerate(s.reps):
                    if not rep[2] and not any(x[2] and x[2][0] == i for x in s.reps) and self.takes(s, r, i):
                        yield f"R{r}'s loop looks for id{i}", self.take(s, r, i, rec[1], background=True)
            if self.new and rec is not None and rec[0] == "A" and c.loop:
                yield from self.purge_look(s, i)
        for r, rep in enumerate(s.reps):
            if rep[2]:
                yield from self.step(s, r, rep[2])
                if self.has(s, "crash"):
                    yield f"R{r} is killed and restarted", self.crash(self.use(s, "crash"), r)
            if self.has(s, "jump"):
                for to in (0, J, -J):
                    if to != rep[0]:
                        t = self.use(s, "jump")
                        yield f"wall clock of R{r} jumps to {to:+d}", t._replace(reps=put(t.reps, r, (to, *rep[1:])))
        for request in s.net:
            yield from self.arrive(s, request)
            if self.has(s, "drop"):
                t = self.use(s, "drop")
                yield f"request of attempt {request[1]} is lost", t._replace(net=self.without(t, request))
        if s.foreign:
            for body in c.foreign:
                job = (-1, 0, -1, body, s.T, 0)
                yield f"others make unmarked job j{len(s.jobs)} {body}", s._replace(jobs=(*s.jobs, job), foreign=0)
        if self.has(s, "lose"):
            t = self.use(s, "lose")
            yield "the store is emptied", t._replace(store=(None,) * self.n, mode=("lost",) if self.new else ("ok",))

    def tick(self, s: St) -> St:
        reps = tuple(
            (off, est, op, tuple((x[0], min(x[1] + 1, WAIT)) if x else x for x in seen))
            for off, est, op, seen in s.reps
        )
        store = s.store
        if self.new:
            store = tuple(x if x is None or x[0] != "A" or x[4] is None else (*x[:4], min(x[4] + 1, 1)) for x in store)
        mode = ("wait", min(s.mode[1] + 1, Q)) if s.mode[0] == "wait" else s.mode
        return s._replace(T=s.T + 1, reps=reps, store=store, mode=mode)

    def crash(self, s: St, r: int) -> St:
        mode = ("wait", 0) if s.mode[0] == "wait" else s.mode
        return s._replace(reps=put(s.reps, r, (s.reps[r][0], NONE, (), ((),) * self.n)), mode=mode)

    def without(self, s: St, request):
        return tuple(x for x in s.net if x != request)

    def arrive(self, s: St, request):
        """The cloud gets a request: accepts it inside its signature's window, else refuses it."""
        i, att, body, end, life = request
        t = s._replace(net=self.without(s, request))
        waiting = [r for r, rep in enumerate(s.reps) if rep[2] and rep[2][1] == "wait" and rep[2][2] == att]
        if not end - S - 1 <= s.T <= end and "late_accept" not in self.c.rules:
            for r in waiting:  # the refusal frees the record, and its Date is learned
                rec = t.store[i]
                if rec is not None and rec[0] in "OS" and rec[2] == att:
                    t = t._replace(store=put(t.store, i, None))
                t = self.op(self.heard(t, r, 0), r, ())
            yield f"attempt {att} is refused by its signature", t
            return
        lags = [0, V] + ([V + 2] if self.has(t, "lag") else [])
        for lag in lags:
            u = self.use(t, "lag") if lag > V else t
            k = len(u.jobs)
            u = u._replace(jobs=(*u.jobs, (i, life, att, body, u.T, lag)))
            what = f"cloud accepts attempt {att} of id{i} as j{k}" + (f", listed {lag} later" if lag else "")
            if not waiting:
                yield what, u
                continue
            r = waiting[0]
            yield what, self.op(self.heard(u, r, 0), r, (i, "got", att, body, k))
            if self.has(u, "reply"):
                w = self.use(u, "reply")
                yield what + ", reply lost", self.op(w, r, (i, "list", att, body, False))

    def step(self, s: St, r: int, op):
        i, pc, att, body, arg = op
        rec = s.store[i]
        mine = rec is not None and rec[0] in "OSUI" and rec[2] == att
        if pc == "intent":  # old only: SENT is committed
            if mine:
                wall = s.T + s.reps[r][0]
                sent = ("S", body, att, wall, wall + S, r)
                yield (
                    f"R{r} writes SENT",
                    self.op(s._replace(store=put(s.store, i, sent)), r, (i, "send", att, body, -1)),
                )
            else:
                yield f"R{r}: no longer its own", self.op(s, r, ())
        elif pc == "send":
            end = arg if self.new else rec[4] if mine else s.T + s.reps[r][0] + S
            net = tuple(sorted((*s.net, (i, att, body, end, s.life[i]))))
            yield f"R{r} sends attempt {att}", self.op(s._replace(net=net), r, (i, "wait", att, body, -1))
        elif pc == "wait":
            there = any(x[1] == att for x in s.net)
            if not there or self.has(s, "delay"):
                t = self.use(s, "delay") if there else s
                yield f"R{r} has no reply in time", self.op(t, r, (i, "list", att, body, False))
        elif pc == "got":
            yield f"R{r} writes ACCEPTED", self.op(self.accept(s, r, i, att, body, arg), r, (i, "tell", att, body, arg))
        elif pc == "tell":
            yield f"caller of id{i} is told j{arg}", self.op(self.tell(s, i, arg, body), r, ())
        elif pc == "list":
            yield from (self.look_new if self.new else self.look_old)(s, r, op)
        elif pc == "absent":
            if arg:  # the loop frees what nobody asks for
                t = s._replace(store=put(s.store, i, None)) if mine else s
                yield f"R{r} frees id{i}", self.op(t, r, ())
            elif mine or "no_cas" in self.c.rules:
                yield f"R{r} starts a new attempt of id{i}", self.open(s, r, i, body)
            else:
                yield f"R{r}: somebody was faster", self.op(s, r, ())
        elif pc == "scan":
            yield from self.scan(s, r)

    def accept(self, s: St, r: int, i: int, att: int, body, k: int) -> St:
        rec = s.store[i]
        if rec is None or rec[0] == "A" or rec[2] != att:
            return s
        if self.new:
            return s._replace(store=put(s.store, i, ("A", body, k, s.jobs[k][4] + KEEP, None)))
        return s._replace(store=put(s.store, i, ("A", body, k, s.T + s.reps[r][0] + KEEP, None)))

    # --- the old design ------------------------------------------------------------------------------------------

    def takes(self, s: St, r: int, i: int) -> bool:
        """Old: a record may be taken over when its owner does not work on it any more (its lease, at its best)."""
        rec = s.store[i]
        return self.new or not s.reps[rec[5]][2] or s.reps[rec[5]][2][0] != i

    def take(self, s: St, r: int, i: int, body, background: bool) -> St:
        rec = s.store[i]
        if not self.new:
            s = s._replace(store=put(s.store, i, (*rec[:5], r)))
        return self.op(s, r, (i, "list", rec[2], body, background))

    def begin(self, s: St, r: int, i: int, body) -> St:
        if self.new:
            return self.begin_new(s, r, i, body)
        wall = s.T + s.reps[r][0]
        if "wall_purge" in self.c.rules:  # all that has expired by the wall clock is deleted
            life = s.life
            for n, rec in enumerate(s.store):
                if rec is not None and rec[0] == "A" and rec[3] <= wall:
                    right = s.T >= s.jobs[rec[2]][4] + KEEP
                    life = put(life, n, life[n] + right)
                    s = s._replace(store=put(s.store, n, None), life=life)
        rec = s.store[i]
        if rec is None:
            t = s._replace(store=put(s.store, i, ("I", body, s.att, 0, 0, r)), att=s.att + 1)
            return self.op(t, r, (i, "intent", s.att, body, -1))
        if rec[1] != body:
            return s  # REQUEST_ID_REUSED
        if rec[0] == "A":
            return self.op(s, r, (i, "tell", -1, body, rec[2]))
        if not self.takes(s, r, i):
            return s  # CREATE_IN_PROGRESS
        if rec[0] == "I":
            t = s._replace(store=put(s.store, i, (*rec[:5], r)))
            return self.op(t, r, (i, "intent", rec[2], body, -1))
        return self.take(s, r, i, body, background=False)

    def look_old(self, s: St, r: int, op):
        i, _, att, body, background = op
        rec = s.store[i]
        if rec is None or rec[0] not in "SU" or rec[2] != att:
            yield f"R{r}: no longer its own", self.op(s, r, ())
            return
        alone = not any(n != i and x is not None and x[0] != "A" and x[1][0] == body[0] for n, x in enumerate(s.store))
        listed = self.visible(s)
        cuts = [None] + (list(range(len(listed))) if "empty_is_end" in self.c.rules and self.has(s, "page") else [])
        for cut in cuts:
            t, part = s, listed
            if cut is not None:
                t, part = self.use(s, "page"), listed[:cut]
            text = f"R{r} lists" + ("" if cut is None else f" (empty page after {cut} jobs taken for the end)")
            strong = [k for k in part if self.marked(s, k) == i]
            weak = [k for k in part if alone and self.marked(s, k) is None and s.jobs[k][3][0] == body[0]]
            if "weak" not in self.c.rules:
                found = strong
            elif "first_match" in self.c.rules:
                found = sorted(strong + weak)
            else:
                found = strong or weak
            if found:
                u = self.accept(t, r, i, att, body, found[0])
                yield (
                    f"{text}: j{found[0]} is taken",
                    self.op(u, r, () if background else (i, "tell", -1, body, found[0])),
                )
            elif s.T + s.reps[r][0] > rec[4] and abs(s.reps[r][0]) < J:
                u = t._replace(absent=tuple(sorted((*t.absent, att))))
                yield f"{text}: certainly absent", self.op(u, r, (i, "absent", att, body, background))
            else:
                yield f"{text}: unknown", self.op(t, r, ())

    # --- the new design ------------------------------------------------------------------------------------------

    def open(self, s: St, r: int, i: int, body) -> St:
        """OPEN is committed (a new record, or the next attempt of a proven absent one): the window is fixed from here."""
        est = s.reps[r][1]
        if self.new:
            end = s.T + est + S
            t = s._replace(store=put(s.store, i, ("O", body, s.att, end - S - 1, end)), att=s.att + 1)
            return self.op(t, r, (i, "send", s.att, body, end))
        t = s._replace(store=put(s.store, i, ("I", body, s.att, 0, 0, r)), att=s.att + 1)
        return self.op(t, r, (i, "intent", s.att, body, -1))

    def begin_new(self, s: St, r: int, i: int, body) -> St:
        if s.mode[0] == "lost":
            if "no_scan" in self.c.rules:
                s = s._replace(mode=("ok",))
            else:
                return s._replace(mode=("wait", 0))  # the generation is another: LEDGER_UNAVAILABLE, quarantine begins
        if s.mode[0] == "wait":
            if "no_rebuild" in self.c.rules:
                return s
            if s.mode[1] >= Q or "no_quarantine" in self.c.rules:
                return self.op(s, r, (i, "scan", -2, body, -1))
            return s
        if s.mode[0] == "blind":
            return s._replace(final=put(s.final, i, True))
        rec = s.store[i]
        if rec is None:
            return self.open(s, r, i, body)
        if rec[1] != body:
            return s  # REQUEST_ID_REUSED
        if rec[0] == "A":
            return self.op(s, r, (i, "tell", -1, body, rec[2]))
        return self.take(s, r, i, body, background=False)

    def lists(self, s: St, r: int):
        """What a list may look like: (text, state, jobs, complete, error of its Date)."""
        listed = self.visible(s)
        yield "", self.heard(s, r, 0), listed, True, 0
        if self.has(s, "page"):
            for cut in range(len(listed) + 1):
                yield f" (cut after {cut})", self.use(s, "page"), listed[:cut], "cut_is_end" in self.c.rules, 0
        if self.has(s, "lie"):
            yield f" (Date {J:+d})", self.heard(self.use(s, "lie"), r, J), listed, True, J

    def look_new(self, s: St, r: int, op):
        i, _, att, body, background = op
        rec, rules = s.store[i], self.c.rules
        if rec is None or rec[0] == "A" or rec[2] != att:
            done = () if rec is None or rec[0] != "A" or background or rec[1] != body else (i, "tell", -1, body, rec[2])
            yield f"R{r}: id{i} was decided meanwhile", self.op(s, r, done)
            return
        start, end = rec[3], rec[4]
        bound = {x[2] for x in s.store if x is not None and x[0] == "A"}
        for text, t, part, complete, error in self.lists(s, r):
            text = f"R{r} lists{text}"
            inside = [k for k in part if start <= s.jobs[k][4] <= end]
            ours = [k for k in inside if self.marked(s, k) == i and s.jobs[k][3] == body]
            if ours:
                u = self.accept(t, r, i, att, body, ours[0])
                yield (
                    f"{text}: j{ours[0]} has the marker",
                    self.op(u, r, () if background else (i, "tell", -1, body, ours[0])),
                )
                continue
            seen = t.reps[r][3][i]
            waited = "no_mono" in rules or (
                seen and seen[0] == att and seen[1] >= (S + V if "short_mono" in rules else WAIT)
            )
            over = ("no_date" in rules or s.T + error > end) and waited
            if "no_fence" not in rules and not (complete and over):
                yield f"{text}: unknown", self.op(t, r, ())
                continue
            if not complete:
                yield f"{text}: unknown", self.op(t, r, ())
                continue
            proven = any(self.marked(s, k) is not None for k in part)
            maybe = (
                []
                if proven
                else [k for k in inside if self.marked(s, k) is None and s.jobs[k][3] == body and k not in bound]
            )
            others = any(n != i and x is not None and x[0] == "O" and x[1] == body for n, x in enumerate(s.store))
            if len(maybe) == 1 and not others and (self.c.exclusive or "adopt" in rules):
                u = self.accept(t, r, i, att, body, maybe[0])
                yield (
                    f"{text}: j{maybe[0]} is the only one it can be",
                    self.op(u, r, () if background else (i, "tell", -1, body, maybe[0])),
                )
            elif maybe:
                u = t if background else t._replace(final=put(t.final, i, True))
                yield f"{text}: ambiguous", self.op(u, r, ())
            else:
                u = t._replace(absent=tuple(sorted((*t.absent, att))))
                yield f"{text}: certainly absent", self.op(u, r, (i, "absent", att, body, background))

    def scan(self, s: St, r: int):
        """After a loss and its quarantine: what the cloud's list shows of us goes back into the store."""
        for text, t, part, complete, _ in self.lists(s, r):
            if s.mode[0] != "wait" or not complete:
                yield f"R{r} scans{text}: not complete", self.op(t, r, ())
                continue
            if not self.c.echo:
                yield f"R{r} scans: the list shows no markers", self.op(t._replace(mode=("blind",)), r, ())
                continue
            store = list(t.store)
            for k in part:
                i = self.marked(t, k)
                if i is not None and t.jobs[k][1] == t.life[i]:  # by its creation time, in the real one
                    store[i] = store[i] or ("A", t.jobs[k][3], k, t.jobs[k][4] + KEEP, None)
            yield f"R{r} scans{text}: store rebuilt", self.op(t._replace(store=tuple(store), mode=("ok",)), r, ())

    def purge_look(self, s: St, i: int):
        """Two looks, a while apart, at the cloud's Date. Our own clocks have no say."""
        rec = s.store[i]
        for error in (0, J) if self.has(s, "lie") else (0,):
            t = self.use(s, "lie") if error else s
            text = f"look at the age of id{i}" + (f" (Date {J:+d})" if error else "")
            if s.T + error < rec[3]:
                if rec[4] is not None:
                    yield text + ": young", t._replace(store=put(t.store, i, (*rec[:4], None)))
            elif rec[4] is None and "one_look" not in self.c.rules:
                yield text + ": old, once", t._replace(store=put(t.store, i, (*rec[:4], 0)))
            elif "one_look" in self.c.rules or rec[4] >= 1:
                right = s.T >= s.jobs[rec[2]][4] + KEEP
                u = t._replace(store=put(t.store, i, None), life=put(t.life, i, t.life[i] + right))
                yield text + ": forgotten", u

    # --- what must hold ------------------------------------------------------------------------------------------

    def check(self, s: St) -> str:
        made = {}
        for job in s.jobs:
            if job[0] >= 0:
                made[job[:2]] = made.get(job[:2], 0) + 1
                if job[2] in s.absent:
                    return "ABSENT: an attempt that was concluded absent has a job"
        if any(count > 1 for count in made.values()):
            return "TWICE: an id has two jobs"
        for i, entries in enumerate(s.told):
            per_life = {}
            for life, k, body in entries:
                if s.jobs[k][0] != i or s.jobs[k][3] != body:
                    return "OTHERS: an id was told a job that was not made for it"
                if per_life.setdefault(life, k) != k:
                    return "TWO ANSWERS: an id was told two jobs"
        return ""

    def fair(self, s: St, good: set) -> bool:
        """From here on nothing fails, callers repeat, time passes, and what is lost on the way stays lost."""
        path = []
        calm = s._replace(left=(0,) * len(s.left), foreign=0)
        asked = True
        for _ in range(120):
            if calm in good:
                break
            path.append(calm)
            r = next((r for r, rep in enumerate(calm.reps) if rep[2]), None)
            if r is not None:
                op = calm.reps[r][2]
                on_way = next((x for x in calm.net if x[1] == op[2]), None) if op[1] == "wait" else None
                if on_way is not None:
                    calm = next(iter(self.arrive(calm, on_way)))[1]
                else:
                    calm = next(iter(self.step(calm, r, op)))[1]
                continue
            open_ids = [i for i in range(self.n) if calm.calls[i] < self.c.calls[i] and not self.decided(calm, i)]
            if not open_ids:
                break
            asked = not asked
            if asked:
                calm = self.tick(calm)
            else:
                i = open_ids[0]
                calm = self.begin(self.heard(calm, 0, 0), 0, i, calm.store[i][1] if calm.store[i] else self.c.ids[i][0])
        else:
            return False
        good.update(path)
        return True

    def decided(self, s: St, i: int) -> bool:
        return s.final[i] or any(life == s.life[i] for life, _, _ in s.told[i])


def explore(model, cap=3_000_000, canonical=None):
    """(invariant or "", number of states, trace, the states)."""
    start = model.initial()
    came = {start: None}
    todo = deque([start])
    while todo:
        s = todo.popleft()
        for label, t in model.succ(s):
            t = model.tidy(t)
            if canonical is not None:
                t = canonical(t)
            if t in came:
                continue
            came[t] = (s, label)
            broken = model.check(t)
            if broken:
                trace = []
                while came[t] is not None:
                    t, label = came[t]
                    trace.append(label)
                return broken, len(came), trace[::-1], came
            if len(came) > cap:
                raise SystemExit(f"more than {cap} states")
            todo.append(t)
    return "", len(came), [], came


def tidy(s: St) -> St:
    """Forgets what can matter no more: a delay that is over, an attempt of which no request can come any more."""
    if any(j[5] and s.T >= j[4] + j[5] for j in s.jobs):
        s = s._replace(jobs=tuple((*j[:5], 0) if s.T >= j[4] + j[5] else j for j in s.jobs))
    if s.absent:
        coming = (
            {x[1] for x in s.net}
            | {j[2] for j in s.jobs}
            | {rep[2][2] for rep in s.reps if rep[2] and rep[2][1] in ("send", "wait")}
        )
        s = s._replace(absent=tuple(a for a in s.absent if a in coming))
    current = {rec[2] for rec in s.store if rec is not None and rec[0] in "OSUI"}
    if any(x and x[0] not in current for rep in s.reps for x in rep[3]):
        s = s._replace(
            reps=tuple((*rep[:3], tuple(x if x and x[0] in current else () for x in rep[3])) for rep in s.reps)
        )
    return s


def swap_new(s: St) -> St:
    """Replicas are equal (in the new design no record names one): keep one of each pair of mirror images."""
    a, b = s.reps
    return s._replace(reps=(b, a)) if b < a else s


X1, X2, Y1 = ("P", 1), ("P", 2), ("R", 1)
ONE, TWO = ((X1,),), ((X1,), (X1,))
OLD = [
    Cfg("old: any unmarked job of the same place is ours", "old", ((X1,),), (2,), {"drop": 1}, 1, foreign=(X2,), rules=frozenset({"weak"}), expect="OTHERS"),
    Cfg("old: the first match of the list beats the marker", "old", ((X1,),), (2,), {"reply": 1}, 1, foreign=(X2,), rules=frozenset({"weak", "first_match"}), expect="OTHERS"),
    Cfg("old: no echo, two callers, one output", "old", ((X1,), (X2,)), (1, 1), {"drop": 1}, 1, echo=False, rules=frozenset({"weak"}), expect="OTHERS"),
    Cfg("old: an empty page is the end of the list", "old", ((X1,),), (3,), {"reply": 1, "page": 2}, 3, rules=frozenset({"empty_is_end"}), expect="ABSENT"),
    Cfg("old: purge by wall clock", "old", ((X1,),), (3,), {"jump": 1}, 1, rules=frozenset({"wall_purge"}), expect="TWICE"),
    Cfg("old: the store is emptied", "old", ((X1,),), (2,), {"lose": 1}, 1, expect="TWICE"),
]  # fmt: skip
NET = {"drop": 1, "reply": 1, "delay": 1, "crash": 1}
ALL = {"drop": 1, "reply": 1, "delay": 1, "crash": 1, "page": 1, "lie": 1, "lose": 1}
NEW = [
    Cfg("new: one id, any two faults of seven kinds", "new", ONE, (2,), ALL, 2, tmax=4),
    Cfg("new: one id, three faults on the way", "new", ONE, (2,), {"drop": 2, "reply": 2, "delay": 2, "crash": 1}, 3, tmax=4),
    Cfg("new: one id and a foreign job of the same body", "new", ONE, (2,), {**NET, "page": 1}, 2, tmax=4, foreign=(X1,), loop=False),
    Cfg("new: two callers, one place, equal bodies", "new", TWO, (2, 1), {"drop": 1, "reply": 1}, 1, tmax=4, loop=False),
    Cfg("new: two callers, one place, a wrong Date", "new", ((X1,), (X2,)), (1, 1), {"delay": 1, "lie": 1}, 2, tmax=4, loop=False),
    Cfg("new: signed ahead by a wrong Date, late request", "new", ONE, (2,), {"delay": 1, "lie": 1}, 2, tmax=9, loop=False),
    Cfg("new: no echo, two callers, one place", "new", TWO, (1, 1), {"drop": 1, "reply": 1}, 1, tmax=4, echo=False, loop=False),
    Cfg("new: no echo, a foreign job of the same body", "new", ONE, (2,), NET, 2, tmax=4, foreign=(X1,), echo=False, loop=False),
    Cfg("new: no echo, a place of our own", "new", ONE, (2,), {**NET, "page": 1}, 2, tmax=4, echo=False, exclusive=True),
    Cfg("new: no echo, a place of our own, two callers", "new", TWO, (2, 1), {"drop": 1, "reply": 1}, 1, tmax=4, echo=False, exclusive=True, loop=False),
    Cfg("new: one id with two bodies", "new", ((X1, X2),), (2,), {**NET, "lose": 1}, 2, tmax=4),
    Cfg("new: store emptied twice", "new", ONE, (3,), {"delay": 1, "crash": 1, "lose": 2}, 2, tmax=6, loop=False),
    Cfg("new: no echo, store emptied", "new", ONE, (3,), {"reply": 1, "crash": 1, "lose": 1}, 2, tmax=5, echo=False, loop=False),
    Cfg("new: forgotten and used again, a wrong Date, a jump", "new", ONE, (2,), {"lie": 1, "jump": 1, "reply": 1}, 2, tmax=6),
]  # fmt: skip
WITHOUT = [
    Cfg("without: fence", "new", ONE, (2,), {"delay": 1}, 1, rules=frozenset({"no_fence"}), expect="ABSENT"),
    Cfg("without: own waiting time beside the Date", "new", ONE, (2,), {"delay": 1, "lie": 1}, 2, rules=frozenset({"no_mono"}), expect="ABSENT"),
    Cfg("without: the Date beside the own waiting time", "new", ONE, (2,), {"delay": 1, "lie": 1}, 2, tmax=6, loop=False, rules=frozenset({"no_date"}), expect="ABSENT"),
    Cfg("without: reading lists to the end", "new", ONE, (2,), {"reply": 1, "page": 2}, 3, rules=frozenset({"cut_is_end"}), expect="ABSENT"),
    Cfg("without: second look before forgetting", "new", ONE, (2,), {"lie": 1}, 1, rules=frozenset({"one_look"}), expect="TWICE"),
    Cfg("without: place of our own, yet adopting", "new", ONE, (2,), {"drop": 1}, 1, foreign=(X1,), echo=False, rules=frozenset({"adopt"}), expect="OTHERS"),
    Cfg("without: compare-and-set of the attempt", "new", ONE, (3,), {"drop": 1}, 1, rules=frozenset({"no_cas"}), expect="TWICE"),
    Cfg("without: noticing that the store is empty", "new", ONE, (2,), {"lose": 1}, 1, rules=frozenset({"no_scan"}), expect="TWICE"),
    Cfg("without: quarantine before the scan", "new", ONE, (4,), {"lose": 1, "crash": 1}, 2, rules=frozenset({"no_quarantine"}), expect="TWICE"),
    Cfg("without: rebuilding an emptied store", "new", ONE, (1,), {"lose": 1}, 1, tmax=2, rules=frozenset({"no_rebuild"}), expect="STUCK"),
    Cfg("assumption: the cloud refuses what is signed for another time", "new", ONE, (2,), {"delay": 1}, 1, loop=False, rules=frozenset({"late_accept"}), expect="ABSENT"),
    Cfg("assumption: one wrong Date at most", "new", ONE, (2,), {"delay": 1, "lie": 2}, 3, tmax=6, loop=False, expect="ABSENT"),
    Cfg("assumption: no list lags by more than V", "new", ONE, (2,), {"reply": 1, "lag": 1}, 2, expect="ABSENT"),
]  # fmt: skip


def run(cfg: Cfg) -> tuple[str, int, list[str]]:
    """What breaks first (STUCK: an id stays unknown for ever; empty: nothing), the number of states, and the way there."""
    model = Model(cfg)
    broken, count, trace, came = explore(model, canonical=swap_new if cfg.design == "new" else None)
    if broken or cfg.design != "new":
        return broken, count, trace
    good: set = set()
    model.free = True
    for s in came:
        if not model.fair(s, good):
            path, t = [], s
            while came[t] is not None:
                t, label = came[t]
                path.append(label)
            return "STUCK", count, path[::-1]
    return "", count, []


def main(names) -> int:
    bad = 0
    for cfg in OLD + NEW + WITHOUT:
        if names and not any(name in cfg.name for name in names):
            continue
        at = time.process_time()
        broken, count, trace = run(cfg)
        as_expected = broken.startswith(cfg.expect) if cfg.expect else not broken
        bad += not as_expected
        verdict = broken or "holds, every id is decided"
        print(
            f"{'ok ' if as_expected else 'BAD'} {cfg.name}: {verdict} [{count} states, {time.process_time() - at:.1f} s]"
        )
        for n, line in enumerate(trace, 1):
            print(f"      {n}. {line}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
