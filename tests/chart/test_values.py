"""Validation of values: invalid ones are refused before the installation, with their path and a remedy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.chart.helm import CHART, helm, refused, rendered, values_of

if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN = {"global", "extraObjects", "extraVolumes", "nodeAffinity", "podAffinity", "podAntiAffinity"}
"""Kubernetes' own structures, which Kubernetes validates itself."""

OPEN_IN_PYDANTIC = {"default", "force", "presets"}
"""Options of jobs, which the policy's parser checks against the contract."""


CALLED_BACK = (
    "callbacks.publicUrl=https://x.example.com",
    "networkPolicy.callbacks[0].podSelector.matchLabels.app=ingress",
)
WORDS = {"items", "anyOf", "additionalProperties", "patternProperties", "properties", "$defs"}


@pytest.mark.parametrize(
    ("value", "path", "name"),
    [
        ("imagee.tag=1", "''", "imagee"),
        ("image.repositry=x", "'/image'", "repositry"),
        ("config.drain.delay_secnds=3", "'/config/drain'", "delay_secnds"),
        ("config.limits.anonymous.rate.per_secnd=3", "'/config/limits/anonymous/rate'", "per_secnd"),
        ("config.listen=0.0.0.0:1", "'/config'", "listen"),
        ("config.shared_state.url=redis://x", "'/config/shared_state'", "url"),
        ("config.edge.listen=0.0.0.0:1", "'/config/edge'", "listen"),
        ("config.ledger.key_file=/x", "'/config/ledger'", "key_file"),
        ("buckets[0].regio=x", "'/buckets/0'", "regio"),
        ("credentials.main.secret_key=x", "'/credentials/main'", "secret_key"),
        ("networkPolicy.callers[0].podSelektor.a=b", "'/networkPolicy/callers/0'", "podSelektor"),
        ("metrics.serviceMonitor.intervall=1m", "'/metrics/serviceMonitor'", "intervall"),
        ("certificate.issuerRef.nam=x", "'/certificate/issuerRef'", "nam"),
        ("resources.requests.cqu=1", "'/resources/requests'", "cqu"),
        ("topologySpread.when=x", "'/topologySpread'", "when"),
        ("grpcRoute.parentRefs[0].nam=x", "'/grpcRoute/parentRefs/0'", "nam"),
    ],
)
def test_a_misspelt_key_is_refused_with_its_path(value: str, path: str, name: str) -> None:
    """By the schema of values."""
    said = refused("minimal", "--set", value)
    assert f"at {path}" in said
    assert f"'{name}' not allowed" in said


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("replicaCount=0", "/replicaCount"),
        ("config.workers=many", "/config/workers"),
        ("config.drain.grace_seconds=9999", "/config/drain/grace_seconds"),
        ("config.logging.level=LOUD", "/config/logging/level"),
        ("service.port=99999", "/service/port"),
        ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("image.repository=", "/image/repository"),
        ("emulator.image=", "/emulator/image"),
        ("sharedState.urlKey=", "/sharedState/urlKey"),
    ],
)
def test_a_value_of_the_wrong_kind_or_range_is_refused_with_its_path(value: str, path: str) -> None:
    """Including the gateway's own settings."""
    assert f"at '{path}'" in refused("minimal", "--set", value)


