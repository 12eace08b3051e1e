"""Recorded replies read into messages of the contract, field by field."""

import pytest

from docpreview.v1.error_reason_pb2 import ErrorReason
from docpreview_gateway.model.errors import UpstreamError

from . import vectors

ALL = vectors.load()
READ = [vector for vector in ALL if "expected" in vector.facts]
NOT_THERE = [vector for vector in ALL if "error" in vector.facts and vector.facts["read"] != "refusal"]
REFUSED = [vector for vector in ALL if vector.facts["read"] == "refusal"]


def test_every_vector_is_judged() -> None:
    """No folder is left out, and the seed's three samples are among them."""
    assert len(READ) + len(NOT_THERE) + len(REFUSED) == len(ALL)
    assert {"seed-create", "seed-get", "seed-list"} <= {vector.name for vector in READ}


@pytest.mark.parametrize("vector", READ, ids=lambda vector: vector.name)
def test_a_recorded_reply_gives_its_expected_fields_and_no_others(vector: vectors.Vector) -> None:
    """Every field has its value, and no other field is set."""
    assert vector.read() == vector.facts["expected"]


@pytest.mark.parametrize("vector", READ, ids=lambda vector: vector.name)
def test_password_in_a_reply(vector: vectors.Vector) -> None:
    """The password that the cloud echoes is never in a message."""
    assert "password" not in str(vector.read())
    assert "s3cret" not in str(vector.read())


@pytest.mark.parametrize("vector", NOT_THERE, ids=lambda vector: vector.name)
def test_reply_without_the_job(vector: vectors.Vector) -> None:
    """Each way in which the cloud says "no such job" is one error."""
    with pytest.raises(UpstreamError) as caught:
        vector.read()
    assert ErrorReason.Name(caught.value.reason) == vector.facts["error"]["reason"]


@pytest.mark.parametrize("vector", REFUSED, ids=lambda vector: vector.name)
def test_a_recorded_error_gives_its_reason_message_code_and_request_id(vector: vectors.Vector) -> None:
    """Reason, message, code and request id of an error body in any of its forms."""
    error = vector.refusal()
    assert {
        "reason": ErrorReason.Name(error.reason),
        "message": error.message,
        "code": error.facts.code,
        "request_id": error.facts.request_id,
    } == vector.facts["error"]
    assert error.facts.http_status == vector.facts["status"]
