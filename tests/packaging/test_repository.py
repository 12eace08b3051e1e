"""Consistency of the repository: README, Makefile, CI, links, test names and import contracts."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.packaging.project import ROOT, run, tool, tracked_files

if TYPE_CHECKING:
    from pathlib import Path

needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs the list of tracked files")

REGISTRIES = tuple(
    f"{host}.{domain}"
    for host, domain in (
        ("pypi", "org"),
        ("files.pythonhosted", "org"),
        ("registry.npmjs", "org"),
        ("proxy.golang", "org"),
        ("repo1.maven", "org"),
        ("index.crates", "io"),
        ("static.crates", "io"),
    )
)
"""Concatenated, so that this file does not contain them either."""

DEVELOPERS_PATH = re.compile(r"(?<![\w.~-])/(?:home|Users)/(?!nonroot)\w|(?<![\w.~-])/root/")
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def texts() -> list[tuple[Path, str]]:
    """Every tracked text file."""
    found = []
    for path in tracked_files():
        try:
            found.append((path, path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


def test_every_make_command_of_the_readme_exists() -> None:
    """`make demo` and `make test` are among them."""
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", "\n".join(_commands((ROOT / "README.md").read_text()))))
    assert {"demo", "test"} <= named
    assert named <= targets()


def _commands(markdown: str) -> list[str]:
    """Contents of fenced blocks and code spans."""
    fenced = re.findall(r"```[a-z]*\n(.*?)```", markdown, re.DOTALL)
    return [*fenced, *re.findall(r"`([^`\n]+)`", markdown)]


@pytest.mark.parametrize("target", ["check", "test", "test-rest", "check-docs", "demo"])
def test_ci_runs_what_developers_run(target: str) -> None:
    """CI calls the Makefile's targets."""
    called = re.findall(r"^make (.+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert target in " ".join(called).split()
    assert target in targets()


def test_demo_and_test_set_themselves_up() -> None:
    """They depend on the environment that `make` builds, so they work on a fresh machine."""
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "check", "bench"):
        assert re.search(rf"^{target}:.*\$\((RUNS|READY)\)", makefile, re.MULTILINE), target


@needs_git
def test_every_link_between_documents_leads_to_a_file() -> None:
    """Relative links only."""
    broken = [
        f"{path.relative_to(ROOT)}: {link}"
        for path, text in texts()
        if path.suffix == ".md"
        for link in LINK.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        if not re.match(r"[a-z]+:", link) and not (path.parent / link).exists()
    ]
    assert broken == []


@needs_git
def test_no_registry_is_named() -> None:
    """The machine configures its package index, which may be a mirror."""
    assert [(str(path), host) for path, text in texts() for host in REGISTRIES if host in text] == []


@needs_git
def test_no_path_of_a_developers_machine() -> None:
    """No home directory, and not the path of this checkout."""
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path, text in texts()
        for match in re.finditer(rf"{DEVELOPERS_PATH.pattern}|{re.escape(str(ROOT))}\b", text)
        if path.name != "test_repository.py"
    ]
    assert found == []


def test_no_test_is_named_by_a_single_word() -> None:
    """A name states situation and promise."""
    single = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and re.fullmatch("test_[^_]*", node.name)
    ]
    advice = "say situation and promise in the name, e.g. test_a_redirect_is_wrong_region_and_is_not_followed"
    assert single == [], f"{advice}: {', '.join(single)}"


def test_the_import_contracts_of_the_layers_hold() -> None:
    """`lint-imports` passes."""
    done = run(tool("lint-imports"), "--no-cache", cwd=ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import time\n\nNOW = time.time()\n",
        "import datetime\n\nNOW = datetime.datetime.now(datetime.UTC)\n",
        "from unittest.mock import patch\n\npatch('a')\n",
    ],
    ids=["time.time", "datetime.now", "mock.patch"],
)
def test_the_linter_refuses_reading_the_clock_and_patching(code: str) -> None:
    """The message names the alternative."""
    done = run(tool("ruff"), "check", "--stdin-filename", "server/docpreview_gateway/x.py", "-", input=code, cwd=ROOT)
    assert "TID251" in done.stdout
    assert "constructor" in done.stdout
