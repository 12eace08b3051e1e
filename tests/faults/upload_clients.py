"""Clients of a fault campaign of uploads: several callers, who bring contents to keys that they share."""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import crcmod
import grpc
from google.protobuf.duration_pb2 import Duration

from docpreview.v1.upload_service_pb2 import AbortUploadRequest, CompleteUploadRequest, CreateUploadRequest, Upload
from docpreview.v1.upload_service_pb2_grpc import UploadServiceStub
from docpreview_gateway.uploads.plans import PART_BYTES, UPLOAD_ID
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.faults.campaign import Clients, Intent, reason_of
from tests.faults.gateway_process import BUCKET
from tests.faults.upload_history import SLACK, TRANSIENT, Kind, Step, Track
from tests.integration.identity import Policy, bearer

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable


OVERWRITING = frozenset({"press", "admin"})
PREFIXES = {
    "shop": ["in/shop/", "in/common/"],
    "bank": ["in/bank/", "in/common/"],
    "press": ["in/common/"],
    "admin": [""],
}
"""Callers and where they may upload to; `in/common/` is of all of them."""

SHORT_TTL = 1
FINAL_ROUNDS = 6
crc64 = crcmod.mkCrcFun(0x142F0E1EBA9EA3693, initCrc=0, xorOut=2**64 - 1, rev=True)
_now = SystemClock().now


@dataclass(frozen=True, slots=True)
class UploadPlan:
    """Parameters of a campaign of uploads; `large` of them have two parts."""

    seed: int
    ids: int
    large: int
    kills: int = 0
    pauses: int = 0
    jumps: int = 0
    gateways: int = 2
    clients: int = 16


@dataclass(frozen=True, slots=True)
class UploadIntent(Intent):
    """One upload, and what its client does besides bringing the content.

    `aborts`: when it gives up. `twins`: it completes twice at once. `early`: it completes before anything was put.
    `is_late`: it puts after its addresses have expired. `tries_other`: it first puts another content of this length.
    """

    caller: str = ""
    key: str = ""
    content: bytes = b""
    checks: frozenset[str] = frozenset()
    aborts: str = ""
    early: bool = False
    is_late: bool = False
    stranger: str = ""


@dataclass(slots=True)
class Begun:
    """An upload as its client knows it."""

    track: Track
    upload: Upload
    intent: UploadIntent
    etags: list[str] = field(default_factory=list)


