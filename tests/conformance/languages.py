"""The clients: what each needs, how its conformance runner is built, and how it is started."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "clients"
PROTOS = ROOT / "protos"


@dataclass(frozen=True)
class Language:
    """One client.

    `builds` are the commands that build it, in its folder, and `outputs` the folders there that they fill. `runner` is
    the command that starts its runner there, and `example` the one of its example program; bucket, input, output and
    target follow as arguments. `checks` are the client's own. `tools` must be on the PATH for any of them.
    """

    name: str
    runner: tuple[str, ...]
    example: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    builds: tuple[tuple[str, ...], ...] = ()
    outputs: tuple[str, ...] = ()
    checks: tuple[tuple[str, ...], ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return CLIENTS / self.name

    def build(self) -> None:
        """Builds the client, unless what is there was built from the very same files by the same commands."""
        stamps = [self.folder / output / ".built-from" for output in self.outputs]
        sources = self._sources()
        if stamps and all(stamp.exists() and stamp.read_text() == sources for stamp in stamps):
            return
        for stamp in stamps:
            stamp.unlink(missing_ok=True)
        for command in self.builds:
            self.run(command)
        for stamp in stamps:
            stamp.write_text(sources)

    def _sources(self) -> str:
        """A hash of the commands, and of the names and contents of the files that git keeps or would keep."""
        listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", self.folder, PROTOS)
        names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
        found = hashlib.sha256(repr(self.builds).encode())
        for path in sorted({ROOT / name for name in names if name}):
            content = path.read_bytes() if path.exists() else b""
            found.update(f"{path.relative_to(ROOT)} {len(content)}\n".encode() + content)
        return found.hexdigest()

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
        outputs=("build",),
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
        outputs=("node_modules", "dist"),
        runner=("node", "dist/conformance/runner.js"),
        example=("node", "dist/examples/create-and-watch.js"),
        checks=(("npm", "test"),),
    ),
    Language(
        "java",
        tools=("java", "mvn"),
        builds=((*MAVEN, "package", "-DskipTests"),),
        outputs=("target",),
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
        outputs=("target/debug",),
        runner=("target/debug/examples/conformance",),
        example=("target/debug/examples/create_and_watch",),
        checks=(
            ("cargo", "fmt", "--check"),
            ("cargo", "clippy", "--locked", "--all-targets", "--all-features", "--", "--deny", "warnings"),
            ("cargo", "clippy", "--locked", "--lib", "--no-default-features", "--", "--deny", "warnings"),
            ("cargo", "test", "--locked", "--all-features"),
        ),
    ),
)
