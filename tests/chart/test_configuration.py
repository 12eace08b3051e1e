"""Consistency of chart and server: the server accepts the chart's configuration."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from docpreview_gateway.settings.loading import Settings
from docpreview_gateway.settings.sections import DrainSettings, LimitSettings
from tests.chart.helm import VARIANTS, manifests, one, rendered
from tests.chart.mounts import environment, mount
from tests.packaging.project import ROOT, run

if TYPE_CHECKING:
    from pathlib import Path


def test_the_values_schema_and_readme_match_the_settings_of_today() -> None:
    """Both are generated from values.yaml and the gateway's settings."""
    done = run(sys.executable, ROOT / "helm" / "generate.py", "--check")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("variant", "options"),
    [
        *((variant, "") for variant in VARIANTS),
        ("production", "tls.clientCrlSecretName=corp-ca-crl"),
        ("minimal", "buckets[0].upload_credentials=writer,credentials.writer.secretName=cloud-writer"),
    ],
)
def test_check_config_accepts_the_rendered_configuration(variant: str, options: str, tmp_path: Path) -> None:
    """With the files and environment variables of the pod, whose ports and folder are not those of this machine."""
    found = manifests(rendered(variant, "--set", options))
    (container,) = one(found, "Deployment")["spec"]["template"]["spec"]["containers"]
    mount(found, container, tmp_path)
    command = (sys.executable, "-m", "docpreview_gateway", "check-config", "--elsewhere")
    done = run(*command, env=environment(container, tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "admin on 0.0.0.0:9464" in done.stdout


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_pods_ports_and_writable_paths_are_those_of_the_configuration(variant: str) -> None:
    """Ports of `listen` and `admin_listen`; the ledger's directory is writable."""
    found = manifests(rendered(variant))
    configured = yaml.safe_load(one(found, "ConfigMap")["data"]["gateway.yaml"])
    (container,) = one(found, "Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    if "edge" in configured:
        assert "grpc" not in ports
    else:
        assert configured["listen"] == f"0.0.0.0:{ports['grpc']}"
    assert configured["admin_listen"] == f"0.0.0.0:{ports['admin']}"
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    of_edge = {configured["edge"]["folder"]} if "edge" in configured else set()
    assert writable == {"/tmp", configured["state_dir"]} | of_edge  # noqa: S108 - in the pod


@pytest.mark.parametrize(
    ("variant", "options", "seconds"),
    [
        ("minimal", (), DrainSettings().delay_seconds + DrainSettings().grace_seconds + 10),
        ("minimal", ("--set", "config.drain.delay_seconds=0"), DrainSettings().grace_seconds + 10),
        ("minimal", ("--set-json", "config.drain.grace_seconds=59.5"), DrainSettings().delay_seconds + 60 + 10),
        ("production", (), 140 + 30 + 10),
    ],
)
def test_kubernetes_waits_for_drain_delay_and_grace_before_it_kills_a_pod(
    variant: str, options: tuple[str, ...], seconds: float
) -> None:
    """Unset values are the gateway's defaults."""
    pod = one(manifests(rendered(variant, *options)), "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == seconds


def test_changed_settings_restart_the_pods_and_a_changed_policy_does_not() -> None:
    """Settings are read at the start; a policy is reloaded."""

    def annotations(*options: str) -> dict[str, str]:
        template = one(manifests(rendered("production", *options)), "Deployment")["spec"]["template"]
        found: dict[str, str] = template["metadata"]["annotations"]
        return found

    assert annotations("--set", "config.watch.heartbeat_seconds=5") != annotations()
    assert annotations("--set", "policy.document.callers.billing.weight=2") == annotations()


def test_the_production_drain_outlasts_connections() -> None:
    """1.1 times the connection age plus 5 s, so that clients without retries see no failure."""
    configured = yaml.safe_load(one(manifests(rendered("production")), "ConfigMap")["data"]["gateway.yaml"])
    age = configured["limits"].get("connection_age_seconds", LimitSettings().connection_age_seconds)
    assert configured["drain"]["delay_seconds"] >= 1.1 * age + 5
    assert configured["drain"]["grace_seconds"] >= 30
    assert configured["reflection"] is False


def test_limits_that_replicas_do_not_share_are_divided_by_their_number() -> None:
    """With autoscaling by the maximum."""

    def replicas(variant: str, *options: str) -> int:
        text = one(manifests(rendered(variant, *options)), "ConfigMap")["data"]["gateway.yaml"]
        return int(yaml.safe_load(text)["replicas"])

    assert replicas("minimal") == 1
    assert replicas("multi-region") == 2
    assert replicas("production", "--set", "autoscaling.maxReplicas=7") == 7


@pytest.mark.parametrize(
    ("options", "namespace"),
    [
        ((), "preview-docpreview-gateway"),
        (("--set", "fullnameOverride=gate"), "gate"),
        (("--set", "config.shared_state.namespace=previews"), "previews"),
    ],
)
def test_shared_records_are_in_the_namespace_of_the_release_unless_the_values_name_one(
    options: tuple[str, ...], namespace: str
) -> None:
    """In `config`, as any other setting."""
    assert _configured("production", *options)["shared_state"]["namespace"] == namespace


def test_a_namespace_of_a_long_release_name_is_short_and_still_its_own() -> None:
    """Names that begin alike do not share records."""
    found = {
        _configured("production", "--set", f"fullnameOverride={'previews-' * 4}{end}")["shared_state"]["namespace"]
        for end in ("one", "two")
    }
    assert len(found) == 2
    assert all(re.fullmatch("[a-z0-9-]{1,32}", name) for name in found)


def test_a_gateway_without_shared_state_has_neither_namespace_nor_key_file_unless_the_values_name_a_secret() -> None:
    """It then generates its key beside its ledger."""
    alone = _configured("minimal")
    assert "shared_state" not in alone
    assert "ledger" not in alone
    assert _configured("minimal", "--set", "ledger.keySecretName=keys")["ledger"]["key_file"].startswith(
        "/etc/docpreview/"
    )


def _configured(variant: str, *options: str) -> dict[str, Any]:
    found = manifests(rendered(variant, *options))
    (text,) = [item["data"]["gateway.yaml"] for item in found if "gateway.yaml" in item.get("data", {})]
    configured: dict[str, Any] = yaml.safe_load(text)
    return configured


def test_every_setting_is_a_value_or_set_by_a_template() -> None:
    """Values of settings are below `config`."""
    values = yaml.safe_load((ROOT / "helm/docpreview-gateway/values.schema.json").read_text())
    below = set(values["properties"]["config"]["properties"])
    configured = set(yaml.safe_load(one(manifests(rendered("production")), "ConfigMap")["data"]["gateway.yaml"]))
    assert below | configured | {"auth"} == set(Settings.model_fields)
