"""The operator's pages: HTML without scripts, rendered on the server, and headers that forbid scripts."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from datetime import UTC, datetime
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Protocol

from markupsafe import Markup

from docpreview_gateway.telemetry.metrics_snapshot import Interval, Snapshot, snapshot
from docpreview_gateway.telemetry.operator_problems import FAILING, problems
from docpreview_gateway.telemetry.operator_view import view
from docpreview_gateway.telemetry.runbooks import INDEX, Runbooks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from jinja2 import Environment
    from prometheus_client import CollectorRegistry

    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.telemetry.readiness import Dependency
    from docpreview_gateway.telemetry.recent_calls import Recent

SAMPLE_SECONDS = 15.0
SAMPLES = 20
"""Snapshots in memory: rates are of the last five minutes."""

MINUTE_SAMPLES = 5
"""Snapshots back to the last one that is a minute old or more."""

MAX_ID = 200
"""Characters of an id that is searched."""

_FOLDER = files("docpreview_gateway.telemetry")
_STYLE = _FOLDER.joinpath("operator_page.css").read_text()
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class RecentSource(Protocol):
    """Recent calls and failed jobs, of this process or of all workers."""

    async def recent(self, wanted: str = "") -> Recent:
        """What is in memory; `wanted` is the id of a call, a job, a trace or a request of the cloud."""
        ...


class OperatorPage:
    """The page over the metrics of `registry`, the search of calls, and the runbooks.

    Call `sample` every SAMPLE_SECONDS. `unready` and `dependencies` are those of `/readyz`. `refresh` comes before
    metrics are read.
    """

    headers = HEADERS

    def __init__(  # noqa: PLR0913 - where the page's figures come from
        self,
        registry: CollectorRegistry,
        clock: Clock,
        *,
        unready: Callable[[], str | None],
        dependencies: Callable[[], Mapping[str, Dependency]],
        recent: RecentSource,
        refresh: Callable[[], Awaitable[None]] | None = None,
        runbooks: Runbooks | None = None,
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._unready = unready
        self._dependencies = dependencies
        self._recent = recent
        self._refresh = refresh
        self._runbooks = runbooks or Runbooks()
        self._snapshots = deque([Snapshot(clock.now(), {})], SAMPLES + 1)

    async def sample(self) -> None:
        """Take a snapshot. Takes milliseconds."""
        if self._refresh is not None:
            await self._refresh()
        self._snapshots.append(self._snapshot())

    async def html(self, path: str, query: Mapping[str, str]) -> str | None:
        """The page of this path as it is now; None when there is none."""
        if path == "/":
            return await self._overview(reloads=query.get("reload") != "off")
        if path == "/calls":
            return await self._calls(query.get("id", "").strip()[:MAX_ID])
        if path.startswith("/runbooks/"):
            return self._runbook(path.removeprefix("/runbooks/") or INDEX)
        return None

    async def _overview(self, *, reloads: bool) -> str:
        if self._refresh is not None:
            await self._refresh()
        now = self._snapshot()
        span, minute = (
            Interval(self._snapshots[0], now),
            Interval(self._snapshots[-min(MINUTE_SAMPLES, len(self._snapshots))], now),
        )
        page = view(span)
        found = problems(span, page, self._unready(), self._dependencies(), minute=minute)
        recent = await self._recent.recent()
        return self._render(
            "operator_overview.html", page=page, problems=found, recent=recent, reloads=reloads, failing=FAILING
        )

    async def _calls(self, wanted: str) -> str:
        recent = await self._recent.recent(wanted)
        return self._render("operator_calls.html", wanted=wanted, recent=recent)

    def _runbook(self, name: str) -> str | None:
        found = self._runbooks.html(name)
        if found is None:
            return None
        title, text = found
        return self._render("operator_runbook.html", title=title, text=text, is_index=name == INDEX)

    def _render(self, name: str, **values: Any) -> str:  # noqa: ANN401 - what the template names
        shipped = self._runbooks.names
        return self._templates.get_template(name).render(now=self._clock.now(), shipped=shipped, **values)

    @cached_property
    def _templates(self) -> Environment:
        # Imported with the first request for the page: it takes 2 MiB.
        from jinja2 import Environment, FunctionLoader, StrictUndefined  # noqa: PLC0415

        loader = FunctionLoader(lambda name: _FOLDER.joinpath(name).read_text(encoding="utf-8"))
        environment = Environment(
            loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters.update(span=_span, share=_share, rate=_rate, clock=_clock, duration=_duration)
        environment.globals.update(bar=_bar, style=Markup(_STYLE))  # noqa: S704 - a file of ours, and no markup
        return environment

    def _snapshot(self) -> Snapshot:
        families = self._registry.collect()
        samples = ((sample.name, sample.labels, sample.value) for family in families for sample in family.samples)
        return snapshot(self._clock.now(), samples)


def _span(seconds: float) -> str:
    """A duration in its two largest units."""
    rest = int(seconds)
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def _duration(seconds: float | None) -> str:
    """The duration of a call, in milliseconds or seconds."""
    if seconds is None:
        return "-"
    return f"{1000 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"  # noqa: PLR2004 - no 1e+03 ms


def _share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.3g} %"


def _rate(rate: float) -> str:
    return f"{rate:.3g}" if rate < 1000 else f"{rate:.0f}"  # noqa: PLR2004 - no powers of ten for people


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _bar(value: float, most: float, words: str) -> Markup:
    """A bar of the used part."""
    bar = '<meter min="0" max="{}" value="{}" high="{}" optimum="0"></meter><span class="n">{}</span>'
    return Markup(bar).format(  # noqa: S704 - a constant, and format escapes what it is given
        round(most, 3), round(min(value, most), 3), round(0.9 * most, 3), words
    )
