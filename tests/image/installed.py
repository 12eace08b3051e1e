"""The pods of a `helm install` as local containers, with their commands, variables and files.

Services are names in /etc/hosts for loopback of the test's own network; nothing else of Kubernetes is simulated.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.chart.helm import Manifest, manifests, one, rendered
from tests.image.containers import Run, bound
from tests.packaging.project import ROOT
from tests.programs import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = 65532


class Installed:
    """The objects of a values file, with Services as names of loopback; `secrets` are the existing Secrets."""

    def __init__(
        self, variant: str, *options: str, network: str, folder: Path, secrets: dict[str, dict[str, str]] | None = None
    ) -> None:
        self.objects = manifests(rendered(variant, *options))
        self._network, self._folder, self._secrets = network, folder, secrets or {}
        self._hosts = folder / "hosts"
        services = [item["metadata"] for item in self.objects if item["kind"] == "Service"]
        names = [f"{found['name']} {found['name']}.{found['namespace']}.svc" for found in services]
        self._hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", *names)))

    def run(self, kind: str, suffix: str = "") -> Run:
        """Parameters of the only container of this workload."""
        found = one(self.objects, kind, suffix)
        pod = found["spec"]["template"]["spec"] if kind == "Deployment" else found["spec"]
        (container,) = pod["containers"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = [
            self._mounted(volumes[mount["name"]], mount["mountPath"])
            for mount in container["volumeMounts"]
            if mount["mountPath"] != "/tmp"  # noqa: S108 - in the container, which always has one
        ]
        return Run(
            self._network,
            {item["name"]: self._value(item) for item in container.get("env", [])},
            (bound(self._hosts, "/etc/hosts"), bound(ROOT / "examples", "/examples"), *mounts),
            tuple(container.get("command", ())),
            tuple(container.get("args", ())),
        )

    def _value(self, variable: Manifest) -> str:
        if "value" in variable:
            return str(variable["value"])
        wanted = variable["valueFrom"]["secretKeyRef"]
        return self._secrets[wanted["name"]][wanted["key"]]

    def _mounted(self, volume: Manifest, place: str) -> dict[str, Any]:
        source = self._folder / f"{volume['name']}-{os.urandom(4).hex()}"
        source.mkdir()
        if "emptyDir" in volume:
            os.chown(source, NOBODY, NOBODY)
            return bound(source, place, writable=True)
        for name, text in self._files(volume).items():
            path = source / name
            path.write_text(text)
            # As Kubernetes does with fsGroup.
            os.chown(path, 0, NOBODY)
            path.chmod(volume.get("secret", {}).get("defaultMode", 0o644))
        return bound(source, place)

    def _files(self, volume: Manifest) -> dict[str, str]:
        if "configMap" in volume:
            name = volume["configMap"]["name"]
            maps = {item["metadata"]["name"]: item["data"] for item in self.objects if item["kind"] == "ConfigMap"}
            return dict(maps[name])
        keys = self._secrets[volume["secret"]["secretName"]]
        items = volume["secret"].get("items") or [{"key": key, "path": key} for key in keys]
        return {item["path"]: keys[item["key"]] for item in items}


@contextmanager
def store(network: str, folder: Path) -> Iterator[None]:
    """A real Redis server in place of the trial store's image, with the same arguments."""
    deployment = one(manifests(rendered("emulator")), "Deployment", "-trial-store")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    words = ["ip", "netns", "exec", network, need("redis-server"), *container["args"][1:]]
    with (folder / "store.log").open("wb") as log:
        process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()
