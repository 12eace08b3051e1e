"""Settings of an emulator, each with its unit and default."""

from dataclasses import dataclass

from docpreview_emulator.sandbox import NAMESPACES

MOST_EMPTY_PAGES = 9
"""A token is longer by a digit with each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings; times are in seconds. The defaults suit a fast cloud with generous limits on a laptop."""

    submit_delay: float = 0.05
    """A job is `Submitted` for at least this long."""

    run_delay: float = 0.0
    """A job is `Running` for at least this long, before its document is opened."""

    max_concurrent: int = 10
    """Jobs of one queue that run at the same time (the cloud's `MaxConcurrent`)."""

    workers: int = 4
    """Documents that are converted at the same time; a bucket gets all but one of them at most."""

    conversion_timeout: float = 300.0
    """A document that takes longer makes its job Failed; the cloud documents five minutes."""

    max_cpu_time: int = 300
    """Seconds of CPU time that a conversion may take."""

    max_memory: int = 2048
    """MiB of memory that each process of a conversion may take."""

    max_files: int = 2048
    """MiB that the files of a conversion may have, those of its pages included."""

    max_unpacked: int = 1024
    """MiB that the package of an Office document may unpack to."""

    max_page_megapixels: int = 200
    """Megapixels that one image may have."""

    max_job_megapixels: int = 20_000
    """Megapixels that all images of a document, or of one of its sheets, may have together."""

    isolation: str = NAMESPACES
    """The strongest isolation of documents to use (`sandbox.KINDS`); what is in force, `health` says."""

    skew_tolerance: float = 900.0
    """Tolerance for a signature's window that begins in the future; the cloud's own value is not published."""

    callback_seconds: float = 5.0
    """Time that a receiver of callbacks has to answer; the cloud's own value is not published."""

    retention: float = 30 * 86400.0
    """Retention of jobs (one month in the cloud)."""

    strict: bool = False
    """Whether only those buckets exist that were created, each in one region; by default all exist, in every region."""

    cors_origins: tuple[str, ...] = ()
    """Origins of pages whose scripts may use object hosts, such as `http://localhost:3000`; `*` means all."""

    list_delay: float = 0.0
    """Time for which a new job is missing from lists; a get by its id finds it immediately."""

    echo_user_data: bool = True
    """Whether answers show the `UserData` of a create; the cloud documents that they do."""

    empty_pages: int = 0
    """Number of empty pages with a token before each page of a list; at most MOST_EMPTY_PAGES."""

    record_limit: int = 10_000
    """Number of requests in `Emulator.requests`; older ones are discarded."""

    tls: bool = False
    """Whether the port speaks TLS and HTTP CONNECT too, with certificates of an authority in the data directory."""

    control_hosts: tuple[str, ...] = ()
    """Names, beside those of loopback, by which the page and the routes below `/_emulator/` may be called."""

    soffice: str | None = None
    """The LibreOffice program; unset searches the PATH for `soffice` and `libreoffice`, "" disables it."""
