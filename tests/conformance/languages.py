"""The clients: what each needs, how its conformance runner is built, and how it is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "clients"
REQUIRED = bool(os.environ.get("CI"))
"""Whether a missing toolchain is a failure; otherwise it is skipped, in words that cannot be overlooked."""


@dataclass(frozen=True)
class Language:
    """One client.

    `builds` are the commands that build it, in its folder, and `runner` is the command that starts its runner there.
    `example` starts the client's example program; bucket, input, output and target follow as arguments. `checks` are
    the client's own. `tools` must be on the PATH for any of them.
    """

    name: str
    runner: tuple[str, ...]
    example: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    builds: tuple[tuple[str, ...], ...] = ()
    checks: tuple[tuple[str, ...], ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return CLIENTS / self.name

    @property
    def missing(self) -> list[str]:
        """The tools that this machine lacks."""
        return [tool for tool in self.tools if shutil.which(tool) is None]

    def run(self, command: tuple[str, ...]) -> None:
        """Runs a build or a check; its output is the message when it fails."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | self.environment,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"{self.name}: {' '.join(command)}\n{done.stdout[-8000:]}"


MAVEN = ("mvn", "--batch-mode", "--no-transfer-progress")

LANGUAGES = (
    Language(
        "python",
        runner=(sys.executable, "conformance/runner.py"),
        example=(sys.executable, "examples/create_and_watch.py"),
    ),
    Language(
        "go",
        tools=("go",),
        builds=(("go", "build", "-o", "build/", "./conformance", "./examples/createandwatch"),),
        runner=("build/conformance",),
        example=("build/createandwatch",),
        checks=(
            ("go", "vet", "./..."),
            ("sh", "-c", 'test -z "$(gofmt -l .)" || { gofmt -d .; exit 1; }'),
            ("go", "mod", "tidy", "-diff"),
            ("go", "test", "./..."),
        ),
    ),
    Language(
        "typescript",
        tools=("node", "npm"),
        builds=(("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"), ("npm", "run", "build")),
        runner=("node", "dist/conformance/runner.js"),
        example=("node", "dist/examples/create-and-watch.js"),
        checks=(("npm", "test"),),
    ),
    Language(
        "java",
        tools=("java", "mvn"),
        builds=((*MAVEN, "package", "-DskipTests"),),
        runner=(
            "java",
            "-cp",
            "target/classes:target/test-classes:target/libraries/*",
            "com.docpreview.conformance.Runner",
        ),
        example=("java", "-cp", "target/classes:target/libraries/*", "examples/CreateAndWatch.java"),
        checks=((*MAVEN, "test"),),
    ),
    Language(
        "rust",
        tools=("cargo",),
        builds=(("cargo", "build", "--locked", "--examples"),),
        runner=("target/debug/examples/conformance",),
        example=("target/debug/examples/create_and_watch",),
        checks=(
            ("cargo", "fmt", "--check"),
            ("cargo", "clippy", "--locked", "--all-targets", "--all-features", "--", "--deny", "warnings"),
            ("cargo", "test", "--locked", "--all-features"),
        ),
    ),
)
