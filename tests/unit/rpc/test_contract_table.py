"""docs/contract.md has every name of both sides, and no other."""

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import docpreview.v1
from tests.unit.upstream.wire import vectors, vendor_sdk

TABLE = Path(__file__).parents[3] / "docs" / "contract.md"
OPERATIONS = ["ci_create_doc_job", "ci_get_doc_job", "ci_list_doc_jobs", "ci_get_doc_queue"]
SEED = {"ci_create_doc_job": 21, "ci_get_doc_job": 2, "ci_list_doc_jobs": 8}
"""How many parameters the seed's page (intl document 1045/51266) gives its three operations."""

WATERMARK = ("SrcType", "Type", "Image", "Dx", "Dy", "Batch", "HorizontalSpacing", "VerticalSpacing")
RESULT = "JobsDetail/Operation/DocProcessResult"
NEWER = {
    "JobsDetail/Input/Url",
    "JobsDetail/Operation/UserData",
    "JobsDetail/Operation/DocProcess/DocWatermark",
    *(f"JobsDetail/Operation/DocProcess/DocWatermark/{name}" for name in WATERMARK),
    f"{RESULT}/TotalSheetCount",
    f"{RESULT}/WatermarkInfo",
    f"{RESULT}/PageInfo/X-SheetPics",
    f"{RESULT}/PageInfo/PicIndex",
    f"{RESULT}/PageInfo/PicNum",
}
"""Elements of replies that came after the seed's page (cos-go-sdk-v5 ci_doc.go)."""

MADE_UP = {"JobsDetail/Invented", "JobsDetail/Invented/State"}
"""Elements of a recorded reply that stand for those of the future."""

SENT_BY_OTHER_SDKS = {
    "Tag",
    "Operation/UserData",
    "Input/Url",
    "Operation/DocProcess/DocWatermark",
    *(f"Operation/DocProcess/DocWatermark/{name}" for name in WATERMARK),
    "Operation/DocWatermark",
    "Operation/DocAIGCMetadata",
    "CallBack",
    "CallBackFormat",
    "CallBackType",
    "CallBackMqConfig",
    "CallBackKafkaConfig",
}
"""Elements of a create in cos-go-sdk-v5 and cos-java-sdk-v5 for which the Python SDK has no parameter."""

Row = tuple[str, list[str], str]


def section(heading: str) -> list[Row]:
    """Each row of a section's table: its first name, the contract's fields in it, its last cell."""
    text = TABLE.read_text()
    [body] = re.findall(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return [_row(line) for line in body.splitlines() if line.startswith("| `")]


def _row(line: str) -> Row:
    cells = [cell.strip() for cell in line.strip("|").split(" | ")]
    names = [name for cell in cells for name in re.findall(r"`([A-Z]\w+\.[a-z_0-9]+)`", cell)]
    return cells[0].strip("` "), names, cells[-1].strip("| ")


def names(heading: str) -> list[str]:
    """The first column of a section."""
    return [name for name, _, _ in section(heading)]


def all_rows() -> list[Row]:
    """The rows of all sections."""
    headings = re.findall(r"^## (.*)$", TABLE.read_text(), re.MULTILINE)
    return [row for heading in headings for row in section(heading)]


def elements_of_samples() -> set[str]:
    """Paths of all elements in the recorded replies, below the root."""
    replies = [vector.body for vector in vectors.load() if vector.body.startswith(b"<?xml")]
    return {path for body in replies for path in _paths(ET.fromstring(body), "")}  # noqa: S314 - our own files


def _paths(parent: ET.Element, prefix: str) -> Iterator[str]:
    for child in parent:
        yield prefix + child.tag
        yield from _paths(child, f"{prefix}{child.tag}/")


def fields_of_the_contract() -> set[str]:
    """`Message.field` of every message in docpreview.v1."""
    modules = [module.name for module in pkgutil.iter_modules(docpreview.v1.__path__) if module.name.endswith("_pb2")]
    files = [importlib.import_module(f"docpreview.v1.{name}").DESCRIPTOR for name in modules]
    messages = [message for file in files for message in file.message_types_by_name.values()]
    return {f"{message.name}.{field.name}" for message in messages for field in message.fields}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_parameter_of_the_sdk_has_a_row_with_its_field(operation: str) -> None:
    """The counts of the seed's page hold."""
    rows = section(f"Parameters of `{operation}`")
    assert sorted(name for name, _, _ in rows) == sorted(vendor_sdk.parameters(operation))
    assert all(fields for _, fields, _ in rows)
    assert len(rows) == SEED.get(operation, len(rows))


def test_each_element_of_a_reply_has_one_row() -> None:
    """Those of recorded replies and newer ones; no row is stale."""
    rows = names("Elements of replies")
    assert set(rows) == (elements_of_samples() - MADE_UP) | NEWER
    assert len(rows) == len(set(rows))


def test_each_element_that_only_other_sdks_send_has_a_row() -> None:
    """The Python SDK has no parameter for them."""
    rows = names("Elements of a create that the Python SDK does not send")
    assert sorted(rows) == sorted(SENT_BY_OTHER_SDKS)


def test_a_row_without_a_field_gives_the_reason() -> None:
    """In a sentence."""
    unexplained = [name for name, fields, note in all_rows() if not fields and not note.endswith(".")]
    assert unexplained == []


def test_the_table_has_exactly_the_fields_of_the_contract() -> None:
    """Of every message."""
    named = {field for _, fields, _ in all_rows() for field in fields}
    assert named == fields_of_the_contract()


def test_fields_without_a_name_on_the_wire_are_in_no_other_row() -> None:
    """Each gives its source."""
    heading = "Fields of the contract that have no name on the wire"
    unnamed = names(heading)
    rows = section(heading)
    others = [field for row in all_rows() if row not in rows for field in row[1]]
    assert not set(unnamed) & set(others)
    assert all(note.endswith(".") for _, _, note in rows)
