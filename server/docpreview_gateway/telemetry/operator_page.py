"""The operator page: HTML without scripts, rendered on the server, and headers that forbid scripts."""

from __future__ import annotations

import base64
import hashlib
from collections import deque
from datetime import UTC, datetime
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING

from markupsafe import Markup

from docpreview_gateway.telemetry.operator_view import Snapshot, snapshot, view

if TYPE_CHECKING:
    from collections.abc import Callable

    from jinja2 import Template
    from prometheus_client import CollectorRegistry

    from docpreview_gateway.model.call import Clock

SAMPLE_SECONDS = 15.0
SAMPLES = 20
"""Snapshots in memory: rates are of the last five minutes."""

_FOLDER = files("docpreview_gateway.telemetry")
_STYLE = _FOLDER.joinpath("operator_page.css").read_text()
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class OperatorPage:
    """The page over the metrics of `registry`. Call `sample` every SAMPLE_SECONDS.

    `unready` and `records` are those of `/readyz?verbose`: why the process is not ready (None: it is), and what is
    wrong with the records of creates (empty: nothing).
    """

    headers = HEADERS

    def __init__(
        self,
        registry: CollectorRegistry,
        clock: Clock,
        unready: Callable[[], str | None],
        records: Callable[[], str] = str,
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._unready = unready
        self._records = records
        self._snapshots = deque([Snapshot(clock.now(), {})], SAMPLES + 1)

    @cached_property
    def _template(self) -> Template:
        # Imported with the first request for the page: it takes 2 MiB.
        from jinja2 import Environment, StrictUndefined  # noqa: PLC0415

        environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
        environment.filters.update(span=_span, share=_share, rate=_rate, clock=_clock)
        environment.globals.update(bar=_bar, style=Markup(_STYLE))  # noqa: S704 - a file of ours, and no markup
        return environment.from_string(_FOLDER.joinpath("operator_page.html").read_text())

    async def sample(self) -> None:
        """Take a snapshot. Takes milliseconds, and waits for nothing."""
        self._snapshots.append(self._snapshot())

    def html(self) -> str:
        """The page as it is now."""
        return self._template.render(page=view(self._snapshot(), self._snapshots[0], self._unready(), self._records()))

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


def _share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.3g} %"


def _rate(rate: float) -> str:
    return f"{rate:.3g}" if rate < 1000 else f"{rate:.0f}"  # noqa: PLR2004 - no powers of ten for people


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _bar(value: float, most: float, words: str) -> Markup:
    """A bar of the used part."""
    bar = '<meter min="0" max="{}" value="{}" high="{}" optimum="0"></meter>{}'
    return Markup(bar).format(  # noqa: S704 - a constant, and format escapes what it is given
        round(most, 3), round(min(value, most), 3), round(0.9 * most, 3), words
    )
