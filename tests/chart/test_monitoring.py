"""Custom resources without Kubernetes schemas, by their important fields; dashboards and rules by file."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.chart.helm import CHART, NAMESPACE, RELEASE, Manifest, manifests, one, rendered


@pytest.fixture(scope="module")
def production() -> list[Manifest]:
    return manifests(rendered("production"))


def test_the_service_monitor_selects_each_pod_once(production: list[Manifest]) -> None:
    """Only one of the selected Services has the port."""
    monitor = one(production, "ServiceMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    ports = [
        port["name"]
        for item in production
        if item["kind"] == "Service" and wanted <= item["metadata"]["labels"].items()
        for port in item["spec"]["ports"]
    ]
    assert [ports.count(endpoint["port"]) for endpoint in monitor["spec"]["endpoints"]] == [1, 1]
    assert [endpoint["path"] for endpoint in monitor["spec"]["endpoints"]] == ["/metrics", "/stats/prometheus"]


def test_every_rules_file_is_installed_unchanged(production: list[Manifest]) -> None:
    """The groups of all files in rules/, unchanged; without files there is no object."""
    files = sorted((CHART / "rules").glob("*.yaml"))
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    found = [item for item in production if item["kind"] == "PrometheusRule"]
    assert [item["spec"]["groups"] for item in found] == ([groups] if groups else [])


def test_every_dashboard_is_a_config_map_that_grafana_finds(production: list[Manifest]) -> None:
    """One ConfigMap for each file in dashboards/, with the file unchanged, found by Grafana's sidecar."""
    found = [item for item in production if item["metadata"]["labels"].get("grafana_dashboard") == "1"]
    data = {name: json.loads(text) for item in found for name, text in item["data"].items()}
    assert data == {path.name: json.loads(path.read_text()) for path in (CHART / "dashboards").glob("*.json")}


def test_the_certificate_covers_the_services_and_fills_the_mounted_secret(production: list[Manifest]) -> None:
    """Its names are those that clients call."""
    certificate = one(production, "Certificate")
    assert certificate["apiVersion"] == "cert-manager.io/v1"
    spec = certificate["spec"]
    assert spec["issuerRef"] == {"name": "corp-issuer", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    name = f"{RELEASE}-docpreview-gateway"
    assert {f"{name}.{NAMESPACE}.svc", f"{name}-headless.{NAMESPACE}.svc"} <= set(spec["dnsNames"])
    pod = one(production, "Deployment")["spec"]["template"]["spec"]
    assert spec["secretName"] in [volume.get("secret", {}).get("secretName") for volume in pod["volumes"]]


def test_the_route_has_a_parent_and_a_backend_service_with_its_port() -> None:
    """The references are complete."""
    parents = '[{"name":"internal","namespace":"gateways"}]'
    on = ("--set", "grpcRoute.enabled=true", "--set-json", f"grpcRoute.parentRefs={parents}")
    production = manifests(rendered("production", *on))
    route = one(production, "GRPCRoute")
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["spec"]["parentRefs"] == [{"name": "internal", "namespace": "gateways"}]
    ((backend,),) = [rule["backendRefs"] for rule in route["spec"]["rules"]]
    service = one(production, "Service")
    assert backend["name"] == service["metadata"]["name"]
    assert backend["port"] in [port["port"] for port in service["spec"]["ports"]]


@pytest.mark.parametrize(("variant", "protocol"), [("production", "https"), ("multi-region", "kubernetes.io/h2c")])
def test_the_services_port_declares_http2_with_or_without_tls(variant: str, protocol: str) -> None:
    """`appProtocol`, for meshes and routes."""
    found = manifests(rendered(variant))
    for suffix in ("", "-headless"):
        (port,) = [port for port in one(found, "Service", suffix)["spec"]["ports"] if port["name"] == "grpc"]
        assert port["appProtocol"] == protocol
