"""The files and variables of a pod's container on this machine, for the commands that it runs."""

from __future__ import annotations

import datetime as dt
import os
from functools import cache
from typing import TYPE_CHECKING, Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chart.helm import Manifest

MOUNTS = "/etc/docpreview/"
POLICY = """
version: 1
callers:
  support:
    identities: [{jwt: {issuer: "https://idp.corp.example", value: support}}]
    methods: [GetPreviewJob]
    buckets: [{bucket: docs-gz-1250000000, input_prefixes: [""]}]
"""
LEDGER_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
WEBHOOK_SECRET = f"whsec_{LEDGER_KEY}"
CLOUD_KEYS = "secret_id: some-id\nsecret_key: some-key\n"


def mount(found: list[Manifest], container: dict[str, Any], folder: Path) -> None:
    """Write the container's files below `folder`, as Kubernetes mounts them; Secrets have contents of this test."""
    (deployment,) = [
        item
        for item in found
        if item["kind"] == "Deployment" and "gateway" in item["metadata"]["labels"]["app.kubernetes.io/component"]
    ]
    sources = {volume["name"]: volume for volume in deployment["spec"]["template"]["spec"]["volumes"]}
    for mounted in container["volumeMounts"]:
        if mounted["mountPath"].startswith(MOUNTS):
            place = folder / mounted["mountPath"].removeprefix(MOUNTS)
            place.mkdir(parents=True, exist_ok=True)
            for name, text in _files(sources[mounted["name"]], found).items():
                (place / name).write_text(text.replace(MOUNTS, f"{folder}/"))


def environment(container: dict[str, Any], folder: Path) -> dict[str, str]:
    """The variables of the container, with this machine's own beside them."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("DOCPREVIEW_")}
    return own | {
        item["name"]: item.get("value", "redis://user:secret@redis:6379/0").replace(MOUNTS, f"{folder}/")
        for item in container["env"]
    }


def _files(volume: dict[str, Any], found: list[Manifest]) -> dict[str, str]:
    if "emptyDir" in volume:
        return {}
    if "secret" in volume:
        if volume["name"] == "webhooks":
            # All keys of the Secret, whatever they are called: here the one of the policy's target.
            return {"orders": WEBHOOK_SECRET}
        return {item["path"]: text for item, text in _secret(volume["secret"]["items"])}
    name = volume["configMap"]["name"]
    (data,) = [item["data"] for item in found if item["kind"] == "ConfigMap" and item["metadata"]["name"] == name]
    return dict(data)


@cache
def _authority() -> trustme.CA:
    return trustme.CA()


def _revocations() -> str:
    """An empty revocation list of the authority."""
    name = x509.load_pem_x509_certificate(_authority().cert_pem.bytes()).subject
    begin = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    empty = x509.CertificateRevocationListBuilder().issuer_name(name).last_update(begin)
    key = serialization.load_pem_private_key(_authority().private_key_pem.bytes(), None)
    signed = empty.next_update(begin + dt.timedelta(days=30000)).sign(key, hashes.SHA256())  # type: ignore[arg-type]  # an EC key
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def _secret(items: list[dict[str, str]]) -> list[tuple[dict[str, str], str]]:
    authority = _authority()
    issued = authority.issue_cert("gateway", not_after=dt.datetime(2099, 1, 1, tzinfo=dt.UTC))
    contents = {
        "cloud.yaml": CLOUD_KEYS,
        "ledger.key": LEDGER_KEY,
        "policy.yaml": POLICY,
        "ca.crt": authority.cert_pem.bytes().decode(),
        "ca.crl": _revocations(),
        "tls.crt": issued.cert_chain_pems[0].bytes().decode(),
        "tls.key": issued.private_key_pem.bytes().decode(),
    }
    return [(item, contents[item["path"]]) for item in items]
