"""The vendor's SDKs, unchanged, against the emulator: each operation over http and over https."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.programs import find, need
from tests.vendor.operations import OPERATIONS
from tests.vendor.sdks import SDKS, NotBuiltError, Sdk
from tests.vendor.table import column, columns
from tests.vendor.world import SCHEMES, Run, Runs, world

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # downloads and compiles, the first time


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with world(tmp_path_factory.mktemp("vendor")) as running:
        yield Runs(running)


def made(runs: Runs, sdk: Sdk, scheme: str) -> Run:
    """The SDK's run. Without its tools the test is skipped; where CI is set it fails, unless the SDK is optional."""
    for tool in sdk.tools:
        if sdk.optional and find(tool) is None:
            pytest.skip(f"{tool} is not installed, which the vendor's SDK for {sdk.name} needs")
        if not sdk.optional:
            need(tool)
    try:
        return runs.get(sdk, scheme)
    except NotBuiltError:
        if sdk.optional:
            pytest.skip(f"{sdk.tools[-1]} cannot get {sdk.package}: is its registry reachable?")
        raise


CASES = [
    pytest.param(sdk, scheme, operation, id=f"{sdk.language}-{scheme}-{operation}")
    for sdk in SDKS
    for scheme in SCHEMES
    for operation in OPERATIONS
    if sdk.does(operation, scheme)
]


@pytest.mark.parametrize(("sdk", "scheme", "operation"), CASES)
def test_the_sdk_does_the_operation(runs: Runs, sdk: Sdk, scheme: str, operation: str) -> None:
    """With the documented settings of the SDK only: the emulator is its proxy, and its authority is trusted."""
    made(runs, sdk, scheme).check(operation)


def test_the_table_of_the_readme_has_all_operations_and_all_sdks() -> None:
    assert columns()["operation"] == ["operation", *OPERATIONS]
    assert [*columns()] == ["operation", *(sdk.name for sdk in SDKS)]


@pytest.mark.parametrize("sdk", SDKS, ids=lambda sdk: sdk.language)
def test_the_column_of_the_readme_is_what_the_runs_of_the_sdk_gave(runs: Runs, sdk: Sdk) -> None:
    """`python -m tests.vendor` writes the table."""
    made(runs, sdk, SCHEMES[0])
    assert columns()[sdk.name] == column(sdk, runs)
