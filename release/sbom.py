"""The parts of the images as CycloneDX (SBOM): Python distributions with their hashes, as the lock gives them.

Of a built image it also has the interpreter and Debian's packages, read from its layers.
"""

from __future__ import annotations

import argparse
import json
import sys
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

from release import oci
from release.packages import PackageError, run
from release.versions import ROOT

CONTENTS = {
    "gateway": ("pyproject.toml", "--extra", "otel", "clients/python/pyproject.toml", "--extra", "cli"),
    "emulator": ("pyproject.toml", "--extra", "emulator"),
}
"""Each image's projects with their extras, as arguments of `uv pip compile`; the Dockerfile installs the same."""

_OURS = [f"--no-emit-package=docpreview-{name}" for name in ("gateway", "client", "protos")]
_AUDIT = ROOT / ".venv-audit" / "bin"
_VALIDATE = """
import pathlib, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
sys.exit(str(JsonStrictValidator(SchemaVersion.V1_6).validate_str(pathlib.Path(sys.argv[1]).read_text()) or "") or 0)
"""
_PACKAGES, _SYSTEM, _INTERPRETER = "var/lib/dpkg/status", "usr/lib/os-release", "opt/docpreview/pyvenv.cfg"


def write(target: str, path: Path, wanted: Path, source: Path = ROOT, archive: Path | None = None) -> None:
    """Write an image's SBOM, and to `wanted` its Python distributions with their hashes, as pip reads them.

    PackageError when a tool is missing, or when the SBOM is not what CycloneDX 1.6 allows.
    """
    what = ("--quiet", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url", "--no-annotate", *_OURS)
    lock = ("--constraint", "requirements/runtime.lock", "--custom-compile-command", "make sbom")
    run(
        Path(sys.executable).with_name("uv"),
        "pip",
        "compile",
        *what,
        *lock,
        *CONTENTS[target],
        "-o",
        wanted,
        cwd=source,
    )
    if not (_AUDIT / "cyclonedx-py").exists():
        raise PackageError("cyclonedx-py is missing: `make sbom` installs it in .venv-audit")
    how = ("requirements", "--pyproject", "pyproject.toml", "--output-reproducible", "--spec-version", "1.6")
    run(_AUDIT / "cyclonedx-py", *how, "-o", path, wanted, cwd=source, PYTHONWARNINGS="ignore")
    if archive is not None:
        whole = json.loads(path.read_text())
        whole["components"] += parts(archive)
        path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    run(_AUDIT / "python", "-c", _VALIDATE, path, cwd=source)


def parts(archive: Path) -> list[dict[str, Any]]:
    """The interpreter and Debian's packages in an image, as components of CycloneDX."""
    files = _files(archive)
    system, interpreter = _pairs(files.get(_SYSTEM, "")), _pairs(files[_INTERPRETER])
    distribution = f"{system.get('ID', 'unknown')}-{system.get('VERSION_ID', 'unknown')}"
    python = f"pkg:generic/python@{interpreter['version']}"
    found = {"type": "platform", "bom-ref": python, "name": "python", "version": interpreter["version"], "purl": python}
    packages = files.get(_PACKAGES, "").split("\n\n")
    return [found, *(_package(text, distribution) for text in packages if "\nStatus: install ok installed\n" in text)]


def _files(archive: Path) -> dict[str, str]:
    found = dict[str, str]()
    with oci.opened(archive) as image:
        for layer in image.layers():
            for member in layer:
                path = member.name.removeprefix("./")
                if path in {_PACKAGES, _SYSTEM, _INTERPRETER} and (file := layer.extractfile(member)):
                    found[path] = file.read().decode()
    return found


def _pairs(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip().strip('"') for key, _, value in pairs}


def _package(text: str, distribution: str) -> dict[str, Any]:
    fields = HeaderParser().parsestr(text)
    name, version = fields["Package"], fields["Version"]
    purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={fields['Architecture']}&distro={distribution}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def main() -> int:
    """Write the SBOMs of what the lock gives to both images; 1 when one fails."""
    parser = argparse.ArgumentParser(prog="python -m release.sbom", description=__doc__)
    parser.add_argument("--into", type=Path, required=True, help="folder that is made if it is missing")
    folder = parser.parse_args().into.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for target in CONTENTS:
            write(target, folder / f"sbom-{target}.cdx.json", folder / f"{target}.txt")
    except PackageError as error:
        print(f"sbom: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
