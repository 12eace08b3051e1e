"""The programs that some tests need besides Python and make, and how to get them.

`python -m tests.programs` prints the commands that install what is missing here, one a line.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_APT = "apt-get install -y --no-install-recommends"
PROGRAMS = {
    "soffice": f"{_APT} libreoffice-impress libreoffice-writer libreoffice-calc fonts-dejavu-core fonts-liberation",
    "lomath": f"{_APT} libreoffice-math",
    "fc-list": f"{_APT} fontconfig",
    "fonts for Chinese, Japanese and Korean": f"{_APT} fonts-noto-cjk",
    "pdfinfo": f"{_APT} poppler-utils",
    "redis-server": f"{_APT} redis-server",
    "prometheus": f"{_APT} prometheus",
    "promtool": f"{_APT} prometheus",
    "prometheus-alertmanager": f"{_APT} prometheus-alertmanager",
    "amtool": f"{_APT} prometheus-alertmanager",
    "systemd-analyze": f"{_APT} systemd",
    "shellcheck": f"{_APT} shellcheck",
    "chromium": f"{_APT} chromium",
    "curl": f"{_APT} curl",
    "jq": f"{_APT} jq",
    "openssl": f"{_APT} openssl",
    "redis-cli": f"{_APT} redis-tools",
    "ss": f"{_APT} iproute2",
    "go": f"{_APT} golang-go",
    "node": f"{_APT} nodejs npm",
    "npm": f"{_APT} nodejs npm",
    "java": f"{_APT} default-jdk-headless maven",
    "mvn": f"{_APT} default-jdk-headless maven",
    "cargo": f"{_APT} rustup && rustup default stable",
    "helm": "go install helm.sh/helm/v3/cmd/helm@v3.22.0",
    "crane": "go install github.com/google/go-containerregistry/cmd/crane@v0.22.1",
    "grpcurl": "go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4",
    "ghz": "go install github.com/bojand/ghz/cmd/ghz@v0.93.0",
    "envoy": "make dev",
}
"""Name and command, in the order in which they can be installed. Packages are those of Debian 13."""

_OTHER_NAMES = {"soffice": "libreoffice", "redis-server": "valkey-server", "chromium": "chromium-browser"}


def find(name: str) -> str | None:
    """Its path: of the PATH, of the environment that the tests run in, or where `go install` puts it."""
    if name.startswith("fonts"):
        return _cjk_font()
    folders = (os.environ["PATH"], str(Path(sys.executable).parent), str(Path.home() / "go" / "bin"))
    path = os.pathsep.join(folders)
    return shutil.which(name, path=path) or shutil.which(_OTHER_NAMES.get(name, name), path=path)


def _cjk_font() -> str | None:
    program = shutil.which("fc-list")
    command = [program or "", ":lang=zh:lang=ja:lang=ko", "file"]
    return (program and subprocess.run(command, capture_output=True, text=True, check=False).stdout) or None


def missing(name: str) -> str:
    """What is said where it is missing."""
    return f"{name} is not installed: {PROGRAMS[name]}"


def need(name: str) -> str:
    """Its path. Where it is missing the test is skipped; where CI is set, it fails."""
    found = find(name)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{missing(name)}; where CI is set nothing is skipped")
        pytest.skip(missing(name))
    return found


if __name__ == "__main__":
    commands = dict.fromkeys(how for name, how in PROGRAMS.items() if find(name) is None)
    sys.stdout.writelines(f"{command}\n" for command in commands)
