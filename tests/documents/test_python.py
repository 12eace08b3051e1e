"""Python of the documents that needs names or servers of its own around it."""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
import time
from typing import TYPE_CHECKING, Any

import grpc

from docpreview_client import ClientOptions, DocPreviewClient, Tls
from docpreview_emulator import Emulator
from tests.conformance.world import World
from tests.documents.blocks import run_by
from tests.integration.conftest import REGION
from tests.packaging.project import ROOT, run

if TYPE_CHECKING:
    from pathlib import Path

HERE = "tests/documents/test_python.py"
BUCKET = "docs-1250000000"
PAGES = (ROOT / "examples" / "seven-pages.pdf").read_bytes()
KEYS = {"secret_id": "example-secret-id", "secret_key": "EXAMPLEsecretKEY00000000000000000"}


class OpenTelemetry(grpc.aio.UnaryUnaryClientInterceptor):
    """An interceptor such as the readers have."""

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(details, request)


async def executed(text: str, **names: Any) -> dict[str, Any]:
    """The names after a program, in which `await` and `async with` may stand outside of functions."""
    code = compile(text, HERE, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        await eval(code, names)  # noqa: S307 - a program of our documents
    else:
        await asyncio.to_thread(exec, code, names)
    return names


async def test_the_arguments_of_a_connection_are_those_of_the_client(tmp_path: Path) -> None:
    """The client checks names and kinds before it connects."""
    (block,) = run_by(f"{HERE}::test_the_arguments_of_a_connection_are_those_of_the_client")
    given = {"ca": b"-", "certificate": b"-", "key": b"-", "token_file": tmp_path / "token", "current": lambda: "00-1"}
    classes = {each.__name__: each for each in (ClientOptions, DocPreviewClient, OpenTelemetry, Tls)}
    await executed(block.text, **given, **classes)


def test_the_emulators_example_of_a_test_passes(tmp_path: Path) -> None:
    """In a project that knows nothing of this repository's tests."""
    (block,) = run_by(f"{HERE}::test_the_emulators_example_of_a_test_passes")
    (tmp_path / "test_example.py").write_text(block.text)
    (tmp_path / "a.pdf").write_bytes(PAGES)
    done = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout


def test_the_tests_of_a_service_pass(tmp_path: Path) -> None:
    """Each file of the page as it stands, in a project that knows nothing of this repository's tests."""
    for block in run_by(f"{HERE}::test_the_tests_of_a_service_pass"):
        (tmp_path / block.text.partition("\n")[0].removeprefix("# ")).write_text(block.text)
    (tmp_path / "a.pdf").write_bytes(PAGES)
    warnings = ("-W", "error", "-o", "asyncio_default_fixture_loop_scope=function")
    done = run(
        sys.executable, "-m", "pytest", "-q", *warnings, "-p", "no:cacheprovider", "--rootdir", tmp_path, cwd=tmp_path
    )
    assert "4 passed" in done.stdout, done.stdout


async def test_the_program_before_the_migration_and_after_it_makes_the_same_pages() -> None:
    """The vendor's SDK asks the emulator, and the client the gateway before it."""
    before, after = (
        block.text.replace("a.pptx", "a.pdf")
        for block in run_by(f"{HERE}::test_the_program_before_the_migration_and_after_it_makes_the_same_pages")
    )
    bucket = {"name": BUCKET, "region": REGION, "credentials": "main"}
    async with Emulator() as emulator, World(emulator, {"buckets": [bucket]}) as world:
        emulator.put_object(BUCKET, REGION, "a.pdf", PAGES)
        secret = "SecretKey=secret_key"
        proxy = f'Scheme="http", Proxies={{"http": "{emulator.url}"}}'
        assert secret in before
        assert "dns:///docpreview:50051" in after
        found = await executed(before.replace(secret, f"{secret}, {proxy}"), time=time, **KEYS)
        job = (await executed(after.replace("dns:///docpreview:50051", world.target)))["job"]
    pages = found["job"]["Operation"]["DocProcessResult"]["PageInfo"]
    assert len(pages) == 2
    assert [page["TgtUri"].lstrip("/") for page in pages] == [page.object for page in job.result.pages]
