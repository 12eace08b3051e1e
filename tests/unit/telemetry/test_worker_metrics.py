"""Metrics of several processes on one page."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from docpreview_gateway.creates.pages import CallerPages
from docpreview_gateway.model.call import Call, Method
from docpreview_gateway.model.callers import Caller, PageBudget
from docpreview_gateway.model.circuit_breaker import State
from docpreview_gateway.model.trace_context import Trace
from docpreview_gateway.telemetry.prometheus_creates import PrometheusCreates
from docpreview_gateway.telemetry.prometheus_jobs import PrometheusJobs
from docpreview_gateway.telemetry.prometheus_limits import PrometheusLimits
from docpreview_gateway.telemetry.prometheus_rpc import PrometheusRpc
from docpreview_gateway.telemetry.prometheus_upstream import PrometheusUpstream
from docpreview_gateway.telemetry.worker_metrics import WorkerMetrics
from docpreview_gateway.upstream.ports import HostLoad
from docpreview_gateway.wiring.supervisor import OPEN_METRICS

GET = Method("docpreview.v1.PreviewJobService", "GetPreviewJob", "unary")


class Worker:
    """A process's telemetry."""

    def __init__(self, metrics: WorkerMetrics, name: str, number: str) -> None:
        self._metrics = metrics
        self._name = name
        self._registry = CollectorRegistry()
        self.upstream = PrometheusUpstream(self._registry)
        self.limits = PrometheusLimits(self._registry)
        self.creates = PrometheusCreates(self._registry, self.limits)
        self.jobs = PrometheusJobs(self._registry)
        self.calls = PrometheusRpc(self._registry)
        self._metrics.started(name, number)

    def call(self, seconds: float, trace: Trace | None = None) -> None:
        call = Call("r1", 0, trace=trace)
        self.calls.call_started(GET, call)
        self.calls.call_ended(GET, call, "OK", seconds)

    def scraped(self) -> None:
        encode, _ = choose_encoder(OPEN_METRICS)
        self._metrics.update(self._name, encode(self._registry).decode())


def sums(metrics: WorkerMetrics) -> dict[str, float]:
    """The samples by name, with the bucket or state where there is one; each must be there once."""
    found: dict[str, float] = {}
    for family in metrics.collect():
        for sample in family.samples:
            name = f"{sample.name}{sample.labels.get('le', '')}{sample.labels.get('state', '')}"
            assert name not in found
            found[name] = sample.value
    return found


def test_counters_and_histograms() -> None:
    """They are added up, bucket by bucket."""
    metrics = WorkerMetrics()
    one, other = Worker(metrics, "a", "0"), Worker(metrics, "b", "1")
    one.call(0.001)
    one.call(0.2)
    other.call(0.2)
    for each in (one, other):
        each.scraped()
    found = sums(metrics)
    assert found["grpc_server_started_total"] == 3
    assert found["grpc_server_handling_seconds_count"] == 3
    assert found["grpc_server_handling_seconds_bucket0.1"] == 1
    assert found["grpc_server_handling_seconds_bucket+Inf"] == 3
    assert abs(found["grpc_server_handling_seconds_sum"] - 0.401) < 1e-9


def test_worker_gauges_are_summed_and_shared_ones_take_the_worst() -> None:
    """They are added up, but of breakers and of what workers share the worst counts."""
    metrics = WorkerMetrics()
    for name, state in (("a", State.OPEN), ("b", State.CLOSED)):
        worker = Worker(metrics, name, name)
        worker.upstream.measure_host("docs-1250000000", lambda: HostLoad(3, 32, 1))
        worker.upstream.breaker("docs-1250000000", state)
        worker.jobs.watching(pollers=2, watchers=5)
        worker.creates.unreconciled(2, 100.0, 160.0)
        worker.creates.pages([CallerPages("shop", "day", 20, 5, 50, 25)])
        worker.limits.measure_callers(lambda: [Caller("shop", budget=PageBudget(per_day=100))])
        worker.scraped()
    found = sums(metrics)
    assert (found["docpreview_upstream_in_flight"], found["docpreview_upstream_queued"]) == (6, 2)
    assert (found["docpreview_pollers"], found["docpreview_watchers"]) == (4, 10)
    assert found["docpreview_upstream_breaker_state"] == State.OPEN.value
    assert found["docpreview_ledger_unreconciled"] == 2
    assert [found[f"docpreview_pages_{name}"] for name in ("used", "reserved", "leased", "left")] == [20, 5, 50, 25]
    assert found["docpreview_caller_limit"] == 100
    assert found["docpreview_ledger_oldest_unreconciled_seconds"] == 60


def test_worker_that_ended() -> None:
    """What it had counted stays, its gauges go; the one in its place begins at nothing."""
    metrics = WorkerMetrics()
    first = Worker(metrics, "a", "0")
    first.call(0.1)
    first.jobs.watching(pollers=1, watchers=1)
    first.scraped()
    metrics.ended("a")
    assert sums(metrics)["grpc_server_started_total"] == 1
    second = Worker(metrics, "b", "0")
    second.call(0.1)
    second.scraped()
    found = sums(metrics)
    assert found["grpc_server_started_total"] == 2
    assert found["docpreview_pollers"] == 0


def test_answer_of_a_worker_that_ended_meanwhile() -> None:
    """It is not counted twice."""
    metrics = WorkerMetrics()
    worker = Worker(metrics, "a", "0")
    worker.call(0.1)
    worker.scraped()
    metrics.ended("a")
    worker.scraped()
    assert sums(metrics)["grpc_server_started_total"] == 1


def test_as_open_metrics() -> None:
    """The sums are valid in the stricter format, too, which has no series of their own for when others began."""
    metrics = WorkerMetrics()
    registry = CollectorRegistry()
    registry.register(metrics)
    for name in ("a", "b"):
        worker = Worker(metrics, name, name)
        worker.call(0.1)
        worker.scraped()
    encode, _ = choose_encoder("application/openmetrics-text; version=1.0.0")
    text = encode(registry).decode()
    assert text.endswith("# EOF\n")
    families = {family.name: family for family in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]
    assert [sample.value for sample in families["grpc_server_started"].samples] == [2.0]


def test_one_exemplar_of_each_histogram_bucket_survives_the_sum() -> None:
    """One of each bucket stays, so that a slow call still leads to its trace."""
    metrics = WorkerMetrics()
    one, other = Worker(metrics, "a", "0"), Worker(metrics, "b", "1")
    one.call(0.2, Trace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", sampled=True))
    other.call(0.2)
    for each in (one, other):
        each.scraped()
    samples = [sample for family in metrics.collect() for sample in family.samples if sample.exemplar is not None]
    assert [(sample.labels["le"], sample.value) for sample in samples] == [("0.25", 2)]
    assert samples[0].exemplar is not None
    assert samples[0].exemplar.labels == {"trace_id": "0af7651916cd43dd8448eb211c80319c"}
