"""`edge.enabled`: Envoy in the pod before the gateway, with what `edge-config` makes of the pod's own settings."""

from __future__ import annotations

import ipaddress
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from docpreview_gateway.settings.loading import load
from docpreview_gateway.wiring import edge_config
from tests.chart.helm import CHART, VARIANTS, manifests, one, rendered, rendered_notes
from tests.chart.mounts import environment, mount
from tests.packaging.project import run
from tests.programs import need

if TYPE_CHECKING:
    from pathlib import Path

EDGE = ("--set", "edge.enabled=true")


def pod(variant: str, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = one(manifests(rendered(variant, *options)), "Deployment")["spec"]["template"]["spec"]
    return found


def test_the_production_values_have_the_edge() -> None:
    """The others show it with `--set edge.enabled=true`, in the tests below."""
    assert yaml.safe_load((CHART / "ci" / "production-values.yaml").read_text())["edge"]["enabled"] is True
    assert "initContainers" not in pod("minimal")


@pytest.mark.parametrize("variant", VARIANTS)
def test_envoy_accepts_what_the_pod_makes_of_its_settings(variant: str, tmp_path: Path) -> None:
    """The pod's own command with its files and variables; then Envoy's check with the files of its container."""
    found = manifests(rendered(variant, *EDGE))
    configures, edge = one(found, "Deployment")["spec"]["template"]["spec"]["initContainers"]
    mount(found, configures, tmp_path)
    command, folder = configures["args"]
    done = run(
        *(sys.executable, "-m", "docpreview_gateway", command, tmp_path / folder.removeprefix("/etc/docpreview/")),
        env=environment(configures, tmp_path),
    )
    assert (done.returncode, done.stderr) == (0, "")
    mount(found, edge, tmp_path)
    written = tmp_path / edge["args"][1].removeprefix("/etc/docpreview/")
    checked = run(need("envoy"), "--mode", "validate", "-c", written)
    assert checked.returncode == 0, checked.stderr
    admitted = {mounted["mountPath"] for mounted in edge["volumeMounts"]}
    named = {f"/etc/docpreview/{path.relative_to(tmp_path).parts[0]}" for path in files_of(written, tmp_path)}
    assert named <= admitted


def files_of(bootstrap: Path, folder: Path) -> list[Path]:
    """Every file that Envoy reads, by the paths in its configuration."""
    texts = [path.read_text() for path in bootstrap.parent.glob("*.yaml")]
    words = {word.strip("{},'\"") for text in texts for word in text.split()}
    return [folder / word for word in words if word.startswith(str(folder))]


@pytest.mark.parametrize("delay", ["0", "2.5", "140"])
def test_envoy_starts_before_the_gateway_stops_after_it_and_drains_as_long(delay: str, tmp_path: Path) -> None:
    """A sidecar of Kubernetes; its arguments are those that `edge-config` prints."""
    options = (*EDGE, "--set-json", f"config.drain.delay_seconds={delay}")
    found = manifests(rendered("minimal", *options))
    spec = one(found, "Deployment")["spec"]["template"]["spec"]
    configures, edge = spec["initContainers"]
    assert "restartPolicy" not in configures
    assert edge["restartPolicy"] == "Always"
    assert "lifecycle" not in edge, "the gateway tells Envoy to drain"
    mount(found, configures, tmp_path)
    settings = load(tmp_path / "config" / "gateway.yaml")
    folder = tmp_path / "edge"
    wanted = [word.replace(str(tmp_path), "/etc/docpreview") for word in edge_config.arguments(settings, folder)]
    assert edge["args"][: len(wanted)] == wanted


def test_only_envoy_is_reachable_and_its_admin_interface_is_not() -> None:
    """The gateway's own port and Envoy's admin interface are on the pod's loopback."""
    found = manifests(rendered("production"))
    configured = yaml.safe_load(one(found, "ConfigMap")["data"]["gateway.yaml"])
    spec = one(found, "Deployment")["spec"]["template"]["spec"]
    ports = {port["name"]: port["containerPort"] for port in spec["initContainers"][1]["ports"]}
    edge = configured["edge"]
    assert edge["listen"] == f"0.0.0.0:{ports['grpc']}"
    assert edge["metrics_listen"] == f"0.0.0.0:{ports['edge-metrics']}"
    for address in (configured["listen"], edge["admin_listen"]):
        assert ipaddress.ip_address(address.rpartition(":")[0]).is_loopback
    (gateway,) = spec["containers"]
    assert [port["name"] for port in gateway["ports"]] == ["admin", "callbacks"]
    assert one(found, "Service")["spec"]["ports"][0]["targetPort"] == ports["grpc"]


def test_envoys_metrics_are_scraped_through_the_network_policy() -> None:
    """ServiceMonitor, Service and NetworkPolicy name the same port."""
    found = manifests(rendered("production"))
    endpoint = one(found, "ServiceMonitor")["spec"]["endpoints"][1]
    (port,) = [port for port in one(found, "Service")["spec"]["ports"] if port["name"] == endpoint["port"]]
    assert endpoint["path"] == "/stats/prometheus"
    ingress = one(found, "NetworkPolicy")["spec"]["ingress"]
    assert port["targetPort"] in [allowed["port"] for allowed in ingress[1]["ports"]]


def test_limits_of_the_edge_are_settings_and_its_addresses_are_the_charts() -> None:
    """`config.edge` has what the gateway's own settings have."""
    options = ("--set", "config.edge.max_streams=2000", "--set-json", 'config.edge.origins=["https://app.example"]')
    configured = yaml.safe_load(one(manifests(rendered("production", *options)), "ConfigMap")["data"]["gateway.yaml"])
    assert configured["edge"]["max_streams"] == 2000
    assert configured["edge"]["origins"] == ["https://app.example"]
    assert configured["edge"]["listen"] == "0.0.0.0:50051"


def test_changed_limits_of_the_edge_restart_the_pods() -> None:
    """The configuration is made at the start of the pod."""

    def checksum(*options: str) -> str:
        template = one(manifests(rendered("production", *options)), "Deployment")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/config"])

    assert checksum("--set", "config.edge.max_streams=2000") != checksum()


def test_the_gateway_can_name_certificates_again_and_envoy_cannot() -> None:
    """In the folder of `edge-config`; the init container sees the files whose absence it reports."""
    found = manifests(rendered("production"))
    spec = one(found, "Deployment")["spec"]["template"]["spec"]
    folder = yaml.safe_load(one(found, "ConfigMap")["data"]["gateway.yaml"])["edge"]["folder"]
    configures, edge = spec["initContainers"]
    containers = [configures, edge, *spec["containers"]]
    is_read_only = [
        mounted.get("readOnly", False)
        for container in containers
        for mounted in container["volumeMounts"]
        if mounted["mountPath"] == folder
    ]
    assert is_read_only == [False, True, False]
    secrets = {"/etc/docpreview/tls", "/etc/docpreview/client-ca"}
    for container in containers:
        assert secrets <= {mounted["mountPath"] for mounted in container["volumeMounts"]}


def test_the_autoscaler_measures_the_gateways_container_alone() -> None:
    """70 % of the one core that its event loop can use, whatever Envoy beside it does."""
    cpu, _ = one(manifests(rendered("production")), "HorizontalPodAutoscaler")["spec"]["metrics"]
    target = {"type": "AverageValue", "averageValue": "700m"}
    wanted = {"container": "gateway", "name": "cpu", "target": target}
    assert cpu == {"type": "ContainerResource", "containerResource": wanted}


TOKEN = ("--set", "test.tlsSecretName=", "--set", "test.tokenSecretName=tok")


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ((), ["--cert=/etc/docpreview/tls/tls.crt"]),
        (TOKEN, []),
        (("--set", "test.tokenSecretName=tok"), []),
        (("--set", "test.tokenSecretName=tok", "--set", "edge.enabled=false"), ["--cert=/etc/docpreview/tls/tls.crt"]),
        (("--set", "test.tlsSecretName="), []),
    ],
)
def test_helm_test_shows_a_certificate_only_of_a_caller(options: tuple[str, ...], shown: list[str]) -> None:
    """Never the gateway's own, and behind the edge none beside a token."""
    (container,) = one(manifests(rendered("production", *options)), "Pod", "-test")["spec"]["containers"]
    assert [word for word in container["args"] if word.startswith("--cert=")] == shown
    assert any(word.startswith("--ca=") for word in container["args"])


