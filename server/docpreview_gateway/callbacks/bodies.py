"""What a callback says: the ids of jobs, and of nothing else.

Anybody may send one, so it is a hint only: the job is read, signed, before anything is believed. Forms that the vendor
shows (documents 1545/65203, 460/84951, 436/85073): JSON or XML, one job or several, with or without `EventName`.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.wire import xml as xml_codec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_BODY_BYTES = 1024 * 1024
"""What is looked at of a body: a callback has the job as a read has it, with all of its pages behind its id."""

MOST_JOBS = 20
"""Ids that are taken from one callback: the vendor sends one."""

_ID = re.compile(r"[A-Za-z0-9]{1,64}", re.ASCII)
_ID_IN_PART = re.compile(rb'"JobId"\s*:\s*"([A-Za-z0-9]{1,64})"|<JobId>([A-Za-z0-9]{1,64})</JobId>')


def job_ids(body: bytes) -> list[str]:
    """The ids of a callback's jobs, each once, at most MOST_JOBS; none of what is no callback.

    Of a body of MAX_BODY_BYTES the rest may be missing: what looks like an id there is one.
    """
    if len(body) >= MAX_BODY_BYTES:
        found: Iterable[object] = (json_id.decode() or xml_id.decode() for json_id, xml_id in _ID_IN_PART.findall(body))
    else:
        found = _of_json(body) if body.lstrip()[:1] in {b"{", b"["} else _of_xml(body)
    valid = (each for each in found if isinstance(each, str) and _ID.fullmatch(each))
    return list(dict.fromkeys(valid))[:MOST_JOBS]


def _of_json(body: bytes) -> Iterable[object]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ()
    return _ids_in(found)


def _ids_in(found: Any) -> Iterator[object]:  # noqa: ANN401 - whatever JSON a stranger sends
    details = found.get("JobsDetail") if isinstance(found, dict) else None
    for each in details if isinstance(details, list) else [details]:
        if isinstance(each, dict):
            yield each.get("JobId")


def _of_xml(body: bytes) -> Iterable[object]:
    try:
        root = xml_codec.read(body, "Response")
        return [xml_codec.text(each, "JobId") for each in xml_codec.parts(root, "JobsDetail")]
    except UpstreamError:
        return ()