def test_null_in_place_of_any_value_is_refused_in_words_or_does_no_harm() -> None:
    """Null takes the chart's own value away, and templates that need it would tell of their own lines."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    inner = [f"{name}.{below}" for name, found in values.items() if isinstance(found, dict) for below in found]
    refusals = {}
    for path in [*values, *inner]:
        done = helm("template", "x", str(CHART), "--values", str(values_of("minimal")), "--set", f"{path}=null")
        refusals[path] = done.stderr
        assert "nil pointer" not in done.stderr, path
        assert "error calling" not in done.stderr, path
        assert "wrong type" not in done.stderr, path
    for name in ("policy", "credentials", "state", "edge", "config", "sharedState"):
        assert f"missing property '{name}'" in refusals[name]
    assert "at '/service': missing property 'port'" in refusals["service.port"]


@pytest.mark.parametrize(
    "password", ["redis://:s3cret@redis:6379/0", "rediss://user:s3cret@redis", "redis://:s3@cret@r"]
)
def test_an_address_with_a_password_is_refused_because_it_would_be_in_a_configmap(password: str) -> None:
    """The message says where it belongs, and does not show it."""
    said = refused("multi-region", "--set", f"sharedState.url={password}")
    assert "sharedState.url: has a password" in said
    assert "sharedState.secretName: kubectl create secret generic" in said
    assert "s3" not in said


def test_a_proxy_with_a_password_is_refused_because_it_would_be_in_a_configmap() -> None:
    """As an address of shared state."""
    said = refused("minimal", "--set", "proxy.url=http://user:s3cret@proxy:3128")
    assert "proxy.url: has a user or a password" in said
    assert "proxy.secretName: kubectl create secret generic" in said
    assert "s3cret" not in said


@pytest.mark.parametrize(
    ("variant", "values", "said"),
    [
        ("minimal", ["buckets[0].name=documents"], "buckets[0].name: documents must have the form <name>-<appid>"),
        ("minimal", [f"buckets[0].name={'d' * 59}-12345"], "must have the form <name>-<appid>"),
        ("minimal", ["buckets[0].region="], "buckets[0].region: must be a region in the cloud's spelling"),
        ("minimal", ["buckets[0].region=Guangzhou"], "buckets[0].region: must be a region in the cloud's spelling"),
        (
            "multi-region",
            ["buckets[1].name=docs-gz-1250000000"],
            "buckets: docs-gz-1250000000 is listed more than once",
        ),
        (
            "multi-region",
            ["sharedState.url=redis+sentinel://s1/main?sentinel_password=x"],
            "sharedState.url: has a password",
        ),
        ("multi-region", ["sharedState.url=valkey://redis"], "sharedState.url: must begin with redis://"),
        ("multi-region", ["sharedState.url=redis"], "sharedState.url: must begin with redis://"),
        ("minimal", ["proxy.url=https://proxy:3128"], "proxy.url: must be http://host:port"),
        ("minimal", ["proxy.url=http://proxy"], "proxy.url: must be http://host:port"),
        ("minimal", ["proxy.url=http://x:3128,proxy.secretName=x"], "proxy: one of proxy.url and proxy.secretName"),
        ("minimal", ["service.port=9464"], "service.adminPort: has the number of service.port"),
        ("production", ["service.adminPort=9465"], "service: port 9465 is that of the edge's metrics"),
        ("minimal", ["fullnameOverride=A_b"], "fullnameOverride: the objects would be called A_b"),
        ("minimal", ["fullnameOverride=1abc"], "fullnameOverride: the objects would be called 1abc"),
        ("minimal", ["nameOverride=a.b"], "fullnameOverride: the objects would be called preview-a.b"),
        ("minimal", ["extraEnv[0].name=DOCPREVIEW_LISEN"], "extraEnv: DOCPREVIEW_LISEN is no setting of the gateway"),
        ("minimal", ["extraEnv[0].name=DOCPREVIEW_RETRY__MAX"], "extraEnv: DOCPREVIEW_RETRY__MAX is no setting"),
        ("minimal", ["buckets=null"], "buckets: name at least one"),
        ("minimal", ["buckets[0].credentials=other"], "credentials.other: missing"),
        ("minimal", ["buckets[0].upload_credentials=writer"], "credentials.writer: missing"),
        ("minimal", ["tls.clientCaSecretName=ca"], "tls.clientCaSecretName: client certificates need a certificate"),
        (
            "minimal",
            ["tls.secretName=x", "tls.clientCrlSecretName=x"],
            "tls.clientCrlSecretName: revocation lists of which",
        ),
        ("minimal", ["auth.insecure=false"], "who may call?"),
        ("minimal", ["policy.secretName=x"], "(set: auth.insecure, policy.secretName)"),
        ("minimal", ["auth.insecure=false", "policy.secretName=x"], "tls: a policy needs"),
        ("production", ["webhooks.secretName="], "webhooks.secretName: missing, and policy.document.webhooks.orders"),
        ("minimal", ["webhooks.secretName=x"], "webhooks.secretName: the targets of webhooks are in the policy"),
        ("production", ["tls.plaintext=true"], "take one of them away"),
        ("minimal", ["replicaCount=2"], "sharedState: more than one gateway"),
        ("minimal", ["autoscaling.enabled=true"], "sharedState: more than one gateway"),
        ("production", ["ledger.keySecretName="], "ledger.keySecretName: missing, and sharedState is set"),
        ("production", ["trialStore.enabled=true"], "one of sharedState.url, sharedState.secretName and trialStore"),
        ("minimal", ["test.caSecretName=x"], "test.caSecretName, test.serverName: the gateway has no certificate"),
        (
            "minimal",
            ["tls.secretName=x", "test.tlsSecretName=x"],
            "test.tlsSecretName: a caller's certificate, and the gateway asks for none: set tls.clientCaSecretName",
        ),
        ("production", ["autoscaling.minReplicas=99"], "autoscaling.minReplicas: must not be more"),
        ("production", ["certificate.issuerRef.name="], "certificate.issuerRef.name: which issuer"),
        ("production", ["grpcRoute.enabled=true"], "grpcRoute.parentRefs: which Gateway"),
        ("minimal", ["callbacks.ingress.enabled=true"], "callbacks.publicUrl: under which address"),
        ("minimal", ["callbacks.mode=queue"], "callbacks.publicUrl: under which address"),
        ("minimal", [*CALLED_BACK, "callbacks.mode=queue"], "ledger.keySecretName: callbacks.mode is queue"),
        ("minimal", ["callbacks.publicUrl=https://x.example.com"], "networkPolicy.callbacks: who passes callbacks on"),
        ("production", [f"callbacks.publicUrl=https://{'x' * 70}"], "callbacks.publicUrl: may have 77 characters"),
        ("production", ["callbacks.publicUrl=https://x/?a=b"], "callbacks.publicUrl: must be scheme, host"),
        ("production", ["callbacks.httpRoute.enabled=true"], "callbacks.httpRoute.parentRefs: which Gateway"),
        ("minimal", ["config.edge.max_streams=5"], "config.edge: has limits of an edge that is not there"),
    ],
)
def test_contradictory_values_are_refused_with_a_remedy(variant: str, values: list[str], said: str) -> None:
    """Otherwise the error would appear in the pod's log only."""
    assert said in refused(variant, *(word for value in values for word in ("--set", value)))


