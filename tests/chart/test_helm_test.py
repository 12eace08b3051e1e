"""The pod of `helm test`: it starts with Secrets of `kubectl create secret`, and the notes name their keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.chart.helm import manifests, one, rendered, rendered_notes

if TYPE_CHECKING:
    from pathlib import Path

OWN = "--set=tls.secretName=made-by-kubectl"
MTLS = (OWN, "--set=tls.clientCaSecretName=callers", "--set=test.tlsSecretName=caller")
CERT_MANAGER = ("--set=certificate.enabled=true", "--set=certificate.issuerRef.name=corp")
CASES = {
    "no TLS": ((), {}, set[str]()),
    "a certificate of a public authority": ((OWN,), {}, {"--tls"}),
    "another authority": ((OWN, "--set=test.caSecretName=corp"), {"corp": ["ca.crt"]}, {"--ca"}),
    "another name": ((OWN, "--set=test.serverName=previews.example"), {}, {"--tls", "--server-name"}),
    "cert-manager": (CERT_MANAGER, {"preview-docpreview-gateway-tls": ["ca.crt"]}, {"--ca"}),
    "a caller's certificate": (MTLS, {"caller": ["tls.crt", "tls.key"]}, {"--tls", "--cert", "--key"}),
    "a caller's certificate, and another authority": (
        (*MTLS, "--set=test.caSecretName=corp"),
        {"corp": ["ca.crt"], "caller": ["tls.crt", "tls.key"]},
        {"--ca", "--cert", "--key"},
    ),
}
"""Options of the minimal values; keys that the pod takes from each Secret; options of its command for TLS."""


def pod(*options: str) -> dict[str, Any]:
    found: dict[str, Any] = one(manifests(rendered("minimal", *options)), "Pod", "-test")["spec"]
    return found


def keys_of(spec: dict[str, Any]) -> dict[str, list[str]]:
    secrets = [volume["secret"] for volume in spec["volumes"] if "secret" in volume]
    return {secret["secretName"]: [item["key"] for item in secret["items"]] for secret in secrets}


@pytest.mark.parametrize(("options", "keys", "said"), CASES.values(), ids=CASES)
def test_the_pod_asks_no_secret_for_a_key_that_it_does_not_have(
    options: tuple[str, ...], keys: dict[str, list[str]], said: set[str]
) -> None:
    """`kubectl create secret tls` makes tls.crt and tls.key; only cert-manager puts ca.crt beside them."""
    spec = pod(*options)
    assert keys_of(spec) == keys
    words = {word.partition("=")[0] for word in spec["containers"][0]["args"]}
    assert words & {"--tls", "--ca", "--cert", "--key", "--server-name"} == said


@pytest.mark.parametrize("options", [case[0] for case in CASES.values()], ids=CASES)
def test_every_file_that_the_command_names_is_mounted(options: tuple[str, ...]) -> None:
    """Else it would fail in the pod's log."""
    spec = pod(*options)
    (container,) = spec["containers"]
    folders = {mounted["name"]: mounted["mountPath"] for mounted in container["volumeMounts"]}
    files = {
        f"{folders[volume['name']]}/{item['path']}"
        for volume in spec["volumes"]
        for item in volume.get("secret", {}).get("items", [])
    }
    assert set(re.findall(r"=(/\S+)", "\n".join(container["args"]))) == files


@pytest.mark.parametrize(("options", "keys", "said"), CASES.values(), ids=CASES)
def test_the_notes_name_every_secret_of_the_pod_with_its_keys(
    options: tuple[str, ...], keys: dict[str, list[str]], said: set[str], tmp_path: Path
) -> None:
    """And how to trust another authority, where the pod trusts public ones only."""
    notes = rendered_notes(tmp_path, "minimal", *options)
    for secret, names in keys.items():
        assert f"  {secret} ({', '.join(names)}): " in notes
    assert ("set test.caSecretName, and make it with" in notes) == ("--tls" in said)
