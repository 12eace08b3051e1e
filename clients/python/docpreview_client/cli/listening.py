"""`docpreview listen`: sends a receiver of this machine the events of ended jobs, as a webhook target gets them."""

import asyncio
import base64
import hashlib
import hmac
import http.client
import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, NamedTuple
from urllib.parse import quote, urlsplit

import typer
from google.protobuf import json_format

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_client.cli.json_view import JsonView
from docpreview_client.cli.session import Session
from docpreview_client.cli.views import ForwardedEvent
from docpreview_client.errors import TransientError
from docpreview_client.watching import TERMINAL_STATES

LOOK_SECONDS: Final = 2.0
"""Between two looks at the list of jobs."""

ANSWER_SECONDS: Final = 15.0
"""How long the receiver may take, as with the gateway."""

TYPE: Final = "dev.docpreview.job.ended.v1"

_SHORTEST: Final = 24


@dataclass(frozen=True, kw_only=True)
class ListenOptions:
    """Where events go, and what signs them."""

    forward_to: Annotated[
        str | None,
        typer.Option("--forward-to", help="Address of your receiver, such as http://127.0.0.1:3000/previews."),
    ] = None
    secret_file: Annotated[
        Path | None,
        typer.Option("--secret-file", help="File with the secret, whsec_ and base64. Default: a new secret, printed."),
    ] = None

    def address(self) -> str:
        """The address; a BadParameter that says how it must look."""
        address = self.forward_to or ""
        try:
            parts = urlsplit(address)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.username is None
        except ValueError:
            usable = False
        if not usable or not address.isascii() or not address.isprintable() or " " in address:
            text = "must be an address such as http://127.0.0.1:3000/previews, in ASCII and without a user"
            raise typer.BadParameter(text, param_hint="--forward-to")
        try:
            has_port = parts.port != 0
        except ValueError:
            has_port = False
        if not has_port:
            raise typer.BadParameter("its port must be a number from 1 to 65535", param_hint="--forward-to")
        return address

    def secret(self) -> str:
        """The secret of the file, or a new one; a BadParameter for an unusable one, without quoting it."""
        if self.secret_file is None:
            return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        try:
            text = self.secret_file.read_text("ascii").strip()
            usable = text.startswith("whsec_") and len(_key(text)) >= _SHORTEST
        except (OSError, ValueError):
            usable = False
        if not usable:
            raise typer.BadParameter(
                f"{self.secret_file} must have one line: whsec_ and at least {_SHORTEST} bytes in base64",
                param_hint="--secret-file",
            )
        return text


@dataclass
class Listening:
    """Follows the jobs of a bucket that are created from now on. `deliver` gets id and body of each event."""

    bucket: str
    deliver: Callable[[str, bytes], "Answer"]
    """Called in a thread."""
    since: datetime = field(default_factory=lambda: _now() - timedelta(seconds=1))
    told: set[str] = field(default_factory=set)

    async def look(self, session: Session) -> None:
        """Tell of those that have ended since the last look."""
        unfinished = []
        jobs = session.client.list(self.bucket, created_after=self.since, timeout=session.timeout)
        async with aclosing(jobs) as found:
            async for job in found:
                if job.state not in TERMINAL_STATES:
                    unfinished.append(job.create_time.ToDatetime(UTC))
                elif job.job_id not in self.told:
                    self.told.add(job.job_id)
                    session.view.forwarded(await self._forward(job))
        # Lists grow with the time of listening otherwise.
        if unfinished:
            self.since = max(self.since, min(unfinished))

    async def _forward(self, job: PreviewJob) -> ForwardedEvent:
        name, data, body = event(job)
        answer = await asyncio.to_thread(self.deliver, name, body)
        return ForwardedEvent(event_id=name, type=TYPE, job=data, status=answer.status, problem=answer.problem)


async def listen(session: Session, bucket: str, options: ListenOptions) -> None:
    """Follow jobs and forward events until interrupted, or for `session.timeout`.

    A gateway that has answered once is waited for.
    """
    address, secret = options.address(), options.secret()
    if options.secret_file is None and isinstance(session.view, JsonView):
        raise typer.BadParameter("is needed with --json, which does not print a new secret", param_hint="--secret-file")
    if options.secret_file is None:
        session.view.note(f"Signing secret: {secret}")
    session.view.note(f"Events of jobs of {bucket} that are created from now on go to {address}. Ctrl-C ends.")
    end = None if session.timeout is None else time.monotonic() + session.timeout.total_seconds()
    listening = Listening(bucket, lambda name, body: post(address, secret, name, body))
    await listening.look(session)
    is_away = False
    while (left := LOOK_SECONDS if end is None else end - time.monotonic()) > 0:
        await asyncio.sleep(min(LOOK_SECONDS, left))
        try:
            await listening.look(session)
        except TransientError as error:
            if not is_away:
                session.view.note(f"The gateway does not answer ({error.message}). Trying again.")
            is_away = True
        else:
            is_away = False


def event(job: PreviewJob) -> tuple[str, PreviewJob, bytes]:
    """Id, data and body of the CloudEvent about an ended job, as the gateway makes it for a target named `listen`."""
    name = "evt_" + hashlib.sha256(f"listen\n{job.bucket}\n{job.job_id}".encode()).hexdigest()[:32]
    data = PreviewJob()
    data.CopyFrom(job)
    data.result.ClearField("pages")
    ended = job.end_time.ToDatetime(UTC) if job.HasField("end_time") else _now()
    whole = {
        "specversion": "1.0",
        "id": name,
        "source": f"/docpreview/buckets/{quote(job.bucket, safe='')}",
        "type": TYPE,
        "subject": job.job_id,
        "time": ended.isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": json_format.MessageToDict(data),
    }
    return name, data, json.dumps(whole, separators=(",", ":")).encode()


class Answer(NamedTuple):
    """The status of a receiver's answer; None: there is none, and `problem` says why."""

    status: int | None
    problem: str = ""


def post(address: str, secret: str, name: str, body: bytes) -> Answer:
    """POST a signed event once. Whatever the receiver does is an `Answer`."""
    timestamp = str(int(_now().timestamp()))
    digest = hmac.digest(_key(secret), f"{name}.{timestamp}.".encode() + body, "sha256")
    headers = {
        "content-type": "application/cloudevents+json; charset=utf-8",
        "user-agent": "docpreview-gateway",
        "webhook-id": name,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
    request = urllib.request.Request(address, data=body, headers=headers, method="POST")  # noqa: S310 - http(s) only
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())
    try:
        with opener.open(request, timeout=ANSWER_SECONDS) as answer:
            return Answer(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code)
    except OSError as error:
        return Answer(None, f"no answer: {getattr(error, 'reason', error)}")
    except (http.client.HTTPException, ValueError):  # ValueError: such as a host name that cannot be encoded
        return Answer(None, "no answer: what came is not HTTP")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The gateway follows none either."""

    def redirect_request(self, *_arguments: object) -> None:
        """Not followed: the status is the answer."""


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"), validate=True)


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - the command has no Clock
