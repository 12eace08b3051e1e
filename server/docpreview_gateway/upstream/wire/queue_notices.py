"""Whom a queue tells the ends of its jobs: `NotifyConfig` of `GET /docqueue` and `PUT /docqueue/<QueueId>`.

Names: vendor documents 460/46946 and 460/46947. An update writes all of a queue, so it repeats name and state as read.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from hashlib import md5
from typing import TYPE_CHECKING

from docpreview_gateway.upstream.wire import xml as xml_codec
from docpreview_gateway.upstream.wire.http import HttpRequest
from docpreview_gateway.upstream.wire.responses import queue_nodes

if TYPE_CHECKING:
    from docpreview_gateway.model.buckets import Bucket


@dataclass(frozen=True, slots=True)
class NotifyConfig:
    """A receiver, with the words of the wire; by default none.

    `kind` is `Url`, or a message queue of the vendor's, which has no address here.
    """

    url: str = ""
    state: str = "Off"
    kind: str = ""
    event: str = ""
    result_format: str = ""

    @property
    def is_on(self) -> bool:
        """Whether somebody is told."""
        return self.state.lower() == "on"


@dataclass(frozen=True, slots=True)
class NoticedQueue:
    """A queue with its receiver. `name` and `state` are the cloud's words."""

    queue_id: str
    name: str
    state: str
    notify: NotifyConfig


def to_url(url: str) -> NotifyConfig:
    """The receiver at this address (at most 100 characters), told in JSON."""
    return NotifyConfig(url, "On", "Url", "TaskFinish", "JSON")


def update(bucket: Bucket, queue: NoticedQueue) -> HttpRequest:
    """`PUT /docqueue/<QueueId>` of the whole queue. ValueError when a text has a character that XML 1.0 forbids."""
    notify = queue.notify
    texts = (
        ("Url", notify.url),
        ("State", notify.state),
        ("Type", notify.kind),
        ("Event", notify.event),
        ("ResultFormat", notify.result_format),
    )
    tree: list[tuple[str, xml_codec.Tree | str]] = [
        ("Name", queue.name),
        ("QueueID", queue.queue_id),
        ("State", queue.state),
        ("NotifyConfig", tuple((name, text) for name, text in texts if text)),
    ]
    body = xml_codec.write("Request", tree)
    checksum = base64.b64encode(md5(body, usedforsecurity=False).digest()).decode()
    headers = {"content-type": "application/xml", "content-length": str(len(body)), "content-md5": checksum}
    path = f"/docqueue/{queue.queue_id}"
    return HttpRequest("PUT", bucket.ci_host, path, headers=headers, body=body, unrepeatable=True)


def read(body: bytes) -> tuple[tuple[NoticedQueue, ...], int]:
    """The queues of a page, and how many all pages have. UPSTREAM_BAD_RESPONSE."""
    nodes, total = queue_nodes(xml_codec.read(body, "Response"))
    return tuple(map(_queue, nodes)), total


def _queue(node: xml_codec.Node) -> NoticedQueue:
    queue_id, name, state = (xml_codec.text(node, each) for each in ("QueueId", "Name", "State"))
    told = xml_codec.part(node, "NotifyConfig")
    if told is None:
        return NoticedQueue(queue_id, name, state, NotifyConfig())
    names = ("Url", "State", "Type", "Event", "ResultFormat")
    return NoticedQueue(queue_id, name, state, NotifyConfig(*(xml_codec.text(told, each) for each in names)))
