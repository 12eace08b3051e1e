"""The metrics of several worker processes, aggregated to those of one gateway.

Counters and histograms are summed over all workers that ever ran: the last values of an ended worker stay in the sum,
so that no sum goes down. Gauges are summed over the running workers. Metrics of a process as such, its memory for one,
have a label `worker` instead. `docs/adr/0009-workers-are-scraped.md` says why workers are scraped and share no files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.samples import Exemplar, Sample

_OF_A_PROCESS = ("process_", "python_")
_HIGHEST = frozenset(
    {
        "docpreview_build_info",
        "docpreview_file_refused",
        "docpreview_upstream_breaker_state",
        "docpreview_cloud_failing",
        "docpreview_ledger_unreconciled",
        "docpreview_ledger_oldest_unreconciled_seconds",
        "docpreview_ledger_reconciled_timestamp_seconds",
        "docpreview_error_last_timestamp_seconds",
        "docpreview_callback_last_timestamp_seconds",
        "docpreview_callbacks_address",
        "docpreview_caller_limit",
        "docpreview_store_failing",
        "docpreview_store_lost",
        "docpreview_store_health",
        "docpreview_store_evicted_keys",
        "docpreview_list_lag_seconds",
        "docpreview_reconciliation_findings",
        "docpreview_reconciliation_timestamp_seconds",
        "docpreview_pages_used",
        "docpreview_pages_reserved",
        "docpreview_pages_leased",
        "docpreview_webhook_waiting",
        "docpreview_webhook_undelivered",
        "docpreview_webhook_oldest_undelivered_seconds",
    }
)
"""Gauges of which the highest counts: states, times, and numbers of what workers share."""

_LOWEST = frozenset(
    {"docpreview_callbacks_working", "docpreview_certificate_expiry_timestamp_seconds", "docpreview_pages_left"}
)
_SINCE = "_created"
"""Suffix of series with the start time of another one, which a sum does not have."""

_ADDS_UP = frozenset({"counter", "histogram", "summary"})


class WorkerMetrics(Collector):
    """A collector over the last scrape of each worker. Workers are told apart by any unique name of the process."""

    def __init__(self) -> None:
        self._now: dict[str, tuple[str, list[Metric]]] = {}
        self._ended: list[Metric] = []

    def started(self, worker: str, number: str) -> None:
        """Add a process, which is the worker of this number."""
        self._now[worker] = number, []

    def update(self, worker: str, text: str) -> None:
        """Replace the scrape of a worker by this one, in OpenMetrics format; ignored when the worker has ended."""
        if worker in self._now:
            number, _ = self._now[worker]
            families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
            self._now[worker] = number, [found for found in families if not found.name.endswith(_SINCE)]

    def ended(self, worker: str) -> None:
        """Remove a worker; its counters stay in the sums."""
        _, last = self._now.pop(worker)
        stays = [family for family in last if family.type in _ADDS_UP and not family.name.startswith(_OF_A_PROCESS)]
        self._ended = list(_summed([*self._ended, *stays]))

    def collect(self) -> Iterator[Metric]:
        """All families, each once, for the registry."""
        labelled = (_labelled(family, number) for number, found in self._now.values() for family in found)
        return _summed([*self._ended, *labelled])


def _labelled(family: Metric, number: str) -> Metric:
    if not family.name.startswith(_OF_A_PROCESS):
        return family
    result = Metric(family.name, family.documentation, family.type)
    for sample in family.samples:
        result.add_sample(sample.name, {**sample.labels, "worker": number}, sample.value)
    return result


def _summed(families: Iterable[Metric]) -> Iterator[Metric]:
    by_name: dict[str, list[Metric]] = {}
    for family in families:
        by_name.setdefault(family.name, []).append(family)
    for name, same in by_name.items():
        result = Metric(name, same[0].documentation, same[0].type)
        values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        exemplars: dict[tuple[str, tuple[tuple[str, str], ...]], Exemplar] = {}
        for sample in (sample for family in same for sample in family.samples):
            key = sample.name, tuple(sorted(sample.labels.items()))
            values[key] = _joined(name, values[key], sample) if key in values else sample.value
            if sample.exemplar is not None:
                exemplars[key] = sample.exemplar
        for key, value in values.items():
            result.add_sample(key[0], dict(key[1]), value, exemplar=exemplars.get(key))
        yield result


def _joined(family: str, value: float, sample: Sample) -> float:
    if family in _HIGHEST:
        return max(value, sample.value)
    return min(value, sample.value) if family in _LOWEST else value + sample.value
