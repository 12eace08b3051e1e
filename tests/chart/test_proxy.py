"""The chart's way to the cloud through an egress proxy."""

from __future__ import annotations

import pytest
import yaml

from tests.chart.helm import manifests, one, rendered


@pytest.mark.parametrize("values", ["proxy.url=http://proxy:8888", "proxy.secretName=x"])
def test_the_network_policy_lets_pods_reach_the_proxy_on_its_ports_only(values: str) -> None:
    peers = ("--set-json", 'networkPolicy.proxy={"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}], "ports": [8888]}')
    found = manifests(rendered("minimal", "--set", values, *peers))
    rules = one(found, "NetworkPolicy")["spec"]["egress"]
    (rule,) = [rule for rule in rules if {"protocol": "TCP", "port": 8888} in rule["ports"]]
    assert rule == {"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}], "ports": [{"protocol": "TCP", "port": 8888}]}


def test_without_a_proxy_its_port_stays_closed() -> None:
    rules = one(manifests(rendered("minimal")), "NetworkPolicy")["spec"]["egress"]
    assert 3128 not in [port["port"] for rule in rules for port in rule["ports"]]


def test_the_address_of_a_secret_is_a_variable_and_in_no_configmap() -> None:
    found = manifests(rendered("multi-region", "--set", "proxy.secretName=egress,proxy.urlKey=address"))
    (gateway,) = one(found, "Deployment")["spec"]["template"]["spec"]["containers"]
    (variable,) = [each for each in gateway["env"] if each["name"] == "DOCPREVIEW_UPSTREAM__PROXY"]
    assert variable["valueFrom"] == {"secretKeyRef": {"name": "egress", "key": "address"}}
    assert "proxy" not in yaml.safe_load(one(found, "ConfigMap")["data"]["gateway.yaml"]).get("upstream", {})


@pytest.mark.parametrize("variant", ["multi-region", "emulator"])
def test_the_other_settings_of_the_way_stay_beside_an_address(variant: str) -> None:
    before, after = (
        yaml.safe_load(one(manifests(rendered(variant, *options)), "ConfigMap")["data"]["gateway.yaml"])["upstream"]
        for options in ((), ("--set", "proxy.url=http://proxy:3128"))
    )
    assert before
    assert after == before | {"proxy": "http://proxy:3128"}
