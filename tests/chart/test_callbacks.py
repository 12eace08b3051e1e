"""The way of the cloud's callbacks in a cluster: from the address to a port of the pods that has nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from tests.chart.helm import Manifest, manifests, one, refused, rendered, rendered_notes

if TYPE_CHECKING:
    from pathlib import Path

ROUTE = ("--set", "callbacks.httpRoute.enabled=true,callbacks.httpRoute.parentRefs[0].name=edge")


def container(found: list[Manifest]) -> Manifest:
    (gateway,) = one(found, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(gateway)


def test_the_service_of_callbacks_leads_to_the_port_that_the_gateway_listens_on() -> None:
    """And to neither the port of callers nor the admin port."""
    found = manifests(rendered("production"))
    (port,) = one(found, "Service", "-callbacks")["spec"]["ports"]
    ports = {each["name"]: each["containerPort"] for each in container(found)["ports"]}
    configured = yaml.safe_load(one(found, "ConfigMap")["data"]["gateway.yaml"])["callbacks"]
    assert configured["listen"] == f"0.0.0.0:{ports[port['targetPort']]}"


def test_the_ingress_has_host_path_and_tls_of_the_address() -> None:
    (spec,) = [one(manifests(rendered("production")), "Ingress", "-callbacks")["spec"]]
    assert spec["tls"] == [{"hosts": ["previews.corp.example"], "secretName": "previews-tls"}]
    ((path,),) = [rule["http"]["paths"] for rule in spec["rules"]]
    assert (spec["rules"][0]["host"], path["path"], path["pathType"]) == (
        "previews.corp.example",
        "/callback",
        "Prefix",
    )


@pytest.mark.parametrize(("url", "path"), [("http://x.example.com:8080/", "/"), ("http://x.example.com/a/b/", "/a/b")])
def test_a_route_has_host_and_path_of_the_address_without_its_port(url: str, path: str) -> None:
    found = manifests(rendered("production", *ROUTE, "--set", f"callbacks.publicUrl={url}"))
    spec = one(found, "HTTPRoute", "-callbacks")["spec"]
    assert spec["hostnames"] == ["x.example.com"]
    assert spec["rules"][0]["matches"] == [{"path": {"type": "PathPrefix", "value": path}}]
    assert "tls" not in one(found, "Ingress", "-callbacks")["spec"]


def test_only_the_named_peers_reach_the_port_of_callbacks() -> None:
    found = manifests(rendered("production"))
    rules = one(found, "NetworkPolicy")["spec"]["ingress"]
    (rule,) = [rule for rule in rules if {"protocol": "TCP", "port": "callbacks"} in rule["ports"]]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}]
    assert len(rule["ports"]) == 1


def test_without_an_address_there_is_no_port_of_callbacks() -> None:
    found = manifests(rendered("minimal"))
    assert "callbacks" not in [port["name"] for port in container(found)["ports"]]
    assert not [item for item in found if item["metadata"]["name"].endswith("-callbacks")]


@pytest.mark.parametrize("published", [False, True])
def test_the_notes_say_what_a_firewall_lets_pass_and_whether_something_has_to_lead_there(
    tmp_path: Path, *, published: bool
) -> None:
    ingress = f"callbacks.ingress.enabled={str(published).lower()}"
    options = ("--set", f"callbacks.publicUrl=https://p.example.com/cb,{ingress}")
    peers = ("--set-json", 'networkPolicy.callbacks=[{"podSelector": {}}]')
    notes = rendered_notes(tmp_path, "minimal", *options, *peers)
    assert "POST to https://p.example.com/cb/<token> has to pass from all addresses" in notes
    assert ("something of yours has to lead there" in notes) is not published
    assert "callbacks configure" not in notes


def test_the_notes_name_the_command_that_tells_the_queues(tmp_path: Path) -> None:
    notes = rendered_notes(tmp_path, "production", "--set", "callbacks.mode=queue")
    assert "told by `docpreview-gateway callbacks configure`" in notes


@pytest.mark.parametrize("host", ["203.0.113.7", "Previews.Example.com", "a_b.example.com", "previews"])
def test_an_ingress_has_a_host_that_kubernetes_takes(host: str) -> None:
    options = ("--set", f"callbacks.publicUrl=https://{host}/cb,callbacks.ingress.enabled=true")
    assert f"an Ingress or HTTPRoute leads from a DNS name of small letters, digits and hyphens, not from {host}" in (
        refused("production", *options)
    )
