"""The emulator's page: HTML that is rendered on the server, and headers that keep scripts of documents out.

What it shows are the tables of the backend, newest first and a page at a time. Nothing secret is shown: passwords of
documents, signatures, tokens and the paths of callback addresses are masked.
"""

import asyncio
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from docpreview_emulator.backend import Backend
from docpreview_emulator.errors import ControlError
from docpreview_emulator.faults import MEANINGS, Fault, Kind, Operation, fitting, takes_seconds
from docpreview_emulator.model import Bucket, Job, State
from docpreview_emulator.recording import MOST_REPLY, RequestRecord, masked_address, masked_text
from docpreview_emulator.requests import DEFAULTS

if TYPE_CHECKING:
    from jinja2 import Environment

MOST_ROWS = 20
"""Jobs, requests and callbacks of one page."""

MOST_OF_CARD = 6
"""Page images of a job of the overview."""

MOST_CARDS = 200
"""Jobs of the overview that are kept in memory."""

MOST_PICTURES = 60
"""Page images of one page of a job."""

FIRST_BUCKET = Bucket("examplebucket-1250000000", "ap-chongqing")
"""Where documents are uploaded to before there is a job."""

_FOLDER = files("docpreview_emulator")
STATIC = {
    name: (_FOLDER.joinpath(name).read_bytes(), kind)
    for name, kind in {"page.css": "text/css", "page.js": "text/javascript", "page.svg": "image/svg+xml"}.items()
}
"""Files of the page with their types."""

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_TONES = {State.SUCCESS: "good", State.FAILED: "bad", State.RUNNING: "warn"}


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a long list: the rows `first` to `first + len(rows)`, and the numbers of the pages around it."""

    rows: list[Any]
    number: int
    size: int
    total: int

    @property
    def newer(self) -> int | None:
        """The page before this one."""
        return self.number - 1 if self.number > 1 else None

    @property
    def older(self) -> int | None:
        """The page after this one."""
        return self.number + 1 if self.number * self.size < self.total else None


@dataclass(frozen=True, slots=True)
class Card:
    """A job of the overview: its first images, and how many it has."""

    job: Job
    pictures: "list[Picture]"
    count: int


class Page:
    """The overview and the page of a job, as they are now."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        # The results of long documents take milliseconds to read, and the page is asked for once a second.
        self._card = lru_cache(MOST_CARDS)(self._read_card)

    async def overview(self, query: Mapping[str, str], address: str, health: Mapping[str, object]) -> str:
        """The page `/`; `query` has the numbers of the parts of its lists, and the state of jobs that are shown."""
        return await asyncio.to_thread(self._overview, query, address, health)

    def _overview(self, query: Mapping[str, str], address: str, health: Mapping[str, object]) -> str:
        backend = self._backend
        state = query.get("state", "")
        counts = backend.jobs.counts()
        jobs = self._jobs(query, state if state in set(State) else "", counts)
        records, sent = backend.recorder.all(), list(backend.callbacks.records)
        latest = [self._card(*found).job for found in backend.jobs.newest(1, 0)]
        return self._render(
            "page_overview.html",
            jobs=jobs,
            counts={state: counts.get(state, 0) for state in State if counts.get(state)},
            state=state,
            holds=backend.scheduler.holds,
            paused=backend.queues.paused(),
            requests=_newest(list(enumerate(records, backend.recorder.discarded)), query.get("requests")),
            callbacks=_newest(list(enumerate(sent)), query.get("callbacks")),
            faults=backend.faults.active(),
            kinds={kind: (MEANINGS[kind], fitting(kind), takes_seconds(kind)) for kind in Kind},
            operations=list(Operation),
            bucket=latest[0].bucket if latest else FIRST_BUCKET,
            address=address,
            health=health,
            offset=backend.clock.offset_seconds,
            parts={name: query[name] for name in ("state", "jobs", "requests", "callbacks") if query.get(name)},
        )

    def _jobs(self, query: Mapping[str, str], state: str, counts: Mapping[str, int]) -> Part:
        total = counts.get(state, 0) if state else sum(counts.values())
        number = _number(query.get("jobs"), total, MOST_ROWS)
        found = self._backend.jobs.newest(MOST_ROWS, (number - 1) * MOST_ROWS, state)
        return Part([self._card(*each) for each in found], number, MOST_ROWS, total)

    def _read_card(self, job_id: str, _state: str, _ended: float | None) -> Card:
        """The card of a job, which stays the same until its state or its end changes."""
        job = self._backend.jobs.get(job_id)
        count, pictures = _count(job), _pictures(job, 0, MOST_OF_CARD)
        result = job.result and replace(job.result, pages=())
        return Card(replace(job, result=result), pictures, count)

    async def job(self, job_id: str, query: Mapping[str, str]) -> str | None:
        """The page of one job; None: there is no such job."""
        return await asyncio.to_thread(self._job, job_id, query)

    def _job(self, job_id: str, query: Mapping[str, str]) -> str | None:
        try:
            job = self._backend.jobs.get(job_id)
        except ControlError:
            return None
        total = _count(job)
        number = _number(query.get("pages"), total, MOST_PICTURES)
        rows = _pictures(job, (number - 1) * MOST_PICTURES, MOST_PICTURES)
        return self._render("page_job.html", job=job, pictures=Part(rows, number, MOST_PICTURES, total))

    def missing(self, what: str) -> str:
        """The page that says that something is not there."""
        return self._render("page_missing.html", what=what)

    def _render(self, name: str, **values: Any) -> str:  # noqa: ANN401 - what the template names
        return self._templates.get_template(name).render(now=self._backend.clock.now(), **values)

    @cached_property
    def _templates(self) -> "Environment":
        # Imported with the first request for the page: it takes 2 MiB.
        from jinja2 import Environment, FunctionLoader, StrictUndefined  # noqa: PLC0415

        loader = FunctionLoader(lambda name: _FOLDER.joinpath(name).read_text(encoding="utf-8"))
        environment = Environment(
            loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters.update(
            tone=lambda state: _TONES.get(state, "quiet"),
            document=_document,
            options=_options,
            origin=masked_address,
            time=_time,
            span=_span,
            verdict=_verdict,
            readable=_readable,
            details=_details,
            plain=_plain,
        )
        return environment


@dataclass(frozen=True, slots=True)
class Picture:
    """One output of a job: its position, what it shows, and whether it is an image or a PDF."""

    index: int
    label: str
    is_image: bool


def _document(job: Job) -> str:
    """The name of a job's document."""
    return posixpath.basename(job.spec.input_object.rstrip("/")) or job.spec.input_object


def _count(job: Job) -> int:
    return 0 if job.result is None else len(job.result.pages)


def _pictures(job: Job, first: int, limit: int) -> list[Picture]:
    pages = () if job.result is None else job.result.pages[first : first + limit]
    is_image = job.spec.process["TgtType"].lower() != "pdf"
    return [
        Picture(
            index,
            f"page {page.page_no}" if page.picture_number is None else f"sheet {page.page_no}, {page.picture_number}",
            is_image,
        )
        for index, page in enumerate(pages, first)
    ]


def _readable(text: str) -> str:
    """The first of a body, an element a line, without passwords and without the paths of callback addresses."""
    shown = masked_text(text[:MOST_REPLY]).replace("><", ">\n<")
    return shown if len(text) < MOST_REPLY else f"{shown}\n... cut after {MOST_REPLY} characters"


def _options(job: Job) -> dict[str, str]:
    """The options of a job that are not the defaults."""
    process = job.spec.process
    changed = {name: value for name, value in process.items() if value != DEFAULTS.get(name)}
    return {name: "***" if name == "DocPassword" else value for name, value in changed.items()}


def _verdict(record: RequestRecord) -> tuple[str, str]:
    """What became of a request's signature, and its colour."""
    if not record.signature:
        return "signature not checked", "quiet"
    return (record.signature, "good") if record.signature == "signature valid" else (record.signature, "bad")


def _details(fault: Fault) -> str:
    """The values of a fault that are set, but its kind, its operation and how often it applies."""
    standard = Fault(Kind.GARBAGE)
    names = [field.name for field in fields(Fault) if field.name not in {"kind", "operation", "times"}]
    return ", ".join(f"{name} {value}" for name in names if (value := getattr(fault, name)) != getattr(standard, name))


def _plain(found: object) -> str:
    """A value of JSON in words."""
    if isinstance(found, Mapping):
        return ", ".join(f"{name}: {_plain(value)}" for name, value in found.items())
    return ", ".join(map(_plain, found)) if isinstance(found, list | tuple) else str(found)


def _time(at: float, now: float | None = None) -> str:
    """A time of the emulator's clock, without the day when it is that of `now`."""
    moment = datetime.fromtimestamp(at, UTC)
    if now is not None and moment.date() == datetime.fromtimestamp(now, UTC).date():
        return moment.strftime("%H:%M:%S")
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _span(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _newest(rows: list[Any], wanted: str | None) -> Part:
    """One part of rows that are given oldest first."""
    number = _number(wanted, len(rows), MOST_ROWS)
    newest = rows[::-1][(number - 1) * MOST_ROWS : number * MOST_ROWS]
    return Part(newest, number, MOST_ROWS, len(rows))


def _number(wanted: str | None, total: int, size: int) -> int:
    """The number of a part that exists, next to the one that is wanted."""
    last = max(-(-total // size), 1)
    return min(max(int(wanted), 1), last) if wanted and re.fullmatch("[0-9]{1,9}", wanted) else 1
