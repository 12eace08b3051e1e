"""Runbooks as an engineer on call uses them: their commands, extracted and run."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.programs import need

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
CLUSTER = Path(__file__).with_name("cluster")
"""Has a `kubectl` for a gateway that is a process of this machine."""

NEEDS_CLUSTER = re.compile(r"kubectl (describe|debug|port-forward|rollout)\b|kubectl get (?!pod -l )|helm \w")
"""Commands that the `kubectl` of `CLUSTER` has no answer for."""

_BLOCK = re.compile(r"^( *)```console\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_END = "\x1e"
SECONDS = 60
PROGRAMS = ("jq", "curl", "openssl", "promtool")
"""That the commands of runbooks use, besides those of the cluster and of Redis."""


class Ran(NamedTuple):
    """A command that was run, with its exit code and all that it printed."""

    command: str
    code: int
    output: str


def commands(name: str, section: str = "") -> list[str]:
    """The commands of a runbook's console blocks, or of those of one section, in their order."""
    text = (RUNBOOKS / f"{name}.md").read_text()
    if section:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    blocks = [block for _, block in _BLOCK.findall(text)]
    return [line.lstrip()[2:] for block in blocks for line in block.splitlines() if line.lstrip().startswith("$ ")]


def runnable(name: str, section: str = "") -> list[str]:
    """Those of them that need no cluster."""
    return [command for command in commands(name, section) if not NEEDS_CLUSTER.match(command)]


def prepared(command: str, values: Mapping[str, str], ports: Mapping[str, str]) -> str:
    """The command with the reader's values in the variables that it sets, and the ports of this gateway."""
    for variable, value in values.items():
        command = re.sub(rf"(^|\s){variable}=[^\s\"'$(]+", rf"\g<1>{variable}={value}", command)
    for usual, port in ports.items():
        command = re.sub(rf"\b{usual}\b", port, command)
    return command


class Shell:
    """A shell on the machine of an engineer on call, for one gateway.

    `values` are what the engineer puts into the variables of a runbook, `ports` replace the usual ports, and
    `variables` are the environment: that of the pod, too.
    """

    def __init__(self, values: Mapping[str, str], ports: Mapping[str, str], variables: Mapping[str, str]) -> None:
        for program in PROGRAMS:
            need(program)
        self._values = values
        self._ports = ports
        path = [str(CLUSTER), str(Path(sys.executable).parent), os.environ["PATH"]]
        self._variables = os.environ | {"PATH": os.pathsep.join(path)} | dict(variables)

    async def diagnose(self, name: str) -> list[Ran]:
        """Run all commands under `Diagnosis`."""
        return await self._run(name, runnable(name, "Diagnosis"), 0)

    async def mend(self, name: str) -> list[Ran]:
        """Run those under `Mitigation`, after those that only set variables."""
        set_before = [each for each in runnable(name, "Diagnosis") if re.match(r"[A-Z]+=", each)]
        return await self._run(name, set_before + runnable(name, "Mitigation"), len(set_before))

    async def _run(self, name: str, wanted: list[str], skip: int) -> list[Ran]:
        wanted = [prepared(command, self._values, self._ports) for command in wanted]
        script = "\n".join(f"{command}\nprintf '{_END}%s{_END}' $?" for command in wanted)
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", script),
            env=self._variables,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        parts = output.decode().split(_END)
        assert len(parts) == 2 * len(wanted) + 1, f"a command of {name} ended the shell: {parts[-1]}"
        ran = [Ran(command, int(parts[2 * at + 1]), parts[2 * at]) for at, command in enumerate(wanted)]
        return ran[skip:]
