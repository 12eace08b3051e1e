"""Where an operator sets each of the gateway's settings in the chart: by values, below `config`, or nowhere."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from docpreview_gateway.settings.loading import Settings
from tests.chart.helm import CHART, manifests, one, rendered
from tests.packaging.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BY_VALUES = {
    "auth": {"minimal": ["auth.insecure=true"]},
    "auth.jwt[].issuer": {"multi-region": ["auth.jwt[0].issuer=https://x"]},
    "auth.jwt[].audience": {"multi-region": ["auth.jwt[0].audience=x"]},
    "auth.jwt[].jwks_url": {"multi-region": ["auth.jwt[0].jwks_url=https://x"]},
    "auth.jwt[].jwks_file": {"multi-region": ["auth.jwt[0].jwks_file=/keys/x.json"]},  # mounted by extraVolumes
    "auth.jwt[].algorithms[]": {"multi-region": ["auth.jwt[0].algorithms={ES256}"]},
    "buckets[].name": {"minimal": ["buckets[0].name=x-12345"]},
    "buckets[].region": {"minimal": ["buckets[0].region=ap-x"]},
    "buckets[].credentials": {"minimal": ["buckets[0].credentials=main"]},
    "buckets[].default_queue_id": {"minimal": ["buckets[0].default_queue_id=p1"]},
    "buckets[].exclusive": {"minimal": ["buckets[0].exclusive=true"]},
    "buckets[].upload_credentials": {"minimal": ["buckets[0].upload_credentials=main"]},
    "callbacks.mode": {"production": ["callbacks.mode=queue"]},
    "callbacks.public_url": {"production": ["callbacks.publicUrl=https://x.example.com/cb"]},
    "credentials.*.file": {"minimal": ["credentials.main.secretName=x"]},
    "ledger.key_file": {"minimal": ["ledger.keySecretName=x"]},
    "policy.file": {
        "multi-region": ["policy.secretName=x"],
        "production": ["policy.document.callers.billing.weight=2"],
        "minimal": ["auth.insecure=false,policy.configMapName=x,tls.secretName=x"],
    },
    "replicas": {"multi-region": ["replicaCount=2"], "production": ["autoscaling.maxReplicas=7"]},
    "shared_state.url": {
        "multi-region": ["sharedState.url=redis://x"],
        "emulator": ["trialStore.enabled=true"],
        "production": ["sharedState.secretName=x"],
    },
    "shared_state.ledger_url": {"production": ["sharedState.ledgerUrlKey=x"]},
    "upstream.proxy": {
        "multi-region": ["proxy.url=http://x:3128"],
        "emulator": ["proxy.url=http://x:3128"],
        "production": ["proxy.secretName=x"],
    },
    "tls.certificate": {"minimal": ["tls.secretName=x"], "production": ["certificate.enabled=true"]},
    "tls.key": {"minimal": ["tls.secretName=x"], "production": ["certificate.enabled=true"]},
    "tls.client_ca": {"production": ["tls.clientCaSecretName=x"]},
    "tls.client_crl": {"production": ["tls.clientCrlSecretName=x"]},
    "tls.plaintext": {"minimal": ["tls.plaintext=true"]},
}
"""Settings with values of their own, and values that set each of them, as a variant and what is set in it."""

CHARTS_OWN = {
    "listen": "the Service's target port",
    "admin_listen": "the Service's target port, and the probes'",
    "callbacks.listen": "the target port of a Service, with callbacks.publicUrl",
    "edge.listen": "the Service's target port, with edge.enabled",
    "edge.metrics_listen": "scraped by the ServiceMonitor",
    "edge.admin_listen": "between the containers of a pod",
    "edge.folder": "a volume of the pod",
    "state_dir": "a volume of the pod; state.existingClaim says which",
    "credentials.*.secret_id": "in the file of an existing Secret, never in a ConfigMap",
    "credentials.*.secret_key": "in the file of an existing Secret, never in a ConfigMap",
    "credentials.*.token": "in the file of an existing Secret, never in a ConfigMap",
}
"""Settings that operators do not set, with the reason."""


def _leaves(node: dict[str, Any], defs: dict[str, Any], path: str = "") -> Iterator[str]:
    """Paths of all keys without keys below them: `[]` is an item of a list, `*` a key of a map."""
    if "$ref" in node:
        yield from _leaves(defs[node["$ref"].rpartition("/")[2]], defs, path)
        return
    inner = [found for part in node.get("anyOf", []) if part != {"type": "null"} for found in _leaves(part, defs, path)]
    below = {f"{path}.{name}".lstrip("."): part for name, part in node.get("properties", {}).items()}
    below |= {f"{path}.*": part for part in node.get("patternProperties", {}).values()}
    below |= {
        f"{path}{end}": node[key] for key, end in (("items", "[]"), ("additionalProperties", ".*")) if _is(node, key)
    }
    yield from dict.fromkeys(
        [*inner, *(found for name, part in below.items() for found in _leaves(part, defs, name))] or [path]
    )


def _is(node: dict[str, Any], key: str) -> bool:
    return isinstance(node.get(key), dict)


def _settings() -> set[str]:
    schema = Settings.model_json_schema()
    return set(_leaves(schema, schema["$defs"]))


def _passed_through() -> set[str]:
    schema = json.loads((CHART / "values.schema.json").read_text())
    return set(_leaves(schema["properties"]["config"], schema["$defs"]))


def test_every_setting_is_set_by_values_or_below_config_or_is_the_charts_own_business() -> None:
    """In one way, so that no value contradicts another. A new setting that is none of these fails."""
    ways = [set(BY_VALUES), set(CHARTS_OWN), _passed_through()]
    assert set.union(*ways) == _settings()
    assert sum(map(len, ways)) == len(_settings())


def _cases() -> list[tuple[str, str, str]]:
    return [
        (setting, variant, ",".join(values)) for setting, ways in BY_VALUES.items() for variant, values in ways.items()
    ]


@pytest.mark.parametrize(("setting", "variant", "values"), _cases())
def test_a_setting_with_values_of_its_own_is_in_the_gateways_file_or_variables(
    setting: str, variant: str, values: str
) -> None:
    """Addresses that may hold a password are variables from a Secret."""
    options = ("--set", "tls.clientCaSecretName=x", "--set", values) if "client" in setting else ("--set", values)
    found = manifests(rendered(variant, *options))
    variable = "DOCPREVIEW_" + setting.replace(".", "__").upper()
    (gateway,) = one(found, "Deployment")["spec"]["template"]["spec"]["containers"]
    named = {item["name"] for item in gateway["env"] if "valueFrom" in item}
    configured = yaml.safe_load(one(found, "ConfigMap")["data"]["gateway.yaml"])
    assert variable in named or _at(configured, re.split(r"(?=\[)|\.", setting))


def _at(node: Any, path: list[str]) -> bool:
    """Whether something is set at the path, in any item of a list and any key of a map."""
    if not path:
        return node not in (None, "", [], {})
    key, *rest = path
    if key in {"*", "[]"}:
        return any(_at(item, rest) for item in (node.values() if key == "*" else node))
    return key in node and _at(node[key], rest)


def test_every_setting_that_is_a_file_has_a_value_that_mounts_it() -> None:
    """A path below `config` would be in no container; only a JWKS file has a volume of the operator's own."""
    paths = {
        setting
        for setting in _settings()
        if re.search(r"(file|certificate|key|client_ca|client_crl|_dir|folder)$", setting)
    }
    assert paths <= set(BY_VALUES) | set(CHARTS_OWN)


