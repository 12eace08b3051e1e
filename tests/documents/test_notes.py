"""The commands that `helm install` shows at its end."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.chart.helm import NAMESPACE, RELEASE, VARIANTS, rendered_notes
from tests.documents.blocks import Block, run_by
from tests.documents.surroundings import fresh

if TYPE_CHECKING:
    from pathlib import Path

HERE = "tests/documents/test_notes.py"


@pytest.mark.parametrize("variant", VARIANTS)
async def test_every_command_of_the_notes_works_for_the_release_that_they_are_of(variant: str, tmp_path: Path) -> None:
    """Each example of values has the call of `helm test`, and commands for Secrets that only the reader can make."""
    notes = rendered_notes(tmp_path, variant)
    found = re.findall(r"(?:^ +|: )((?:kubectl|helm) .+)$", notes, re.MULTILINE)
    assert f"helm test {RELEASE} --namespace {NAMESPACE}" in found
    session = fresh(tmp_path / "session")
    (session.state / "made.txt").write_text(f"namespace {NAMESPACE}\nrelease {RELEASE}\n")
    text = "".join(f"$ {command}\n" for command in found)
    (template,) = run_by(f"{HERE}::test_every_command_of_the_notes_works_for_the_release_that_they_are_of")
    await session.run([Block(template.document, template.line, "console", text)])
