"""Metrics, rules and dashboards against a real Prometheus and promtool."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import httpx
import yaml

from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from tests.integration.conftest import BUCKET, World
from tests.monitoring.test_documents import RULES, queries
from tests.prometheus_server import promtool, running_prometheus

TRACE = "0af7651916cd43dd8448eb211c80319c"
PDF = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"


async def work(world: World) -> None:
    """Generate load: a job until its end, a call with a trace, and a read of an unknown job."""
    await world.upload("a.pdf", PDF.read_bytes())
    job = await world.client.create(BUCKET, "a.pdf", output_object="p/${Number}.jpg")
    async for _ in world.client.watch(BUCKET, job.job_id):
        pass
    async with grpc.aio.insecure_channel(f"127.0.0.1:{world.gateway.port}") as channel:
        stub = PreviewJobServiceStub(channel)
        metadata = (("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"),)
        await stub.GetPreviewJob(GetPreviewJobRequest(bucket=BUCKET, job_id=job.job_id), metadata=metadata)


def test_the_rules_are_valid_and_each_alert_fires_and_resolves() -> None:
    """Promtool's checks and unit tests."""
    checked = promtool("check", "rules", *RULES)
    assert checked.returncode == 0, checked.stderr
    tested = promtool("test", "rules", Path(__file__).with_name("rules.test.yaml"))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_has_a_test_that_fires_it() -> None:
    """And others in which it does not fire."""
    tests = yaml.safe_load(Path(__file__).with_name("rules.test.yaml").read_text())["tests"]
    raised = {check["alertname"] for test in tests for check in test.get("alert_rule_test", []) if check["exp_alerts"]}
    alerts = {
        rule["alert"]
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert raised == alerts


def test_prometheus_accepts_every_query_of_the_dashboards(tmp_path: Path) -> None:
    """With any value of the variables."""
    plain = [query.replace("$__rate_interval", "5m").replace("$job", ".*") for query in queries()]
    groups = [{"name": "q", "rules": [{"record": f"q{number}", "expr": query} for number, query in enumerate(plain)]}]
    path = tmp_path / "queries.yaml"
    path.write_text(json.dumps({"groups": groups}))
    checked = promtool("check", "rules", path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


async def test_promtool_finds_no_problem_in_the_metrics_page(world: World) -> None:
    """`promtool check metrics`."""
    await work(world)
    async with httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"http://127.0.0.1:{world.gateway.admin_port}/metrics")).text
    checked = promtool("check", "metrics", text=text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


async def test_a_scrape_gives_the_rules_values_and_exemplars_lead_to_traces(world: World, tmp_path: Path) -> None:
    """A Prometheus server scrapes the gateway."""
    async with running_prometheus(tmp_path, world.gateway.admin_port, RULES) as prometheus:
        await prometheus.until(lambda found: found["result"], "/api/v1/query", query="docpreview_build_info")
        await work(world)
        (target,) = (await prometheus.get("/api/v1/targets"))["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")
        found = await prometheus.until(
            lambda found: found["result"], "/api/v1/query", query='docpreview_jobs_ended_total{state="SUCCESS"}'
        )
        assert found["result"][0]["value"][1] == "1"
        exemplars = await prometheus.until(
            bool,
            "/api/v1/query_exemplars",
            query="grpc_server_handling_seconds_bucket",
            start=found["result"][0]["value"][0] - 600,
            end=found["result"][0]["value"][0] + 600,
        )
        assert {exemplar["labels"]["trace_id"] for each in exemplars for exemplar in each["exemplars"]} == {TRACE}
        groups = (await prometheus.until(bool, "/api/v1/rules"))["groups"]
        assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
        assert not [rule for group in groups for rule in group["rules"] if rule.get("lastError")]
