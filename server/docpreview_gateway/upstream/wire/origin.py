"""Who sent a reply: CI (the job API), COS (the object store), or something on the way to them.

Both services name themselves in headers, with a request id and `Server`. A proxy may remove headers, so a body in CI's
own form counts too. Everything else is a stranger's: whatever its status says, it says nothing about jobs and objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.wire import xml as xml_codec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from docpreview_gateway.upstream.wire.http import HttpReply

_OF_CI = frozenset(
    {"JobsDetail", "NonExistJobIds", "NextToken", "QueueList", "NonExistPIDs", "TotalCount", "RequestId"}
)
"""Elements of a `Response`: each of CI's replies has one of them."""

_OF_STORES = frozenset({"Resource", "HostId"})
"""Elements of an `Error` that object stores send and CI does not."""


def is_from_ci(reply: HttpReply) -> bool:
    """Whether CI sent this reply, by its headers, or by its body when no header names another sender."""
    if _names(reply.headers, "ci"):
        return True
    return not _names_another(reply.headers) and _is_in_form_of_ci(reply.body)


def is_from_cos(reply: HttpReply) -> bool:
    """Whether COS sent this reply, by its headers: a reply to HEAD has no body."""
    return _names(reply.headers, "cos")


def _names(headers: Mapping[str, str], service: str) -> bool:
    server = headers.get("server", "").strip().lower()
    return bool(headers.get(f"x-{service}-request-id", "").strip()) or server.startswith(f"tencent-{service}")


def _names_another(headers: Mapping[str, str]) -> bool:
    """Whether COS, or another object store that speaks like it, names itself. Proxies do so too, in `Server`."""
    return _names(headers, "cos") or any(name.startswith("x-amz-") for name in headers)


def _is_in_form_of_ci(body: bytes) -> bool:
    try:
        name, root = xml_codec.read_any(body)
        if name == "Response":
            return not _OF_CI.isdisjoint(root)
        is_of_ci = name == "Error" and _OF_STORES.isdisjoint(root)
        return is_of_ci and bool(xml_codec.text(root, "Code") and xml_codec.text(root, "RequestId"))
    except UpstreamError:
        return False
