"""Signatures of Standard Webhooks, secrets of targets, and the events."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.model.webhooks import SecretsError, parse_secrets, signature_headers
from docpreview_gateway.webhooks.events import event_id, job_ended

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"""That of the example of Standard Webhooks."""


def test_the_example_of_the_specification_has_its_signature() -> None:
    """Its reference implementations make the same one."""
    headers = signature_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', parse_secrets(SECRET)
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_while_a_secret_is_replaced_both_sign() -> None:
    new = "whsec_" + base64.b64encode(bytes(range(32))).decode()
    both = signature_headers("evt_1", 1, b"{}", parse_secrets(f"{new}\n{SECRET}\n"))["webhook-signature"].split(" ")
    alone = [signature_headers("evt_1", 1, b"{}", parse_secrets(each))["webhook-signature"] for each in (new, SECRET)]
    assert both == alone


@pytest.mark.parametrize(
    "text",
    ["", "\n\n", "secret", "whsec_", "whsec_c2hvcnQ=", "whsec_no base64!", f"{SECRET}\n{SECRET}\n{SECRET}", SECRET[6:]],
)
def test_unusable_secrets_are_refused_without_quoting_them(text: str) -> None:
    with pytest.raises(SecretsError) as refused:
        parse_secrets(text)
    for line in filter(None, (line.removeprefix("whsec_") for line in text.split())):
        assert line not in str(refused.value) or line == "secret"


def test_an_event_has_one_id_for_each_target_and_job() -> None:
    first = event_id("orders", "docs-1250000000", "d1")
    assert first == event_id("orders", "docs-1250000000", "d1")
    others = {event_id("mail", "docs-1250000000", "d1"), event_id("orders", "docs-1250000000", "d2")}
    assert len(others | {first}) == 3


def test_an_event_is_a_cloud_event_about_the_job_without_its_pages() -> None:
    job = PreviewJob(bucket="docs-1250000000", job_id="d1", state=PreviewJob.STATE_SUCCESS)
    job.result.succeeded_page_count = 2
    job.result.pages.add(object="p/1.jpg", url="https://signed.example.com/")
    event = json.loads(job_ended("evt_1", job, datetime(2026, 11, 30, tzinfo=UTC)))
    assert event == {
        "specversion": "1.0",
        "id": "evt_1",
        "source": "/docpreview/buckets/docs-1250000000",
        "type": "dev.docpreview.job.ended.v1",
        "subject": "d1",
        "time": "2026-11-30T00:00:00Z",
        "datacontenttype": "application/json",
        "data": {
            "bucket": "docs-1250000000",
            "jobId": "d1",
            "state": "STATE_SUCCESS",
            "result": {"succeededPageCount": 2},
        },
    }
    assert len(job.result.pages) == 1
