"""Blocks that are read rather than run: YAML by what reads it, JSON, and drawings."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from docpreview_gateway.settings.loading import Settings, load
from docpreview_gateway.settings.policy_file import parsed
from tests.chart.helm import CHART, helm
from tests.documents.session import NAMED
from tests.prometheus_server import promtool

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.documents.blocks import Block

BASE = {
    "buckets": [{"name": "documents-1250000000", "region": "ap-guangzhou", "credentials": "main"}],
    "credentials": {"main": {"secret_id": "example-secret-id", "secret_key": "example-secret-key"}},
    "policy": {"file": "/etc/docpreview/policy.yaml"},
    "tls": {"certificate": "/etc/docpreview/tls/tls.crt", "key": "/etc/docpreview/tls/tls.key"},
}
"""What a fragment of the settings stands in."""
POLICY = {"version", "callers", "presets", "webhooks"}
WEBHOOK_SECRET = f"whsec_{'A' * 43}="
DRAWN = "text"


def reader(block: Block) -> str | None:
    """What reads a block: a key of `READERS`, or nothing that this module knows."""
    if block.language in {DRAWN, "json"}:
        return block.language
    if block.language != "yaml":
        return None
    keys = set(yaml.safe_load(block.text))
    if keys <= set(Settings.model_fields):
        return "settings"
    if keys <= POLICY:
        return "policy"
    if keys <= set(yaml.safe_load((CHART / "values.yaml").read_text())):
        return "values"
    return "rules" if keys == {"groups"} else None


def load_settings(text: str) -> None:
    """By the gateway's own loader: a whole file as it is, a fragment within the smallest settings."""
    values: dict[str, Any] = yaml.safe_load(text)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "gateway.yaml")
        path.write_text(text if NAMED.match(text) else yaml.safe_dump(BASE | values))
        load(path)


def load_policy(text: str) -> None:
    """By the gateway's own loader. The secrets of webhooks, which it reads, are this test's."""
    with tempfile.TemporaryDirectory() as folder:
        path, secret = Path(folder, "policy.yaml"), Path(folder, "secret")
        secret.write_text(WEBHOOK_SECRET)
        path.write_text(re.sub(r"secret_file: \S+", f"secret_file: {secret}", text))
        parsed(path)


def load_values(text: str) -> None:
    """By helm, with the chart's schema."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "values.yaml")
        path.write_text(text)
        done = helm("template", "preview", str(CHART), "--values", str(path))
    assert done.returncode == 0, done.stderr


def load_rules(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rules.yaml")
        path.write_text(text)
        done = promtool("check", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def load_drawing(text: str) -> None:
    """It has no command: that would be a console block."""
    found = [line for line in text.splitlines() if line.lstrip().startswith("$ ")]
    assert found == [], f"make it a console block: {found}"


READERS: dict[str, tuple[str, Callable[[str], object]]] = {
    "settings": ("loaded by the gateway's settings", load_settings),
    "policy": ("loaded by the gateway's policy", load_policy),
    "values": ("rendered by helm template", load_values),
    "rules": ("checked by promtool", load_rules),
    "json": ("parsed", json.loads),
    DRAWN: ("a drawing or output: nothing to run", load_drawing),
}
"""How each kind is read, in words and as a function that fails."""
