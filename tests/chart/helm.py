"""Helpers for tests of the chart with the real `helm`."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml

from tests.packaging.project import ROOT
from tests.programs import need

if TYPE_CHECKING:
    from pathlib import Path

CHART = ROOT / "helm" / "docpreview-gateway"
VARIANTS = tuple(sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml")))
MINORS = ("1.29", "1.36", "1.37")
"""Kubernetes minor versions: the chart's oldest supported one, and the newest two."""
RELEASE, NAMESPACE = "preview", "docs"
Manifest = dict[str, Any]


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([need("helm"), *words], check=False, capture_output=True, text=True, timeout=60, cwd=ROOT)


def values_of(variant: str) -> Path:
    return CHART / "ci" / f"{variant}-values.yaml"


@cache
def rendered(variant: str, *options: str, minor: str = MINORS[-1]) -> str:
    """All manifests of a values file, as text."""
    version = ("--kube-version", f"{minor}.0", "--namespace", NAMESPACE)
    done = helm("template", RELEASE, str(CHART), *version, "--values", str(values_of(variant)), *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered_notes(folder: Path, variant: str, *options: str) -> str:
    """What `helm install` says at its end. Helm renders notes for a cluster only, so here as a manifest."""
    chart = folder / "docpreview-gateway"
    shutil.copytree(CHART, chart)
    (chart / "templates" / "NOTES.txt").rename(chart / "notes")
    (chart / "templates" / "notes.yaml").write_text('notes: {{ tpl (.Files.Get "notes") . | toJson }}')
    of_notes = ("--show-only", "templates/notes.yaml", "--values", str(values_of(variant)), *options)
    done = helm("template", RELEASE, str(chart), "--namespace", NAMESPACE, *of_notes)
    assert done.returncode == 0, done.stderr
    notes: str = yaml.safe_load(done.stdout)["notes"]
    return notes


def refused(variant: str, *options: str, minor: str = MINORS[-1]) -> str:
    """Helm's error for values that it refuses."""
    version = ("--kube-version", f"{minor}.0")
    done = helm("template", RELEASE, str(CHART), *version, "--values", str(values_of(variant)), *options)
    assert done.returncode != 0, done.stdout
    return done.stderr


def manifests(text: str) -> list[Manifest]:
    return [found for found in yaml.safe_load_all(text) if found]


def one(found: list[Manifest], kind: str, suffix: str = "") -> Manifest:
    """The only object of this kind whose name ends with `suffix`."""
    name = f"{RELEASE}-docpreview-gateway{suffix}"
    (it,) = [item for item in found if item["kind"] == kind and item["metadata"]["name"] == name]
    return it


def pods(found: list[Manifest]) -> list[tuple[str, Manifest]]:
    """Name and pod specification of every workload."""
    return [
        (item["metadata"]["name"], item["spec"]["template"]["spec"] if item["kind"] == "Deployment" else item["spec"])
        for item in found
        if item["kind"] in {"Deployment", "Pod"}
    ]
