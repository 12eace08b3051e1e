"""What a newcomer, a reviewer and CI find in the repository holds together."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.packaging.project import ROOT, run, tool, tracked_files

if TYPE_CHECKING:
    from pathlib import Path

needs_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="looks at what git keeps")

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
"""Put together here, so that this file does not name them either."""

DEVELOPERS_PATH = re.compile(r"(?<![\w.~-])/(?:home|Users)/(?!nonroot)\w|(?<![\w.~-])/root/")
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)\s]*)?\)")


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def texts() -> list[tuple[Path, str]]:
    """Every file that git keeps and that is text."""
    found = []
    for path in tracked_files():
        try:
            found.append((path, path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


def test_commands_of_the_readme() -> None:
    """`make demo` and `make test` are its two commands, and every `make` command that it names exists."""
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", "\n".join(_commands((ROOT / "README.md").read_text()))))
    assert {"demo", "test"} <= named
    assert named <= targets()


def _commands(markdown: str) -> list[str]:
    """Fenced blocks and code spans."""
    fenced = re.findall(r"```[a-z]*\n(.*?)```", markdown, re.DOTALL)
    return [*fenced, *re.findall(r"`([^`\n]+)`", markdown)]


@pytest.mark.parametrize("target", ["check", "test", "test-rest", "demo"])
def test_ci_runs_what_developers_run(target: str) -> None:
    """CI calls the Makefile's targets instead of commands of its own."""
    called = re.findall(r"^make (.+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert target in " ".join(called).split()
    assert target in targets()


def test_demo_and_test_set_themselves_up() -> None:
    """Both work on a fresh machine: they depend on the environment that `make` builds."""
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "check", "bench"):
        assert re.search(rf"^{target}:.*\$\((RUNS|READY)\)", makefile, re.MULTILINE), target


@needs_git
def test_links_between_documents() -> None:
    """Every link to a file leads to one."""
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
    """Where packages come from is the machine's affair: a mirror must work as well."""
    assert [(str(path), host) for path, text in texts() for host in REGISTRIES if host in text] == []


@needs_git
def test_no_path_of_a_developers_machine() -> None:
    """Nothing refers to a home directory or to where this checkout stands."""
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path, text in texts()
        for match in re.finditer(rf"{DEVELOPERS_PATH.pattern}|{re.escape(str(ROOT))}\b", text)
        if path.name != "test_repository.py"
    ]
    assert found == []


def test_no_test_is_named_by_a_single_word() -> None:
    """One word is a subject; a name says situation and promise."""
    single = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and re.fullmatch("test_[^_]*", node.name)
    ]
    advice = "say situation and promise in the name, e.g. test_a_redirect_is_wrong_region_and_is_not_followed"
    assert single == [], f"{advice}: {', '.join(single)}"


def test_the_import_contracts_of_the_layers_hold() -> None:
    """The import contracts hold."""
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
    """Reading the clock and patching are refused by the linter, with a word on what to do instead."""
    done = run(tool("ruff"), "check", "--stdin-filename", "server/docpreview_gateway/x.py", "-", input=code, cwd=ROOT)
    assert "TID251" in done.stdout
    assert "constructor" in done.stdout
