"""The chart's objects as a real API server takes them: decoded strictly, validated and admitted; no pod is started."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.chart.cluster import Cluster, running_cluster
from tests.chart.helm import CHART, NAMESPACE, RELEASE, VARIANTS, manifests, one, rendered, values_of
from tests.programs import need

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

GATEWAY = f"{RELEASE}-docpreview-gateway"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with a namespace that refuses pods which are not "restricted"."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as found:
        for made in (
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": RESTRICTED}},
            *(_named("v1", "ServiceAccount", name) for name in ("default", GATEWAY)),
            _named("scheduling.k8s.io/v1", "PriorityClass", "business-critical") | {"value": 1000},
        ):
            answer = found.create(made)
            assert answer.is_success, answer.text
        yield found


def _named(version: str, kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}}


def _helm(cluster: Cluster, *words: str) -> str:
    options = ("--kubeconfig", str(cluster.kubeconfig), "--namespace", f"{NAMESPACE}-installed")
    done = subprocess.run([need("helm"), *words, *options], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_is_decoded_strictly_and_validated(cluster: Cluster, variant: str) -> None:
    """With the definitions of the Prometheus operator, the Gateway API and cert-manager for their kinds."""
    route = ("--set", "grpcRoute.enabled=true,grpcRoute.parentRefs[0].name=edge")
    found = [item for item in manifests(rendered(variant, *route)) if item["kind"] != "ServiceAccount"]
    assert len(found) >= 7
    answers = {f"{item['kind']} {item['metadata']['name']}": cluster.create(item, dry=True) for item in found}
    assert {name: answer.text for name, answer in answers.items() if answer.status_code != 201} == {}
    assert [name for name, answer in answers.items() if "Warning" in answer.headers] == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_of_a_deployment_is_admitted_where_only_restricted_pods_are(cluster: Cluster, variant: str) -> None:
    """As the controller of ReplicaSets, which is not there, would create it."""
    found = [item for item in manifests(rendered(variant)) if item["kind"] == "Deployment"]
    for item in found:
        template = item["spec"]["template"]
        answer = cluster.create(_named("v1", "Pod", "it") | {"spec": template["spec"]}, dry=True)
        assert answer.status_code == 201, answer.text


def test_the_server_refuses_a_misspelt_field_an_invalid_value_and_an_unrestricted_pod(cluster: Cluster) -> None:
    """Self-test of the checks above."""
    deployment = one(manifests(rendered("minimal")), "Deployment")
    pod = _named("v1", "Pod", "it") | {"spec": deployment["spec"]["template"]["spec"]}
    pod["spec"]["securityContext"].pop("seccompProfile")
    for container in pod["spec"]["containers"]:
        container["securityContext"].pop("seccompProfile")
    unrestricted = cluster.create(pod, dry=True)
    assert unrestricted.status_code == 403
    assert "violates PodSecurity" in unrestricted.text
    misspelt = cluster.create(deployment | {"spec": deployment["spec"] | {"replica": 1}}, dry=True)
    assert misspelt.status_code == 400
    assert 'unknown field \\"spec.replica\\"' in misspelt.text
    assert cluster.create(deployment | {"spec": deployment["spec"] | {"replicas": -1}}, dry=True).status_code == 422


def test_helm_installs_upgrades_and_uninstalls_a_release(cluster: Cluster) -> None:
    """From the smallest values to those of production and back; nothing is left."""
    _helm(cluster, "install", RELEASE, str(CHART), "--values", str(values_of("minimal")), "--create-namespace")
    upgraded = _helm(cluster, "upgrade", RELEASE, str(CHART), "--values", str(values_of("production")))
    assert f"docpreview-gateway 0.1.0 as {GATEWAY}.{NAMESPACE}-installed" in upgraded
    wanted = {(item["kind"], item["metadata"]["name"]) for item in manifests(rendered("production"))} - {
        ("Pod", f"{GATEWAY}-test")
    }
    places = {cluster.place(_there(item)) for item in manifests(rendered("production")) if item["kind"] != "Pod"}
    assert {name for place in places for name in _names(cluster, place)} >= {name for _, name in wanted}
    _helm(cluster, "rollback", RELEASE, "1")
    _helm(cluster, "uninstall", RELEASE)
    assert {name for place in places for name in _names(cluster, place) if name.startswith(RELEASE)} == set()


def _there(item: dict[str, Any]) -> dict[str, Any]:
    return item | {"metadata": item["metadata"] | {"namespace": f"{NAMESPACE}-installed"}}


def _names(cluster: Cluster, place: str) -> set[str]:
    return {item["metadata"]["name"] for item in cluster.get(place).json()["items"]}
