"""Runs the tests of a mutant in a fork of this process, which has imported everything but the project."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import os
import signal
import sys
import time
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    import ast
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from pathlib import Path
    from types import CodeType, ModuleType

PRELOADED = (
    "_pytest.assertion.rewrite",
    "aiohttp",
    "anyio.pytest_plugin",
    "asyncio",
    "cryptography.hazmat.primitives.kdf.hkdf",
    "google.protobuf.json_format",
    "google.rpc.error_details_pb2",
    "grpc.aio",
    "grpc_health.v1.health_pb2_grpc",
    "grpc_reflection.v1alpha.reflection",
    "httpx",
    "hypothesis.strategies",
    "jinja2",
    "jwt",
    "lxml.etree",
    "prometheus_client",
    "pydantic_settings",
    "pytest_asyncio.plugin",
    "pytest_timeout",
    "redis.asyncio",
    "redis.asyncio.cluster",
    "rich.table",
    "sqlite3",
    "structlog",
    "typer",
    "xdist.plugin",
    "xdist.scheduler",
    "yaml",
)
OPTIONS = (
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # plugins are preloaded
    *("-x", "-q", "--timeout", "12", "--no-header", "-rN", "--tb=line"),
    *("-p", "no:cacheprovider"),
)


class Verdict(NamedTuple):
    """What the tests say: pytest's exit code (None: they did not end in time), seconds, and the first failure."""

    code: int | None
    seconds: float
    failure: str


def preload(cache: Path) -> None:
    """Import what every child would import anew; what it compiles itself, it keeps in a folder."""
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(cache)
    for name in PRELOADED:
        importlib.import_module(name)


class _Mutant(SourceFileLoader):
    """Loads a module from a tree instead of its file."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        super().__init__(name, str(path))
        self._compiled = compile(tree, str(path), "exec")

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        return self._compiled


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, loader: _Mutant) -> None:
        self._loader = loader

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        if fullname != self._loader.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._loader.path, loader=self._loader)


def judge(mutant: tuple[str, Path, ast.Module] | None, arguments: Sequence[str], output: Path, limit: float) -> Verdict:
    """Run pytest with a module replaced (its name, file and tree), for `limit` seconds at most."""
    begun = time.monotonic()
    child = os.fork()
    if child == 0:
        _test(mutant, arguments, output)
    code = _waited(child, begun + limit)
    said = output.read_text(errors="replace").splitlines()
    failure = next((line[line.index("FAILED ") :] for line in said if "FAILED " in line), said[-1] if said else "")
    return Verdict(code, time.monotonic() - begun, failure[:200])


def _test(mutant: tuple[str, Path, ast.Module] | None, arguments: Sequence[str], output: Path) -> None:
    """In the child: it ends here, and its servers are in its group."""
    code = 99
    try:
        os.setsid()
        written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(written, 1)
        os.dup2(written, 2)
        if mutant is not None:
            sys.meta_path.insert(0, _Finder(_Mutant(*mutant)))
        code = int(pytest.main([*OPTIONS, *arguments]))
    finally:
        sys.stdout.flush()
        os._exit(code)


def _waited(child: int, until: float) -> int | None:
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    with suppress(ProcessLookupError):  # it has ended, or not yet become the first of its group
        os.killpg(child, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None
