"""Findings of `doctor`: what was checked, the result, and the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_queue_service_pb2 import PreviewQueue
from docpreview_gateway.model.errors import ForeignReply
from docpreview_gateway.upstream import causes
from docpreview_gateway.upstream.cloud_clock import cloud_time
from docpreview_gateway.upstream.ports import ProxyError
from docpreview_gateway.upstream.wire.signing import CLOCK_SLACK

if TYPE_CHECKING:
    from docpreview.v1.error_reason_pb2 import ErrorReason
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.model.errors import UpstreamError
    from docpreview_gateway.upstream.operations import QueuePage
    from docpreview_gateway.upstream.ports import TransportError

Check = Literal[
    "configuration",
    "files",
    "state",
    "ports",
    "certificate",
    "issuer",
    "redis",
    "store",
    "dns",
    "proxy",
    "tls",
    "clock",
    "signature",
    "binding",
    "queue",
    "pages",
    "uploads",
    "emulator",
    "callbacks",
    "webhooks",
]
"""What was checked. docs/security.md says what each of them is."""

Level = Literal["ok", "warning", "problem"]

CERTIFICATE_DAYS = 14

SAME_SECONDS = 1.5
"""Difference of two clocks up to which they are told to agree: an answer takes a while, and has whole seconds."""


class NetworkError(Exception):
    """A host name does not resolve, or a host cannot be reached or trusted; the message says why."""


class Finding(NamedTuple):
    """The result of one check of one subject: `remedy` says what to do, empty when all is well.

    A warning is what may be wanted, or cannot be known from here; it does not change the exit code.
    """

    check: Check
    subject: str
    result: str
    remedy: str = ""
    is_warning: bool = False

    @property
    def level(self) -> Level:
        """How bad it is."""
        if not self.remedy:
            return "ok"
        return "warning" if self.is_warning else "problem"

    @property
    def ok(self) -> bool:
        """Whether nothing needs to be done."""
        return self.level != "problem"

    def as_json(self) -> dict[str, object]:
        """The finding as `doctor --json` prints it."""
        words = {"check": self.check, "subject": self.subject, "result": self.result, "remedy": self.remedy}
        return {**words, "level": self.level, "ok": self.ok}


_KEYS = "check secret_id, secret_key and token of the bucket's credentials; temporary keys may have expired"
_REMEDIES: dict[ErrorReason.ValueType, tuple[Check, str]] = {
    r.ERROR_REASON_UPSTREAM_CREDENTIALS: ("signature", _KEYS),
    r.ERROR_REASON_CLOCK_SKEW: ("clock", "set this machine's clock, for example by NTP"),
    r.ERROR_REASON_UPSTREAM_ACCESS_DENIED: (
        "signature",
        "the key is known but lacks rights: allow it the document jobs and queues of CI for this bucket",
    ),
    r.ERROR_REASON_BUCKET_NOT_FOUND: ("binding", "check the bucket's name and region, or create it"),
    r.ERROR_REASON_WRONG_REGION: ("binding", "the bucket is in another region: correct buckets[].region"),
    r.ERROR_REASON_DOC_SERVICE_NOT_ENABLED: (
        "binding",
        "bind the bucket to CI and switch document processing on for it, in the cloud's console",
    ),
    r.ERROR_REASON_CI_ROLE_MISSING: ("binding", "create the role CI_QCSRole in the cloud's console"),
    r.ERROR_REASON_ACCOUNT_BLOCKED: (
        "binding",
        "the cloud account is in arrears or blocked: resolve that first",
    ),
}
PROXY = (
    "check upstream.proxy with its user and password, and that the proxy lets this machine open tunnels (CONNECT) "
    "to the cloud's hosts"
)
_OTHER = "try again; if it persists, send this message and the request id to the vendor's support"


def on_the_way(endpoint: str | None) -> str:
    """What to check when not the cloud answers, or nobody: `endpoint` is upstream.endpoint, None when it is not set."""
    own = "" if endpoint is None else "upstream.endpoint, and "
    return f"check {own}proxies, load balancers and firewalls on the way"


def what_to_check(error: TransportError | TimeoutError, endpoint: str | None) -> str:
    """What to check when there was no reply: the proxy if that is the trouble, else TLS, or what is on the way."""
    return PROXY if isinstance(error, ProxyError) else remedy_of_connecting(error.__cause__, on_the_way(endpoint))


_CLOCK = (
    "check this machine's clock; if it is right, whoever runs the host, or what inspects TLS on the way, has to renew "
    "the certificate"
)
_OF_TLS = {
    causes.EXPIRED: _CLOCK,
    causes.NOT_YET: _CLOCK,
    causes.OTHER_NAME: "another server answers: check the host's name and DNS, and proxies on the way that inspect TLS",
    causes.UNTRUSTED: "add its authority to those that this machine trusts (ca-certificates), if it is known to you: "
    "a proxy on the way that inspects TLS has one of its own",
    causes.NO_TLS: "check the port and the scheme of the address, and proxies on the way",
    causes.OLD_TLS: "whoever runs the host, or what inspects TLS on the way, has to speak TLS 1.2 or later",
}


def remedy_of_connecting(why: BaseException | None, otherwise: str) -> str:
    """What to do about a connection that failed for this error; `otherwise` is for all but those of TLS."""
    return _OF_TLS.get(causes.of_connecting(why), otherwise) if isinstance(why, OSError) else otherwise


def remedy_of(reason: ErrorReason.ValueType, endpoint: str | None) -> tuple[Check, str]:
    """What a refusal for this reason is about, and what to do."""
    if reason == r.ERROR_REASON_UPSTREAM_HOST_REJECTED:
        return (
            "binding",
            "check bucket and region" if endpoint is None else "check bucket, region and upstream.endpoint",
        )
    return _REMEDIES.get(reason, ("binding", _OTHER))


def of_refusal(error: UpstreamError, bucket: Bucket, endpoint: str | None) -> Finding:
    """The finding for an error of the cloud."""
    if isinstance(error, ForeignReply):
        found: tuple[Check, str] = ("binding", f"{on_the_way(endpoint)}: the cloud did not answer")
    else:
        found = remedy_of(error.reason, endpoint)
    request_id = f", request id {error.facts.request_id}" if error.facts.request_id else ""
    check, remedy = found
    return Finding(check, bucket.name, error.message + request_id, remedy)


def of_silence(error: TransportError | TimeoutError) -> str:
    """Why there was no reply, without the words of a library."""
    if isinstance(error, ProxyError):
        return str(error)  # the gateway's own words
    if isinstance(error, TimeoutError) or (error.sent and error.timed_out):
        return "no reply in time"
    return f"the connection broke: {error}" if error.sent else f"no connection could be made: {error}"


def clock_words(ahead: float, whose: str) -> str:
    """How a clock compares with another one, by the seconds that it is ahead."""
    if abs(ahead) < SAME_SECONDS:
        return f"agrees with {whose}"
    return f"is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {whose}"


def of_clock(date: str, now: float) -> Finding:
    """The difference between this machine's clock and the cloud's, by the `Date` of its reply."""
    cloud = cloud_time(date)
    if cloud is None:
        return Finding("clock", "this machine", "the cloud's reply has no date to compare with")
    # A `Date` has whole seconds: on the average it is half a second old when it is written.
    ahead = now - cloud - 0.5
    result = clock_words(ahead, "the cloud's")
    is_off = abs(ahead) > CLOCK_SLACK
    return Finding("clock", "this machine", result, _REMEDIES[r.ERROR_REASON_CLOCK_SKEW][1] if is_off else "")


def of_queues(page: QueuePage, bucket: Bucket) -> Finding:
    """Whether an active queue takes this bucket's jobs."""
    wanted = bucket.default_queue_id
    chosen = [queue for queue in page.queues if wanted in {"", queue.queue_id}]
    if wanted and not chosen:
        return Finding("queue", bucket.name, f"there is no queue {wanted}", "correct buckets[].default_queue_id")
    active = [queue.queue_id for queue in chosen if queue.state == PreviewQueue.STATE_ACTIVE]
    if active:
        return Finding("queue", bucket.name, f"{active[0]} is active")
    result = f"{chosen[0].queue_id} is paused" if chosen else "there is no queue"
    return Finding("queue", bucket.name, result, "activate a queue for the bucket in the cloud's console")


def of_certificate(host: str, not_after: float, now: float) -> Finding:
    """How long a host's certificate is still valid; its name and chain were verified before."""
    return of_expiry("tls", host, not_after, now)


def of_expiry(check: Check, subject: str, not_after: float, now: float) -> Finding:
    """How long a certificate is still valid."""
    days = (not_after - now) / 86400
    if days < 0:
        return Finding(check, subject, f"the certificate expired {-days:.0f} days ago", "renew it: it is refused")
    remedy = f"renew it: it expires in {days:.0f} days" if days < CERTIFICATE_DAYS else ""
    return Finding(check, subject, f"the certificate is valid for {days:.0f} more days", remedy)
