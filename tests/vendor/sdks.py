"""The vendor's SDKs: how each is installed at the version of its lock file, and how its driver is started."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.vendor.operations import OF_JOBS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "vendor"
"""What is built, beside the sources of nobody."""


class NotBuiltError(Exception):
    """A driver could not be built."""


@dataclass(frozen=True)
class Sdk:
    """One SDK.

    `pin` is the file and the pattern of its version. `tools` must be on the PATH; `builds` are commands in its folder.
    `trust` are variables of the driver; in them and in its words {ca} stands for the file of the emulator's authority.
    `https_only`: the SDK sends requests for jobs over https whatever it is told, or refuses to send them.
    `differs` are operations of which it shows less than the others do: what it shows, and the table's word for it.
    `optional`: not required in CI, since the registry of its packages cannot be reached from everywhere.
    """

    name: str
    package: str
    pin: tuple[str, str]
    driver: tuple[str, ...]
    tools: tuple[str, ...] = ()
    builds: tuple[tuple[str, ...], ...] = ()
    trust: dict[str, str] = field(default_factory=dict)
    optional: bool = False
    https_only: bool = False
    differs: dict[str, tuple[object, str]] = field(default_factory=dict)

    @property
    def language(self) -> str:
        """The name of its folder."""
        return self.name.lower()

    @property
    def version(self) -> str:
        file, pattern = self.pin
        found = re.search(pattern, (ROOT / file).read_text())
        assert found, f"{file} names no {self.package}"
        return found[1]

    @property
    def folder(self) -> Path:
        return HERE / self.language

    def does(self, operation: str, scheme: str) -> bool:
        """Whether the SDK sends the request over the scheme."""
        return scheme == "https" or not (self.https_only and operation in OF_JOBS)

    def run(self, *command: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Runs it in the SDK's folder."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | (environment or {}),
            check=False,
            capture_output=True,
            text=True,
            timeout=600,
        )

    def build(self) -> None:
        """Installs the SDK and compiles the driver.

        Raises:
            NotBuiltError: a command failed; the message is what it printed.
        """
        for command in self.builds:
            done = self.run(*command)
            if done.returncode:
                raise NotBuiltError(f"{self.name}: {' '.join(command)}\n{(done.stdout + done.stderr).strip()[-8000:]}")


def _only_the_status(status: int) -> tuple[object, str]:
    return {"status": status, "code": "Unknown"}, "status only"


_PHP_INSTALLED = 'test -f "${COMPOSER_VENDOR_DIR:-vendor}/autoload.php"'
SDKS = (
    Sdk(
        "Python",
        "cos-python-sdk-v5",
        pin=("requirements/dev.lock", r"cos-python-sdk-v5==(\S+)"),
        driver=(sys.executable, "driver.py"),
        # The answers of the service's hosts have no resource, without which the SDK does not read the code.
        differs={"wrong key, job": _only_the_status(403), "job without its document": _only_the_status(400)},
    ),
    Sdk(
        "Go",
        "github.com/tencentyun/cos-go-sdk-v5",
        pin=("tests/vendor/go/go.mod", r"cos-go-sdk-v5 v(\S+)"),
        tools=("go",),
        builds=(("go", "build", "-o", f"{BUILD}/go/driver", "."),),
        driver=(f"{BUILD}/go/driver",),
        trust={"SSL_CERT_FILE": "{ca}"},
    ),
    Sdk(
        "Java",
        "com.qcloud:cos_api",
        pin=("tests/vendor/java/pom.xml", r"cos_api</artifactId>\s*<version>(.+?)<"),
        tools=("java", "mvn"),
        builds=(
            ("mvn", "--batch-mode", "--no-transfer-progress", "--quiet", "dependency:copy-dependencies"),
            ("sha256sum", "--check", "--strict", "--quiet", "libraries.sha256"),
            ("javac", "-cp", f"{BUILD}/java/libraries/*", "-d", f"{BUILD}/java/classes", "Driver.java"),
        ),
        driver=("java", "-cp", f"{BUILD}/java/classes:{BUILD}/java/libraries/*", "Driver"),
        https_only=True,
        # It looks for the NextToken of an answer where none can be.
        differs={"list jobs": ([[2, 1]], "first page")},
    ),
    Sdk(
        "Node",
        "cos-nodejs-sdk-v5",
        pin=("tests/vendor/node/package.json", r'"cos-nodejs-sdk-v5": "(.+?)"'),
        tools=("node", "npm"),
        builds=(("npm", "ci", "--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"),),
        driver=("node", "driver.js"),
        trust={"NODE_EXTRA_CA_CERTS": "{ca}"},
    ),
    Sdk(
        "PHP",
        "qcloud/cos-sdk-v5",
        pin=("tests/vendor/php/composer.json", r'"qcloud/cos-sdk-v5": "(.+?)"'),
        tools=("php", "composer"),
        builds=(("sh", "-c", f"{_PHP_INSTALLED} || composer install --no-interaction"),),
        driver=("php", "-d", "curl.cainfo={ca}", "driver.php"),
        optional=True,
        https_only=True,
        differs={"no such job": (None, "empty answer")},
    ),
)
