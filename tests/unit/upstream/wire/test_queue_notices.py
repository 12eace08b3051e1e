"""`NotifyConfig` of a queue, as it is read and written."""

from __future__ import annotations

from base64 import b64encode
from hashlib import md5
from pathlib import Path

import pytest

from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.wire import queue_notices
from docpreview_gateway.upstream.wire.queue_notices import NoticedQueue, NotifyConfig
from tests.unit.conftest import BUCKET

VECTORS = Path(__file__).parents[3] / "vectors"
QUEUE = "p4bdf22746b014a22a5a097b1f1d057f1"


def test_queues_are_read_with_their_receivers_and_states_as_the_cloud_writes_them() -> None:
    """The states too that the contract has no word for: they are written back."""
    queues, total = queue_notices.read((VECTORS / "queues" / "reply.xml").read_bytes())
    assert total == 12
    assert [(queue.name, queue.state) for queue in queues] == [
        ("queue-doc-process-1", "Active"),
        ("nightly", "Paused"),
        ("odd", "Draining"),
    ]
    assert queues[0].queue_id == QUEUE
    assert queues[0].notify == NotifyConfig("http://callback.example/hook", "On", "Url", "TaskFinish", "XML")


@pytest.mark.parametrize("config", ["", "<NotifyConfig/>", "<NotifyConfig><State/><Url></Url></NotifyConfig>"])
def test_a_queue_without_a_receiver_tells_nobody(config: str) -> None:
    body = f"<Response><QueueList><QueueId>p1</QueueId>{config}</QueueList></Response>".encode()
    (queue,), total = queue_notices.read(body)
    assert (queue.notify.is_on, total) == (False, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"<Response><QueueList><Name>n</Name></QueueList></Response>",
        b"<Response><JobsDetail><JobId>d1</JobId></JobsDetail><Other><A/></Other></Response>",
        b"<Response><QueueList><QueueId>p1</QueueId><Name>a</Name><Name>b</Name></QueueList></Response>",
        b"<Error/>",
    ],
)
def test_a_reply_that_is_not_understood_is_none_of_queues(body: bytes) -> None:
    """It must not be taken for a bucket without queues, or written back."""
    with pytest.raises(UpstreamError, match="reply"):
        queue_notices.read(body)


def test_an_update_repeats_name_and_state_and_writes_the_receiver() -> None:
    """All of a queue is written: what is left out would be lost."""
    queue = NoticedQueue(QUEUE, "a & b", "Paused", queue_notices.to_url("https://x.example.com/t"))
    request = queue_notices.update(BUCKET, queue)
    assert (request.method, request.host, request.target) == ("PUT", BUCKET.ci_host, f"/docqueue/{QUEUE}")
    assert request.body.decode().partition("?>\n")[2] == (
        f"<Request><Name>a &amp; b</Name><QueueID>{QUEUE}</QueueID><State>Paused</State><NotifyConfig>"
        "<Url>https://x.example.com/t</Url><State>On</State><Type>Url</Type><Event>TaskFinish</Event>"
        "<ResultFormat>JSON</ResultFormat></NotifyConfig></Request>"
    )
    assert request.headers == {
        "content-type": "application/xml",
        "content-length": str(len(request.body)),
        "content-md5": b64encode(md5(request.body, usedforsecurity=False).digest()).decode(),
    }
    assert request.unrepeatable


def test_switching_off_writes_off_without_an_address() -> None:
    """As the vendor's sample does."""
    request = queue_notices.update(BUCKET, NoticedQueue(QUEUE, "n", "Active", NotifyConfig()))
    assert b"<NotifyConfig><State>Off</State></NotifyConfig>" in request.body
