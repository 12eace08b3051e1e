"""Parsers of requests: the bodies of creates and of updates of queues, and the query of a list.

Nothing is range-checked, because the cloud does not do it (the vendor's sample sends Quality 109 and gets it echoed);
a value that cannot be parsed is an InvalidArgument.
"""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from docpreview_emulator.clock import read_cloud_time
from docpreview_emulator.errors import CloudError, invalid_argument
from docpreview_emulator.formats import Family, family_of, suffix_of
from docpreview_emulator.hosts import Service, check_key, read_host
from docpreview_emulator.model import NO_CALLBACK, Bucket, Callback, JobSpec, NotifyConfig, Output, State
from docpreview_emulator.pages import MAX_PAGES, OutputName, read_ranges
from docpreview_emulator.xmltree import Element, read_xml

TAG = "DocProcess"
MAX_LIST_SIZE = 100

# The effective value of each parameter that a request leaves out, as the vendor's samples echo it. They contradict the
# vendor's tables in two places (StartPage 1, Comments 0); where documents disagree, the sample is followed.
DEFAULTS = {
    "Comments": "1",
    "DocPassword": "",
    "EndPage": "-1",
    "ImageDpi": "96",
    "ImageParams": "",
    "PageRanges": "",
    "PaperDirection": "0",
    "PaperSize": "0",
    "PicPagination": "0",
    "Quality": "100",
    "SheetId": "0",
    "SrcType": "",
    "StartPage": "0",
    "TgtType": "",
    "Zoom": "100",
}
_TEXTS = {"DocPassword", "ImageParams", "PageRanges", "SrcType", "TgtType"}
TARGETS = {"jpg", "png", "pdf"}
"""Values of `TgtType`; the cloud takes every other one as jpg (vendor document 460/46942)."""

WATERMARK_NUMBERS = ("Dx", "Dy", "Batch", "HorizontalSpacing", "VerticalSpacing")


MAX_CALLBACK = 100
"""Characters of an address that is called back (vendor document 1045/47936)."""

MAX_QUEUE_NAME = 100
"""Characters of the name of a queue (likewise)."""

EVENTS = ("TaskFinish", "TransCodingFinish")
"""Events that a queue tells, both the same: the second is an older word."""


def read_create(body: bytes) -> JobSpec:
    """The job described by a `POST /doc_jobs`.

    Raises:
        CloudError: 400 MissingContent, MalformedXML or InvalidArgument.
    """
    root = _request(body)
    if root.value("Tag") != TAG:
        raise invalid_argument(f"Tag must be {TAG}.")
    output = root.find("Operation/Output") or Element("Output")
    spec = JobSpec(
        input_object=_input_object(root),
        output=Output(*(_required(output, name) for name in ("Region", "Bucket", "Object"))),
        process=_process(root.find("Operation/DocProcess") or Element(TAG)),
        user_data=root.value("Operation/UserData") or None,
        queue_id=root.value("QueueId") or None,
        watermark=_watermark(root.find("Operation/DocProcess/DocWatermark")),
        callback=_callback(root),
    )
    _check_template(spec)
    return spec


def _request(body: bytes) -> Element:
    if not body:
        raise CloudError(400, "MissingContent", "The request has no body.")
    root = read_xml(body)
    if root.name != "Request":
        raise CloudError(400, "MalformedXML", f"The root element is {root.name}, not Request.")
    return root


def _input_object(root: Element) -> str:
    if root.value("Input/Url"):
        raise invalid_argument("Input/Url is not supported by the emulator: it makes no outgoing connections.")
    return _required(root.find("Input") or Element("Input"), "Object")


def _callback(root: Element) -> Callback | None:
    """`CallBack`; None: the request has none."""
    url, form = root.value("CallBack"), root.value("CallBackFormat") or "XML"
    if not url:
        return None
    if url != NO_CALLBACK:
        _check_address("CallBack", url)
    _check_form("CallBackFormat", form)
    if root.value("CallBackType") not in {"", "Url"}:
        raise invalid_argument("CallBackType: the emulator knows Url only.")
    return Callback(url, form)


def _check_address(name: str, url: str) -> None:
    if len(url) > MAX_CALLBACK or not url.startswith(("http://", "https://")):
        wanted = f"an address that begins with http:// or https:// and has at most {MAX_CALLBACK} characters"
        raise invalid_argument(f"{name} must be {wanted}.")


def _check_form(name: str, form: str) -> None:
    if form not in {"XML", "JSON"}:
        raise invalid_argument(f"{name} must be XML or JSON.")


@dataclass(frozen=True, slots=True)
class QueueUpdate:
    """What a `PUT /docqueue/<id>` sets."""

    name: str
    active: bool
    notify: NotifyConfig


def read_queue(body: bytes, queue_id: str) -> QueueUpdate:
    """What a `PUT /docqueue/<queue_id>` sets: all of it, whatever was set before.

    Raises:
        CloudError: 400 MissingContent, MalformedXML or InvalidArgument.
    """
    root = _request(body)
    name, state = _required(root, "Name"), _required(root, "State")
    if len(name) > MAX_QUEUE_NAME:
        raise invalid_argument(f"Name may have {MAX_QUEUE_NAME} characters.")
    if state not in {"Active", "Paused"}:
        raise invalid_argument("State must be Active or Paused.")
    # The SDKs for Go and Java write the id in two ways.
    if (root.value("QueueID") or root.value("QueueId") or queue_id) != queue_id:
        raise invalid_argument("QueueID is not that of the address.")
    sent = root.find("NotifyConfig")
    if sent is None:
        raise invalid_argument("Request/NotifyConfig is missing.")
    return QueueUpdate(name, state == "Active", _notify(sent))