def test_a_cluster_that_is_too_old_is_refused_with_the_version_needed() -> None:
    """A helm without a cluster renders the chart."""
    assert "Kubernetes v1.28.0: this chart needs 1.29" in refused("minimal", minor="1.28")
    assert helm("template", "x", str(CHART), "--values", str(values_of("minimal"))).returncode == 0


def test_the_schema_lists_the_allowed_keys_of_every_map() -> None:
    """Except maps that are Kubernetes' or the contract's."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert sorted(set(_open_maps(schema, "")) - OPEN - OPEN_IN_PYDANTIC) == []


def _open_maps(node: Any, name: str) -> Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from _open_maps(item, name)
    elif isinstance(node, dict):
        if node.get("type") == "object" and "maxProperties" not in node:
            extra = node.get("additionalProperties", True)
            if extra is True or extra == {}:
                yield name
        for key, value in node.items():
            here = name if key in WORDS or key.startswith("^") else key
            yield from _open_maps(value, here)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("image.digest=sha256:abc", "image: docpreview-gateway@sha256:abc"),
        ("fullnameOverride=gate", "name: gate-headless"),
        ("state.existingClaim=ledger", "claimName: ledger"),
        ("ledger.keySecretName=keys", "secretName: keys"),
        ("service.port=443", "port: 443"),
        ("extraEnv[0].name=DOCPREVIEW_LOGGING__LEVEL", "name: DOCPREVIEW_LOGGING__LEVEL"),
        ("extraEnv[0].name=DOCPREVIEW_CREDENTIALS__MAIN__TOKEN", "name: DOCPREVIEW_CREDENTIALS__MAIN__TOKEN"),
        ("extraEnv[0].name=HTTPS_PROXY", "name: HTTPS_PROXY"),
    ],
)
def test_a_changed_value_appears_in_the_rendered_object(value: str, shown: str) -> None:
    """One case per value."""
    assert shown in rendered("minimal", "--set", value)
