"""Parsing of recorded replies, field by field."""

import pytest

from docpreview.v1.error_reason_pb2 import ErrorReason
from docpreview_gateway.model.errors import UpstreamError

from . import vectors

ALL = vectors.load()
READ = [vector for vector in ALL if "expected" in vector.facts]
NOT_THERE = [vector for vector in ALL if "error" in vector.facts and vector.facts["read"] != "refusal"]
REFUSED = [vector for vector in ALL if vector.facts["read"] == "refusal"]


def test_every_vector_is_tested() -> None:
    """The three samples of the seed are among them."""
    assert len(READ) + len(NOT_THERE) + len(REFUSED) == len(ALL)
    assert {"seed-create", "seed-get", "seed-list"} <= {vector.name for vector in READ}


@pytest.mark.parametrize("vector", READ, ids=lambda vector: vector.name)
def test_a_recorded_reply_gives_its_expected_fields_and_no_others(vector: vectors.Vector) -> None:
    """All fields are compared."""
    assert vector.read() == vector.facts["expected"]


@pytest.mark.parametrize("vector", READ, ids=lambda vector: vector.name)
def test_a_password_in_a_reply_is_not_read(vector: vectors.Vector) -> None:
    """The cloud returns the document's password; messages never contain it."""
    assert "password" not in str(vector.read())
    assert "s3cret" not in str(vector.read())


@pytest.mark.parametrize("vector", NOT_THERE, ids=lambda vector: vector.name)
def test_a_reply_without_the_job_is_job_not_found(vector: vectors.Vector) -> None:
    """In each form in which the cloud says so."""
    with pytest.raises(UpstreamError) as caught:
        vector.read()
    assert ErrorReason.Name(caught.value.reason) == vector.facts["error"]["reason"]


@pytest.mark.parametrize("vector", REFUSED, ids=lambda vector: vector.name)
def test_a_recorded_error_gives_its_reason_message_code_and_request_id(vector: vectors.Vector) -> None:
    """For error bodies of any form."""
    error = vector.refusal()
    assert {
        "reason": ErrorReason.Name(error.reason),
        "message": error.message,
        "code": error.facts.code,
        "request_id": error.facts.request_id,
    } == vector.facts["error"]
    assert error.facts.http_status == vector.facts["status"]
