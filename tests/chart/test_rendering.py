"""The rendered chart of each values file: valid for three Kubernetes versions, hardened, and equal to its golden."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from tests.chart.helm import CHART, MINORS, VARIANTS, helm, manifests, one, pods, rendered, values_of

GOLDENS = Path(__file__).parent / "goldens"
CUSTOM = {"ServiceMonitor", "PrometheusRule", "GRPCRoute", "Certificate"}
FOREIGN = ("# Source: docpreview-gateway/templates/monitoring.yaml",)
"""Templates without goldens; tests/chart/test_monitoring.py compares dashboards and rules with their files."""


@pytest.mark.parametrize("minor", MINORS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_helm_lint_strict_finds_nothing(variant: str, minor: str) -> None:
    """`helm lint --strict`."""
    done = helm("lint", "--strict", "--kube-version", f"{minor}.0", "--values", str(values_of(variant)), str(CHART))
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("minor", MINORS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_is_valid_for_three_kubernetes_versions(variant: str, minor: str) -> None:
    """Built-in kinds only; unknown keys are refused."""
    checked = 0
    for found in manifests(rendered(variant, minor=minor)):
        if found["kind"] not in CUSTOM:
            kubernetes_validate.validate(found, minor, strict=True)
            checked += 1
    assert checked >= 7


def test_the_schemas_refuse_a_misspelt_key() -> None:
    """Self-test of the check above."""
    deployment = one(manifests(rendered("minimal")), "Deployment")
    deployment["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, MINORS[-1], strict=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_chart_that_renders_differently_from_its_goldens_fails(variant: str) -> None:
    """`make chart-goldens` updates the goldens."""
    documents = rendered(variant).split("---\n")
    text = "---\n".join(document for document in documents if not document.startswith(FOREIGN))
    golden = GOLDENS / f"{variant}.yaml"
    if os.environ.get("CHART_GOLDENS") == "write":
        golden.write_text(text)
    lines = golden.read_text().splitlines(), text.splitlines()
    assert "\n".join(difflib.unified_diff(*lines, "golden", "rendered", lineterm="")) == ""


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_passes_restricted_pod_security_and_more(variant: str) -> None:
    """Beyond "restricted": read-only root, no service account token, no variables of Services."""
    found = pods(manifests(rendered(variant)))
    assert len(found) >= 2
    for name, pod in found:
        assert _breaches(pod) == [], name
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize("variant", ["emulator", "production"])
def test_every_pod_pulls_its_images_with_the_pull_secrets(variant: str) -> None:
    """Also those of emulator, trial store and `helm test`."""
    found = pods(manifests(rendered(variant, "--set", "imagePullSecrets[0].name=registry")))
    assert {name: pod.get("imagePullSecrets") for name, pod in found} == {
        name: [{"name": "registry"}] for name, _ in found
    }


def _breaches(pod: dict[str, Any]) -> list[str]:
    """Violations of Pod Security "restricted" (which includes baseline) and of the project's own rules."""
    shared, problems = pod["securityContext"], []
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    if any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
        problems.append("shares a namespace of the host")
    problems += [volume["name"] for volume in pod["volumes"] if not set(volume) - {"name"} <= allowed]
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        own = shared | container["securityContext"]
        rules = {
            "non-root": own["runAsNonRoot"] is True and own["runAsUser"] > 0 and own["runAsGroup"] > 0,
            "seccomp": own["seccompProfile"] == {"type": "RuntimeDefault"},
            "escalation": own["allowPrivilegeEscalation"] is False and not own.get("privileged"),
            "capabilities": own["capabilities"] == {"drop": ["ALL"]},
            "read-only root": own["readOnlyRootFilesystem"] is True,
            "host ports": not any("hostPort" in port for port in container.get("ports", [])),
            "memory limit": "memory" in container["resources"]["limits"],
        }
        problems += [rule for rule, kept in rules.items() if not kept]
    return problems


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_chart_creates_no_secret_and_mounts_existing_ones_as_directories(variant: str) -> None:
    """Directories are updated in place, so that the gateway sees changes."""
    found = manifests(rendered(variant))
    assert [item for item in found if item["kind"] == "Secret"] == []
    for _, pod in pods(found):
        for container in pod["containers"]:
            assert [mount for mount in container["volumeMounts"] if "subPath" in mount] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_selector_matches_exactly_the_pods_of_one_workload(variant: str) -> None:
    """Selectors of Services and network policies."""
    found = manifests(rendered(variant))
    labels = [item["spec"]["template"]["metadata"]["labels"] for item in found if item["kind"] == "Deployment"]
    for item in found:
        spec = item.get("spec", {})
        wanted = spec.get("podSelector", {}).get("matchLabels") or (item["kind"] == "Service" and spec["selector"])
        if item["kind"] in {"Service", "NetworkPolicy"}:
            assert len([own for own in labels if wanted.items() <= own.items()]) == 1, item["metadata"]["name"]