@pytest.mark.parametrize(
    ("variant", "options", "said"),
    [
        (
            "production",
            (),
            ("Envoy; also JSON", "client certificates are optional", "docpreview-cloud-keys (cloud.yaml)"),
        ),
        (
            "production",
            (),
            ("corp-ca (ca.crt)", "docpreview-redis (url, ledger-url)", "docpreview-test-client (tls.crt, tls.key)"),
        ),
        ("production", (), ("may use ListPreviewJobs of documents-1250000000.", "cert-manager makes it")),
        ("production", ("--set", "edge.enabled=false"), ("none: callers reach", "client certificates are required")),
        ("production", TOKEN, ("tok (token): for helm test",)),
        ("production", ("--set", "test.tlsSecretName="), ("fails without one: set test.tokenSecretName",)),
        ("minimal", (), ("TLS:                         none",)),
        (
            "production",
            (),
            (
                "docpreview-ledger (ledger.key): the deployment's secret for creates",
                "create secret generic docpreview-ledger --from-literal=ledger.key=$(openssl rand -base64 32)",
            ),
        ),
        (
            "minimal",
            ("--set", "trialStore.enabled=true", "--set", "replicaCount=2"),
            ("ledger.keySecretName is not set", "one request_id may be several jobs", "create secret generic"),
        ),
        ("minimal", (), ("and so is the secret for creates", "and ledger.keySecretName.")),
        ("minimal", ("--set", "ledger.keySecretName=keys"), ("lost with this pod. Set sharedState",)),
    ],
)
def test_the_notes_name_tls_edge_secrets_and_the_caller_of_helm_test(
    variant: str, options: tuple[str, ...], said: tuple[str, ...], tmp_path: Path
) -> None:
    """What the person who installs must have or know."""
    notes = rendered_notes(tmp_path, variant, *options)
    for text in said:
        assert text in notes
