"""Archives in the OCI layout, which hold an image or a chart as a registry does; and a registry on loopback."""

from __future__ import annotations

import json
import subprocess
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Archive:
    """An archive with one image, open for reading."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        (image,) = self._json("index.json")["manifests"]
        self.manifest: dict[str, Any] = self._json(_blob(image))

    def config(self) -> dict[str, Any]:
        """The image's configuration: `config` is what a container gets from it."""
        return self._json(_blob(self.manifest["config"]))

    def layers(self) -> Iterator[tarfile.TarFile]:
        """The layers from the lowest; the last file of a name is the one that a container sees."""
        for layer in self.manifest["layers"]:
            with tarfile.open(fileobj=self._tar.extractfile(_blob(layer))) as found:
                yield found

    def _json(self, name: str) -> dict[str, Any]:
        file = self._tar.extractfile(name)
        found: dict[str, Any] = json.load(file) if file else {}
        return found


def _blob(descriptor: dict[str, Any]) -> str:
    return f"blobs/{descriptor['digest'].replace(':', '/')}"


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """The archive of this path."""
    with tarfile.open(path) as tar:
        yield Archive(tar)


def packed(layout: Path, path: Path) -> None:
    """Write the folder of an OCI layout into an archive, without times and owners."""
    with tarfile.open(path, "w") as tar:
        for file in sorted(file for file in layout.rglob("*") if file.is_file()):
            member = tarfile.TarInfo(str(file.relative_to(layout)))
            member.size = file.stat().st_size
            with file.open("rb") as content:
                tar.addfile(member, content)


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Host and port of a registry on loopback that keeps its blobs in the folder; it ends with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    serve = ("crane", "registry", "serve", "--address", "127.0.0.1:0", "--disk", str(folder))
    with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - a tool of the PATH
        try:
            assert process.stderr is not None  # noqa: S101 - a pipe
            for line in process.stderr:
                if "serving on port " in line:
                    break
            yield f"127.0.0.1:{line.rpartition(' ')[2].strip()}"
        finally:
            process.kill()