def test_what_is_below_config_reaches_the_gateways_file_as_it_is(tmp_path: Path) -> None:
    """With the settings of the example in docs/configuration.md that are not set by values."""
    (text,) = re.findall("```yaml\n# gateway.yaml: (?:.*\n)+?```", (ROOT / "docs" / "configuration.md").read_text())
    example = yaml.safe_load(text.removeprefix("```yaml").removesuffix("```"))
    allowed = _passed_through()
    wanted = {key: left for key, part in example.items() if (left := _kept(part, key, allowed)) is not None}
    assert len(wanted) >= 8
    (tmp_path / "values.yaml").write_text(yaml.safe_dump({"config": wanted}))
    found = manifests(rendered("production", "--values", str(tmp_path / "values.yaml")))
    configured = yaml.safe_load(one(found, "ConfigMap")["data"]["gateway.yaml"])
    assert _missing(wanted, configured) == []


def _kept(node: Any, path: str, allowed: set[str]) -> Any:
    """Without what may not be below `config`; None when nothing is left."""
    if isinstance(node, dict) and not any(name.startswith(f"{path}.*") for name in allowed):
        left = {key: kept for key, part in node.items() if (kept := _kept(part, f"{path}.{key}", allowed)) is not None}
        return left or None
    known = any(name == path or name.startswith((f"{path}[]", f"{path}.*")) for name in allowed)
    return node if known else None


def _missing(wanted: Any, found: Any, path: str = "") -> list[str]:
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [line for key, part in wanted.items() for line in _missing(part, found.get(key), f"{path}.{key}")]
    return [] if wanted == found else [f"{path}: {found}"]
