"""What can be set about an emulator, each with its unit and default."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Times are in seconds. The defaults make a quick and patient cloud on a laptop."""

    submit_delay: float = 0.05
    """A job is `Submitted` for at least this long."""

    run_delay: float = 0.0
    """A job is `Running` for at least this long, before its document is opened."""

    max_concurrent: int = 10
    """Jobs of one queue that run at the same time (the cloud's `MaxConcurrent`)."""

    render_timeout: float = 300.0
    """A document that takes longer makes its job Failed; the cloud documents five minutes."""

    office_timeout: float = 300.0
    """As `render_timeout`, for the conversion by LibreOffice that comes before it."""

    skew_tolerance: float = 900.0
    """How far in the future a signature's window may begin; the cloud's own figure is not published."""

    retention: float = 30 * 86400.0
    """Jobs older than this do not exist any more (the cloud keeps them for one month)."""

    list_delay: float = 0.0
    """A new job is missing from lists for this long; asking for it by its id finds it at once."""

    record_limit: int = 10_000
    """The newest requests that `Emulator.requests` remembers."""

    soffice: str | None = None
    """The LibreOffice program; unset looks for `soffice` and `libreoffice` on the PATH, "" goes without."""
