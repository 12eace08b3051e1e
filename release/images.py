"""The images as OCI archives, each with its SBOM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from release import oci, sbom
from release.packages import Work, need, run

if TYPE_CHECKING:
    from pathlib import Path

LOCAL = "localhost/docpreview"
"""Prefix of the images' names in the local storage of buildah."""


def images(work: Work) -> None:
    """Both images, built by `make image` from the clean checkout; IMAGE_BASE and IMAGE_BUILD_ARGS apply."""
    for target in sbom.CONTENTS:
        name = f"docpreview-{target}"
        run(
            "make",
            "image",
            f"IMAGE_TARGETS={target}",
            "IMAGE_BUILDER=buildah",
            f"IMAGE_PREFIX={LOCAL}",
            cwd=work.source,
        )
        archive = work.out / f"{name}-{work.version}.oci.tar"
        local = f"{LOCAL}-{target}:{work.version}"
        run("buildah", "push", local, f"oci-archive:{archive}:{name}:{work.version}", cwd=work.source)
        _check(archive, name, work)
        parts, wanted = work.out / f"{name}-{work.version}.cdx.json", work.between / f"{target}.txt"
        sbom.write(target, parts, wanted, work.source, archive)


def _check(archive: Path, name: str, work: Work) -> None:
    with oci.opened(archive) as image:
        config = image.config()["config"]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    commit = run("git", "rev-parse", "HEAD", cwd=work.source).strip()
    need(labels["version"] == work.version, f"{archive.name}: its version is not {work.version}")
    need(labels["revision"] == commit, f"{archive.name}: its revision is not {commit}")
    need(labels["licenses"] == "Apache-2.0", f"{archive.name}: no licence")
    need(config["User"] == "65532:65532", f"{archive.name}: runs as {config['User']}")
    need(config["Entrypoint"] == [f"/opt/docpreview/bin/{name}"], f"{archive.name}: starts {config['Entrypoint']}")
