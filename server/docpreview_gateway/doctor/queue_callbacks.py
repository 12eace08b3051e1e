"""Whom the queues of the configured buckets tell the ends of their jobs: looked at, written, and looked at again."""

from __future__ import annotations

from shlex import quote
from typing import TYPE_CHECKING, NamedTuple

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.callbacks.queue_addresses import QueueAddresses
from docpreview_gateway.callbacks.tokens import CallbackTokens
from docpreview_gateway.doctor.diagnosis import Finding, remedy_of
from docpreview_gateway.model.errors import ForeignReply, GatewayError
from docpreview_gateway.storage.key_file import OWN_NAME, read_secrets
from docpreview_gateway.upstream.wire.queue_notices import NoticedQueue, NotifyConfig

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from docpreview_gateway.callbacks.queue_addresses import Standing
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.upstream.cloud_queues import CloudQueues

COMMAND = "docpreview-gateway callbacks configure"
READ_RIGHT, WRITE_RIGHT = "ci:DescribeDocProcessQueues", "ci:UpdateDocProcessQueue"
"""Rights of the vendor (documents 460/46946 and 460/46947) that reading and writing a queue need."""

NAMES = {
    "off": "tells nobody",
    "outdated": "has an address of an earlier secret, or of an earlier callbacks.public_url",
    "foreign": "tells somebody else",
}


class Seen(NamedTuple):
    """A queue of a bucket, and whom it tells."""

    bucket: Bucket
    queue: NoticedQueue
    standing: Standing

    @property
    def name(self) -> str:
        """As messages name it."""
        return f"{self.bucket.name} {self.queue.queue_id}"


class Refused(NamedTuple):
    """What could not be done, and what to do."""

    subject: str
    problem: str
    remedy: str

    @property
    def text(self) -> str:
        """As commands print it."""
        return f"{self.subject}: {self.problem}\n       to do: {self.remedy}"


def queue_addresses(settings: Settings) -> QueueAddresses:
    """The addresses of this deployment, which has a `callbacks.public_url`. KeyFileError."""
    secrets = read_secrets(settings.ledger.key_file or settings.state_dir / OWN_NAME)
    tokens = CallbackTokens(secrets, settings.shared_state.namespace or "")
    return QueueAddresses(str(settings.callbacks.public_url), tokens)


class QueueCallbacks:
    """Looks at queues and writes them. `endpoint` is upstream.endpoint, None when it is not set."""

    def __init__(self, cloud: CloudQueues, addresses: QueueAddresses, endpoint: str | None) -> None:
        self._cloud = cloud
        self._addresses = addresses
        self._endpoint = endpoint

    async def seen(self, bucket: Bucket) -> list[Seen] | Refused:
        """The queues of a bucket as they are now."""
        try:
            queues = await self._cloud.read(bucket)
        except GatewayError as error:
            return self._refused(bucket.name, error, bucket, READ_RIGHT)
        return [Seen(bucket, queue, self._addresses.standing(bucket.name, queue.notify)) for queue in queues]

    async def written(self, before: Seen, notify: NotifyConfig) -> Refused | None:
        """Have a queue tell `notify`, and look whether it does; None: it does. Name and state stay as they are now.

        A queue that tells another one than `before` is left alone: somebody else is changing it.
        """
        now = await self._now(before)
        if isinstance(now, Refused):
            return now
        if now.queue.notify != before.queue.notify:
            return Refused(before.name, "was changed meanwhile, and is left as it is", "run the command again")
        try:
            await self._cloud.update(
                now.bucket, NoticedQueue(now.queue.queue_id, now.queue.name, now.queue.state, notify)
            )
        except GatewayError as error:
            return self._refused(now.name, error, now.bucket, WRITE_RIGHT)
        after = await self._now(before)
        if isinstance(after, Refused):
            return after
        if _differs(after.queue.notify, notify):
            shown = self._addresses.shown(after.bucket.name, after.queue.notify)
            problem = f"the cloud accepted the change, and shows that the queue tells {shown}"
            return Refused(after.name, problem, "run the command again in a minute: it shows what is there then")
        return None

    async def _now(self, before: Seen) -> Seen | Refused:
        found = await self.seen(before.bucket)
        if isinstance(found, Refused):
            return found
        for each in found:
            if each.queue.queue_id == before.queue.queue_id:
                return each
        return Refused(before.name, "the cloud does not show this queue any more", "run the command again")

    def _refused(self, subject: str, error: GatewayError, bucket: Bucket, right: str) -> Refused:
        if error.reason == reasons.ERROR_REASON_UPSTREAM_ACCESS_DENIED and not isinstance(error, ForeignReply):
            remedy = (
                f"allow {right} on this bucket to the key of credentials.{bucket.credentials}, in the cloud's access "
                "management (CAM), or run this once with a key that may"
            )
        else:
            _, remedy = remedy_of(error.reason, self._endpoint)
        return Refused(subject, error.message, remedy)


def _differs(found: NotifyConfig, wanted: NotifyConfig) -> bool:
    return found.is_on != wanted.is_on or (wanted.is_on and found.url != wanted.url)


async def queue_findings(queues: QueueCallbacks, buckets: Sequence[Bucket], config: Path | None) -> list[Finding]:
    """Findings of `doctor` on what the queues of the buckets tell, with `callbacks.mode: queue`.

    `config` is the option --config of the command, which what is to do has too.
    """
    command = COMMAND if config is None else f"{COMMAND} --config {quote(str(config))}"
    found = []
    for bucket in buckets:
        seen = await queues.seen(bucket)
        if isinstance(seen, Refused):
            found.append(Finding("callbacks", bucket.name, seen.problem, seen.remedy))
        else:
            found += [_finding(each, command) for each in seen]
    return found


def _finding(seen: Seen, command: str) -> Finding:
    if seen.standing == "wanted":
        return Finding("callbacks", seen.name, "its queue tells this deployment the ends of its jobs")
    effect = "" if seen.standing == "outdated" else ", so its jobs are polled"
    command = f"{command} --queue {seen.queue.queue_id}"
    remedy = f"run `{command}`"
    if seen.standing == "foreign":
        remedy = f"run `{command} --replace` if this deployment is to be told instead"
    # Creates without queue_id go to the default queue, or to whichever the cloud takes.
    is_used = seen.bucket.default_queue_id in {"", seen.queue.queue_id}
    return Finding("callbacks", seen.name, f"its queue {NAMES[seen.standing]}{effect}", remedy, is_warning=not is_used)
