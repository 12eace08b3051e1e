"""The emulator's data model: credentials, buckets, queues, jobs and their pages.

Names are the vendor's where it has one.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class State(StrEnum):
    """A job's `State`, as written on the wire."""

    SUBMITTED = "Submitted"
    RUNNING = "Running"
    SUCCESS = "Success"
    FAILED = "Failed"
    PAUSE = "Pause"
    CANCEL = "Cancel"

    @property
    def is_final(self) -> bool:
        """Whether the state is terminal."""
        return self in {State.SUCCESS, State.FAILED, State.CANCEL}


@dataclass(frozen=True, slots=True)
class Credential:
    """A key pair that the emulator accepts.

    With `token` it is temporary: requests must carry the token, and it expires at `expires_at` (Unix seconds).
    """

    secret_id: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    expires_at: float | None = None


DEFAULT_CREDENTIAL = Credential("example-secret-id", "EXAMPLEsecretKEY00000000000000000")
"""The made-up key pair of the documents and examples."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket with its appid, e.g. `examplebucket-1250000000`, in one region."""

    name: str
    region: str


@dataclass(frozen=True, slots=True)
class Output:
    """Location of the pages; `object` is a template with `${Number}`, `${Page}` and `${SheetID}`."""

    region: str
    bucket: str
    object: str


NO_CALLBACK = "no"
"""The `CallBack` of a job whose end is told nobody, whatever its queue says."""


@dataclass(frozen=True, slots=True)
class Callback:
    """Where the end of a job is told (or NO_CALLBACK), and whether as `XML` or `JSON`."""

    url: str
    format: str = "XML"


@dataclass(frozen=True, slots=True)
class JobSpec:
    """The content of a create request; `process` holds every `DocProcess` value in its effective form.

    `watermark` has the values of `DocProcess/DocWatermark`; empty: there is none.
    """

    input_object: str
    output: Output
    process: dict[str, str]
    user_data: str | None = None
    queue_id: str | None = None
    watermark: dict[str, str] = field(default_factory=dict)
    callback: Callback | None = None
    """None: that of the queue."""


@dataclass(frozen=True, slots=True)
class PageInfo:
    """One output. `page_no` is the source page, or the sheet of a workbook; only workbooks have the other three."""

    page_no: int
    target: str
    sheet_pictures: int | None = None
    picture_index: int | None = None
    picture_number: int | None = None


@dataclass(frozen=True, slots=True)
class JobResult:
    """Result of a successful job; counts are of pages of the source."""

    total_pages: int
    failed_pages: int
    pages: tuple[PageInfo, ...]
    total_sheets: int | None = None
    warnings: tuple[str, ...] = ()
    """What the pages do not show although the job succeeded; sentences, which the job's message carries."""


@dataclass(frozen=True, slots=True)
class Job:
    """One document-preview job; times are Unix seconds."""

    job_id: str
    bucket: Bucket
    queue_id: str
    spec: JobSpec
    state: State
    created: float
    started: float | None = None
    ended: float | None = None
    code: str = "Success"
    message: str = ""
    result: JobResult | None = None


@dataclass(frozen=True, slots=True)
class NotifyConfig:
    """Whom a queue tells the ends of its jobs, with the words of the wire; by default nobody."""

    url: str = ""
    state: str = "Off"
    type: str = ""
    event: str = ""
    result_format: str = ""


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue of document jobs."""

    queue_id: str
    bucket: Bucket
    name: str
    active: bool
    created: float
    updated: float
    notify: NotifyConfig = NotifyConfig()

    @property
    def callback(self) -> Callback | None:
        """Where the ends of jobs are told that say nothing of it themselves; None: nowhere."""
        return Callback(self.notify.url, self.notify.result_format or "XML") if self.notify.state == "On" else None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Metadata of an object; its bytes are in the file `path` of the data directory."""

    bucket: Bucket
    key: str
    path: str
    size: int
    etag: str
    content_type: str
    modified: float
    crc64: str = ""
    """In decimal; empty for objects of an earlier version of the emulator."""

    metadata: dict[str, str] = field(default_factory=dict)
    """The headers with which it was put that come back: `x-cos-meta-*` and e.g. `cache-control`, in lower case."""


@dataclass(frozen=True, slots=True)
class Multipart:
    """A multipart upload that has been begun."""

    upload_id: str
    bucket: Bucket
    key: str
    content_type: str
    metadata: dict[str, str]
    begun: float


@dataclass(frozen=True, slots=True)
class Part:
    """A part that was put; `path` is the name of its file."""

    number: int
    path: str
    size: int
    etag: str
    modified: float