def _notify(sent: Element) -> NotifyConfig:
    url, form = sent.value("Url"), sent.value("ResultFormat")
    state = sent.value("State") or ("On" if url else "Off")
    if state not in {"On", "Off"}:
        raise invalid_argument("NotifyConfig/State must be On or Off.")
    if url or state == "On":
        _check_address("NotifyConfig/Url", url)
    if form:
        _check_form("NotifyConfig/ResultFormat", form)
    if sent.value("Type") not in {"", "Url"}:
        raise invalid_argument("NotifyConfig/Type: the emulator knows Url only.")
    if sent.value("Event") not in {"", *EVENTS}:
        raise invalid_argument(f"NotifyConfig/Event must be of: {', '.join(EVENTS)}.")
    return NotifyConfig(url, state, sent.value("Type"), sent.value("Event"), form)


def _required(parent: Element, name: str) -> str:
    value = parent.value(name)
    if not value:
        raise invalid_argument(f"{parent.name}/{name} is missing.")
    return value


def _process(sent: Element) -> dict[str, str]:
    values = {name: sent.value(name) or default for name, default in DEFAULTS.items()}
    for name in values.keys() - _TEXTS:
        if not re.fullmatch(r"-?[0-9]{1,9}", values[name]):
            raise invalid_argument(f"DocProcess/{name} is not an integer.")
    if values["TgtType"] and values["TgtType"].lower() not in TARGETS:
        values["TgtType"] = "jpg"
    read_ranges(values["PageRanges"])
    return values


def _watermark(sent: Element | None) -> dict[str, str]:
    """An image: no document and no SDK shows another kind that is sent with a job."""
    if sent is None:
        return {}
    values = {name: value for name in ("Type", "Image", *WATERMARK_NUMBERS) if (value := sent.value(name))}
    if values.get("Type") != "1" or "Image" not in values:
        raise invalid_argument("DocWatermark needs Type 1 and an Image; the emulator draws no other kind.")
    image_place(values["Image"])
    for name in values.keys() & set(WATERMARK_NUMBERS):
        if not re.fullmatch(r"[0-9]{1,9}", values[name]):
            raise invalid_argument(f"DocWatermark/{name} is not a number of pixels.")
    return values


def image_place(address: str) -> tuple[Bucket, str]:
    """Bucket and key of the image of a watermark.

    Raises:
        CloudError: 400 InvalidArgument: the address is not of an object host of the cloud.
    """
    parts = urlsplit(address)
    place = read_host(parts.hostname or "")
    if parts.scheme not in {"http", "https"} or place is None or place.service is not Service.COS or not place.bucket:
        raise invalid_argument("The image of a watermark is not on an object host; the emulator makes no connections.")
    return place.bucket, unquote(parts.path[1:])


def _check_template(spec: JobSpec) -> None:
    """Check the variables of the output template: a PDF and a single image need them too (document 460/46942)."""
    naming = OutputName.of(spec.output.object, spec.process)
    check_key(naming.fill(number=MAX_PAGES, page=MAX_PAGES, sheet=MAX_PAGES).removeprefix("/"))
    name = posixpath.basename(spec.output.object)
    if "${Number}" not in name and "${Page}" not in name:
        raise invalid_argument("Output/Object must contain ${Number} or ${Page} in its file name.")
    is_workbook = family_of(suffix_of(spec.input_object, spec.process["SrcType"])) is Family.SHEETS
    if is_workbook and "${SheetID}" not in spec.output.object:
        raise invalid_argument("Output/Object must contain ${SheetID} in its path for a spreadsheet.")


@dataclass(frozen=True, slots=True)
class ListQuery:
    """A parsed `GET /doc_jobs?...`; `states` is empty for all of them; times are Unix seconds, both inclusive."""

    queue_id: str | None
    states: tuple[State, ...]
    ascending: bool
    size: int
    next_token: int | None
    created_from: float | None
    created_to: float | None


def read_list(params: Mapping[str, str]) -> ListQuery:
    """The filter, order and page of a list request.

    Raises:
        CloudError: 400 InvalidArgument.
    """
    if params.get("tag") != TAG:
        raise invalid_argument(f"tag must be {TAG}.")
    order = (params.get("orderByTime") or "Desc").lower()
    if order not in {"asc", "desc"}:
        raise invalid_argument("orderByTime must be Desc or Asc.")
    return ListQuery(
        queue_id=params.get("queueId") or None,
        states=_states(params.get("states") or "All"),
        ascending=order == "asc",
        size=read_number(params, "size", 10, MAX_LIST_SIZE),
        next_token=read_number(params, "nextToken", 0, 2**62) or None,
        created_from=_time(params, "startCreationTime"),
        created_to=_time(params, "endCreationTime"),
    )


def read_number(params: Mapping[str, str], name: str, default: int, largest: int) -> int:
    """A decimal query parameter; absent and empty mean the default.

    Raises:
        CloudError: 400 InvalidArgument: not a number, or above `largest`.
    """
    text = params.get(name) or str(default)
    if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) > largest:
        raise invalid_argument(f"{name} must be a number of at most {largest}.")
    return int(text)


def _states(text: str) -> tuple[State, ...]:
    names = [name.strip() for name in text.split(",")]
    if "All" in names:
        return ()
    try:
        return tuple(State(name) for name in names)
    except ValueError:
        raise invalid_argument(f"states must be of: All, {', '.join(State)}.") from None


def _time(params: Mapping[str, str], name: str) -> float | None:
    text = params.get(name)
    if not text:
        return None
    try:
        return read_cloud_time(text)
    except ValueError:
        raise invalid_argument(f"{name} must look like 2022-09-14T17:15:43+0800.") from None