class UploadClients(Clients):
    """Clients of several callers that upload."""

    def __init__(self, addresses: list[str], rng: random.Random, policy: Policy, plan: UploadPlan) -> None:
        super().__init__(addresses, rng)
        self._policy, self._plan = policy, plan
        self._base = rng.randbytes(PART_BYTES)
        self._large = set(rng.sample(range(plan.ids), plan.large))
        self._made = 0
        self.small = self.big = 0
        """Ports to which small and large parts are put."""

        self.begun: list[Begun] = []
        self.refused: list[Step] = []
        self.lost_begins = 0

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._uploads = [UploadServiceStub(channel) for channel in self._channels]
        connector = aiohttp.TCPConnector(force_close=True)
        self._http = aiohttp.ClientSession(skip_auto_headers=("content-type",), connector=connector)
        return self

    async def __aexit__(self, *_details: object) -> None:
        await self._http.close()
        await super().__aexit__()

    def _intent(self) -> UploadIntent:
        rng, number = self._rng, self._made
        self._made += 1
        caller = rng.choice(list(PREFIXES))
        is_large = number in self._large
        folder = rng.choice([*PREFIXES[caller], "in/common/"]) or "in/common/"
        key = (
            UPLOAD_ID
            if rng.random() < (0.6 if is_large else 0.3)
            else f"doc-{rng.randrange(max(2, self._plan.ids // 8))}"
        )
        checks = {name for name in ("md5", "crc64") if rng.random() < 0.5}
        return UploadIntent(
            str(number),
            "first",
            rng.randint(2, 5),
            twins=rng.random() < 0.25,
            tries_other=not is_large and rng.random() < 0.15,
            caller=caller,
            key=f"{folder}{key}.pdf",
            content=(self._base if is_large else b"") + rng.randbytes(rng.randint(20, 5_000)),
            checks=frozenset(checks),
            aborts=rng.choice(("begun", "put", "meanwhile", "made"))
            if rng.random() < (0.5 if is_large else 0.1)
            else "",
            early=rng.random() < 0.1,
            is_late=rng.random() < 0.06,
            stranger=rng.choice([each for each in PREFIXES if each != caller]) if rng.random() < 0.2 else "",
        )

    async def _pursue(self, intent: Intent) -> None:
        assert isinstance(intent, UploadIntent)
        begun = await self._begin(intent)
        if begun is None:
            return
        if intent.is_late:
            await asyncio.sleep(SHORT_TTL + SLACK + 0.5)
        if intent.early:
            await self._complete(begun)
        if intent.aborts == "begun":
            await self._abort(begun)
        await self._put_all(begun)
        await self._end(begun)

    async def _end(self, begun: Begun) -> None:
        """Complete it, perhaps twice at once, while it is aborted, or a stranger has its token."""
        intent = begun.intent
        if intent.aborts == "put":
            await self._abort(begun)
        works: list[Awaitable[Any]] = [self._completed(begun) for _ in range(2 if intent.twins else 1)]
        if intent.stranger:
            works += [self._complete(begun, intent.stranger), self._abort(begun, intent.stranger)]
        if intent.aborts == "meanwhile":
            works.append(self._abort(begun, after=self._rng.uniform(0, 0.05)))
        await asyncio.gather(*works)
        if intent.aborts == "made":
            await self._abort(begun)
            await self._complete(begun)

    async def _begin(self, intent: UploadIntent) -> Begun | None:
        request = CreateUploadRequest(bucket=BUCKET, object=intent.key, content_length=len(intent.content))
        if "md5" in intent.checks:
            request.content_md5 = _md5(intent.content).digest()
        if "crc64" in intent.checks:
            request.content_crc64 = crc64(intent.content)
        if intent.is_late:
            request.ttl.CopyFrom(Duration(seconds=SHORT_TTL))
        parts = -(-len(intent.content) // PART_BYTES)
        for _ in range(intent.attempts + (12 if parts > 1 else 3)):
            step, upload = await self._call("create", "CreateUpload", request, intent.caller)
            step.object = intent.key
            if upload is not None:
                track = self._track(intent, upload, step)
                self.begun.append(begun := Begun(track, upload, intent))
                begun.etags = [f'"{_md5(piece).hexdigest()}"' for piece in _pieces(upload, intent.content)]
                return begun
            self.refused.append(step)
            self.lost_begins += parts > 1
            if step.reason not in TRANSIENT:
                return None
            await asyncio.sleep(self._rng.uniform(0.1, 1.0))
        return None

    def _track(self, intent: UploadIntent, upload: Upload, step: Step) -> Track:
        return Track(
            int(intent.request_id),
            intent.caller,
            len(intent.content),
            [crc64(intent.content)],
            parts=len(upload.parts),
            ttl=SHORT_TTL if intent.is_late else 900,
            may_replace=intent.caller in OVERWRITING,
            fresh=UPLOAD_ID in intent.key,
            announced_crc="crc64" in intent.checks,
            key=upload.object,
            expires=upload.expire_time.seconds,
            steps=[step],
        )

    async def _put_all(self, begun: Begun) -> None:
        if begun.intent.tries_other:
            other = self._rng.randbytes(len(begun.intent.content))
            begun.track.contents.append(crc64(other))
            await self._put(begun, 0, other, is_own=False)
        pieces = _pieces(begun.upload, begun.intent.content)
        await asyncio.gather(*(self._put_part(begun, number, piece) for number, piece in enumerate(pieces)))

    async def _put_part(self, begun: Begun, number: int, piece: bytes) -> None:
        for _ in range(begun.intent.attempts + 3):
            step = await self._put(begun, number, piece)
            if step.outcome != "info":
                return
            await asyncio.sleep(self._rng.uniform(0.05, 0.5))

    async def _put(self, begun: Begun, number: int, piece: bytes, *, is_own: bool = True) -> Step:
        part = begun.upload.parts[number]
        step = Step("put", begun.track.caller, _now(), part=number, crc64=crc64(piece), is_own=is_own)
        is_small = len(begun.upload.parts) == 1 or number > 0
        url = re.sub(r":\d+/", f":{self.small if is_small else self.big}/", part.url, count=1)
        try:
            async with (
                asyncio.timeout(self._rng.uniform(2.0, 6.0) if is_small else 30.0),
                self._http.put(url, data=io.BytesIO(piece), headers=dict(part.headers)) as reply,
            ):
                text = await reply.text()
                if reply.status == 200 and "ETag" in reply.headers:
                    step.outcome = "ok"
                elif 400 <= reply.status < 500:
                    code = text.partition("<Code>")[2].partition("</Code>")[0]
                    step.outcome, step.reason = "fail", f"{reply.status} {code}"
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError) as error:
            step.details = repr(error)
        step.end = _now()
        begun.track.steps.append(step)
        return step

    async def _completed(self, begun: Begun) -> None:
        for _ in range(begun.intent.attempts):
            step = await self._complete(begun)
            if step.reason not in TRANSIENT:
                return
            await asyncio.sleep(self._rng.uniform(0.05, 0.8))

    async def _complete(self, begun: Begun, caller: str = "", seconds: float = 0.0) -> Step:
        request = CompleteUploadRequest(upload_token=begun.upload.upload_token, etags=begun.etags)
        step, made = await self._call("complete", "CompleteUpload", request, caller or begun.track.caller, seconds)
        if made is not None:
            step.object, step.length, step.crc64 = made.object, made.content_length, made.content_crc64
        begun.track.steps.append(step)
        return step

    async def _abort(self, begun: Begun, caller: str = "", after: float = 0.0) -> Step:
        await asyncio.sleep(after)
        request = AbortUploadRequest(upload_token=begun.upload.upload_token)
        step, _ = await self._call("abort", "AbortUpload", request, caller or begun.track.caller)
        begun.track.steps.append(step)
        return step

    async def _call(
        self, kind: Kind, method: str, request: object, caller: str, seconds: float = 0.0
    ) -> tuple[Step, Any]:
        """A call of a gateway at random: its step, and its answer if there was one."""
        step, answer = Step(kind, caller, _now()), None
        call: Callable[..., Awaitable[Any]] = getattr(self._rng.choice(self._uploads), method)
        metadata = bearer(self._policy.tokens[caller])
        try:
            answer = await call(
                request, timeout=seconds or self._rng.uniform(0.5, 6.0), metadata=metadata, wait_for_ready=True
            )
        except grpc.aio.AioRpcError as error:
            step.reason, step.details = reason_of(error), error.details() or ""
            step.outcome = "info" if step.reason in TRANSIENT else "fail"
        else:
            step.outcome = "ok"
        step.end = _now()
        return step, answer

    async def finish(self) -> None:
        """A final CompleteUpload of each upload, then an abort of each."""
        for begun in self.begun:
            for _ in range(FINAL_ROUNDS):
                begun.track.final = await self._complete(begun, seconds=20.0)
                begun.track.steps.pop()
                if begun.track.final.reason not in TRANSIENT:
                    break
                await asyncio.sleep(0.5)
        for begun in self.begun:
            for _ in range(FINAL_ROUNDS):
                if (await self._abort(begun)).outcome == "ok":
                    break


def _pieces(upload: Upload, content: bytes) -> list[bytes]:
    return [content[part.offset : part.offset + part.length] for part in upload.parts]


def _md5(content: bytes) -> Any:
    return hashlib.md5(content, usedforsecurity=False)
