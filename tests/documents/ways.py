"""How each block of the documents is run, and what is wrong with a block that is neither run nor marked."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.documents.loading import READERS, reader
from tests.packaging.project import ROOT

if TYPE_CHECKING:
    from tests.documents.blocks import Block

RUN = {"console": "run by bash, after the blocks before it", "python": "run by python, after the blocks before it"}
_WORDS = 4
"""The least number of words of a reason."""


class NotRunError(Exception):
    """A block is neither run nor marked, or its mark leads nowhere."""


def way(block: Block) -> str:
    """How the block is run, in words. NotRunError if it is not."""
    if block.not_run is not None:
        if len(block.not_run.split()) < _WORDS:
            raise NotRunError(f"its mark gives no reason: {block.not_run!r}")
        return f"not run: {block.not_run}"
    for name in block.run_by:
        _check(name, block.document)
    if block.run_by:
        return f"run by {', '.join(block.run_by)}"
    if block.language in RUN:
        return RUN[block.language]
    kind = reader(block)
    if kind is not None:
        return READERS[kind][0]
    if block.language in {"", "indented"}:
        raise NotRunError("it has no language: fence it, with `text` for a drawing or for output")
    raise NotRunError(
        f"no test runs {block.language} like this one: mark it with `<!-- run by tests/...::test_... -->`, "
        "or with `<!-- not run: the reason -->`"
    )


def _check(name: str, document: str) -> None:
    """The test exists, and those beside it get blocks by marks or read the document; or CI calls the target."""
    path, found, test = name.partition("::")
    if not found:
        called = re.findall(r"^make (.+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
        if name not in {f"make {target}" for line in called for target in line.split()}:
            raise NotRunError(f"its mark names `{name}`, which is neither a test nor a target that CI calls")
        return
    file = ROOT / path
    text = file.read_text() if file.is_file() else ""
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    if test not in {function.name for function in functions}:
        raise NotRunError(f"its mark names {name}, which does not exist")
    code = "".join(each.read_text() for each in file.parent.glob("*.py"))
    *_, name_of_document = parts = Path(document).parts
    folders = [f'"{part}"' for part in parts[-2:-1]]
    if not any(hint in code for hint in ("run_by(", name_of_document, *folders)):
        raise NotRunError(f"its mark names {name}, which does not get its block: call run_by there")
