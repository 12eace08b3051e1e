"""Size limits of modules and functions."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from tests.packaging.project import PACKAGES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULE_LINES = 400
FUNCTION_LINES = 50


def written_modules() -> Iterator[Path]:
    """Modules without the generated ones."""
    for package in PACKAGES.values():
        yield from (path for path in package.rglob("*.py") if "_pb2" not in path.name)


def test_no_module_is_longer_than_400_lines() -> None:
    """Generated modules excepted."""
    lengths = {str(path): len(path.read_text().splitlines()) for path in written_modules()}
    assert {name: lines for name, lines in lengths.items() if lines > MODULE_LINES} == {}


def test_no_function_is_longer_than_50_lines() -> None:
    """Docstrings are not counted."""
    too_long = []
    for path in written_modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = len((ast.get_docstring(node) or "").splitlines())
                if (node.end_lineno or 0) - node.lineno + 1 - docstring > FUNCTION_LINES:
                    too_long.append(f"{path}:{node.lineno} {node.name}")
    assert too_long == []
