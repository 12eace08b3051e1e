"""The console blocks of a document, run by bash in their order, as a reader would in one terminal."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.documents.stand_ins import NAMES
from tests.packaging.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.documents.blocks import Block

NAMED = re.compile(r"^# ([\w./-]+\.(?:ya?ml|py|toml))\b")
"""The first line of a block that is a file: `# gateway.yaml: two buckets`."""
_SECONDS = 240
_MARK = "@@ "
_OWN = {"build", "examples", ".venv"}
"""What a session has of its own: the rest of the checkout is linked."""


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Commands of a console block, each with the lines that it prints, as the document shows them."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if found and not found[-1][1] and not _complete(found[-1][0]):
            found[-1] = (f"{found[-1][0]}\n{line}", [])
        elif line.startswith("$ "):
            found.append((line[2:], []))
        else:
            assert found, f"the block begins with what nobody typed: {line}"
            found[-1][1].append(line)
    return found


def _complete(command: str) -> bool:
    """Whether a shell would run it, rather than wait for another line."""
    here = re.search(r"<<'?(\w+)'?$", command, re.MULTILINE)
    if here is not None:
        return command.endswith(f"\n{here[1]}")
    words = re.sub(r"\s#[^\n]*$", "", command)
    return not words.endswith("\\") and words.count("'") % 2 == 0


def _marking(block: Block, number: int) -> str:
    """A line of the script that prints where the output of a command begins."""
    return f"printf '\\n%s\\n' '{_MARK}{block} {number}'\n"


class Session:
    """A folder with the files of the checkout, and programs that stand in for what a reader has elsewhere."""

    def __init__(self, folder: Path, replaced: Mapping[str, str] = {}, **variables: str) -> None:
        """`replaced` are names and addresses of documents, and those of the test; `variables` are for the commands."""
        self.folder = folder / "docpreview-gateway"
        self.state = folder / "session"
        self._replaced = replaced
        self._variables = variables
        for path in (self.folder, self.state, self.folder / ".venv", self.folder / "examples", folder / "bin"):
            path.mkdir(parents=True)
        for entry in ROOT.iterdir():
            if entry.name not in _OWN:
                (self.folder / entry.name).symlink_to(entry)
        for entry in (ROOT / "examples").iterdir():
            (self.folder / "examples" / entry.name).symlink_to(entry)
        for entry in (ROOT / "examples").glob("*.py"):
            self.write(f"examples/{entry.name}", entry.read_text())
        (self.folder / ".venv" / "bin").symlink_to(folder / "bin")
        programs = {name: f"-m tests.documents.stand_ins {name}" for name in NAMES} | {"python": ""}
        for name, words in programs.items():
            program = folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
            program.chmod(0o755)

    async def run(self, blocks: Sequence[Block]) -> dict[Block, str]:
        """What each block prints; a command that fails, or does not print what the document shows, is an error."""
        script = self.state / "script.sh"
        script.write_text("set -eu\n" + "".join(map(self._lines, blocks)))
        with self._servers(), (self.state / "output.txt").open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *("bash", script),
                cwd=self.folder,
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _SECONDS)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        text = (self.state / "output.txt").read_text()
        assert process.returncode == 0, f"a command failed, or did not end:\n{text[-6000:]}"
        printed = dict(part.split("\n", 1) for part in re.split(rf"^{_MARK}", text, flags=re.MULTILINE)[1:])
        return {block: self._as_shown(block, printed) for block in blocks}

    def _lines(self, block: Block) -> str:
        """The lines of a block in the script: its commands, or those that make its file or run its program."""
        text = self._replacing(block.text)
        name = NAMED.match(text)
        if name is not None:
            self.write(name[1], block.text)
            return ""
        if block.language == "python":
            self.write(f"program-{block.line}.py", block.text)
            return f"{_marking(block, 0)}python -W error program-{block.line}.py\n"
        if block.language != "console":
            return ""
        return "".join(f"{_marking(block, number)}{words}\n" for number, (words, _) in enumerate(commands(text)))

    def _replacing(self, text: str) -> str:
        for there, here in self._replaced.items():
            text = text.replace(there, here)
        return text

    def write(self, name: str, text: str) -> None:
        """Put a file into the folder, with names and addresses of the test."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(self._replacing(text))

    def _as_shown(self, block: Block, printed: dict[str, str]) -> str:
        """What it printed, once that is what the document shows; `...` stands for anything."""
        texts = [text for mark, text in printed.items() if mark.startswith(f"{block} ")]
        if block.language == "console":
            for text, (words, shown) in zip(texts, commands(self._replacing(block.text)), strict=True):
                lines = [re.escape(line).replace(r"\.\.\.", ".*") for line in shown]
                assert re.search("^" + "\n".join(lines), text, re.MULTILINE), f"{block}: {words} printed\n{text}"
        return "".join(texts)

    def _environment(self) -> dict[str, str]:
        """The variables of a reader, and those that keep servers on ports of their own."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DOCPREVIEW_")}
        own = str(self.folder / ".venv" / "bin")
        path = [own, inherited["PATH"], str(Path.home() / "go" / "bin")]
        return inherited | {
            "PATH": os.pathsep.join(path),
            "PYTHONPATH": os.pathsep.join([str(ROOT), inherited.get("PYTHONPATH", "")]),
            "SESSION": str(self.state),
            "STAND_INS": own,
            **self._variables,
        }

    @contextmanager
    def _servers(self) -> Iterator[None]:
        """Servers that the commands start end with the session."""
        try:
            yield
        finally:
            for path in self.state.glob("*.pid"):
                with suppress(ProcessLookupError):
                    os.kill(int(path.read_text()), signal.SIGTERM)
