"""Outgoing webhooks in a cluster: the secrets of their targets, and the way to the receivers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from tests.chart.helm import Manifest, manifests, one, rendered, rendered_notes

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "/etc/docpreview/webhooks"


def pod(found: list[Manifest]) -> Manifest:
    return dict(one(found, "Deployment")["spec"]["template"]["spec"])


def test_each_target_of_the_policy_has_its_secret_in_the_mounted_folder() -> None:
    """The whole Secret as a folder: a key that is added or replaced arrives without a restart."""
    found = manifests(rendered("production"))
    (container,) = pod(found)["containers"]
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == "webhooks"]
    (volume,) = [each for each in pod(found)["volumes"] if each["name"] == "webhooks"]
    assert mount == {"name": "webhooks", "mountPath": FOLDER, "readOnly": True}
    assert volume["secret"] == {"secretName": "docpreview-webhooks", "defaultMode": 0o440}
    policy = yaml.safe_load(one(found, "ConfigMap", "-policy")["data"]["policy.yaml"])
    assert policy["webhooks"]["orders"]["secret_file"].startswith(f"{FOLDER}/")


def test_the_network_policy_passes_to_the_named_receivers_on_their_ports_only() -> None:
    rules = one(manifests(rendered("production")), "NetworkPolicy")["spec"]["egress"]
    (rule,) = [rule for rule in rules if {"protocol": "TCP", "port": 8443} in rule["ports"]]
    assert rule == {"to": [{"ipBlock": {"cidr": "10.30.0.0/24"}}], "ports": [{"protocol": "TCP", "port": 8443}]}


@pytest.mark.parametrize("kept", ["", "state.existingClaim=records"])
def test_the_notes_say_where_events_are_lost_with_the_pod(tmp_path: Path, kept: str) -> None:
    """A single replica without a volume of its own."""
    policy = ("--set", "auth.insecure=false,policy.secretName=p,tls.plaintext=true,webhooks.secretName=w")
    said = "lost with the pod. Set state.existingClaim" in rendered_notes(tmp_path, "minimal", *policy, "--set", kept)
    assert said is not bool(kept)


def test_without_webhooks_there_is_neither_folder_nor_rule() -> None:
    found = manifests(rendered("minimal"))
    assert "webhooks" not in [each["name"] for each in pod(found)["volumes"]]
    rules = one(found, "NetworkPolicy")["spec"]["egress"]
    assert {each["port"] for rule in rules for each in rule["ports"]} == {53, 443}
    assert len(rules) == 2
