"""The control API below `/_emulator/`: the controls of `Emulator` for other processes, as JSON."""

import json
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from docpreview_emulator.backend import Backend
from docpreview_emulator.errors import CloudError, ControlError, StorageError
from docpreview_emulator.faults import Fault
from docpreview_emulator.hosts import BUCKET_AND_REGION, Service, check_key, is_bucket_name, read_host
from docpreview_emulator.model import Bucket, State
from docpreview_emulator.objects import Properties
from docpreview_emulator.page_creates import FIELDS, create

_CHUNK = 1024 * 1024
_NO_JSON = "the body has to be JSON, with the header Content-Type: application/json"
_LONGEST_NUMBER = 30
_EXAMPLE_HOST = "examplebucket-1250000000.cos.ap-chongqing.myqcloud.com"

_Handler = Callable[[web.Request], Awaitable[web.Response]]


def control_routes(backend: Backend) -> list[web.RouteDef]:
    """The routes of the control API."""
    control = _Control(backend)
    return [
        web.get("/_emulator/health", _answered(control.health)),
        web.get("/_emulator/stats", _answered(control.stats)),
        web.get("/_emulator/faults", _answered(control.faults)),
        web.post("/_emulator/faults", _answered(control.add_fault)),
        web.delete("/_emulator/faults", _answered(control.clear_faults)),
        web.get("/_emulator/requests", _answered(control.requests)),
        web.delete("/_emulator/requests", _answered(control.clear_requests)),
        web.get("/_emulator/callbacks", _answered(control.callbacks)),
        web.get("/_emulator/clock", _answered(control.clock)),
        web.put("/_emulator/clock", _answered(control.set_clock)),
        web.post("/_emulator/queues/{queue_id}/pause", _answered(control.pause)),
        web.post("/_emulator/queues/{queue_id}/resume", _answered(control.resume)),
        web.post("/_emulator/jobs", _answered(control.create)),
        web.post("/_emulator/jobs/hold", _answered(control.hold)),
        web.post("/_emulator/jobs/release", _answered(control.release)),
        web.put("/_emulator/jobs/{job_id}/state", _answered(control.set_state)),
        web.put("/_emulator/buckets/{bucket}/binding", _answered(control.bind)),
        web.put("/_emulator/upload/{host}/{key:(?s:.+)}", _answered(control.upload, takes_any=True)),
    ]


async def health(backend: Backend) -> dict[str, object]:
    """What the emulator found on its machine to render with, and the isolation of documents."""
    isolation = await backend.workers.isolation()
    fonts = await backend.fonts()
    found: dict[str, object] = {"font_families": None, "cjk_fonts": None}
    if fonts is not None:
        found = {"font_families": fonts.families, "cjk_fonts": fonts.has_cjk}
    return {"status": "ok", "libreoffice": backend.office is not None, **found, "isolation": isolation}


def _answered(handler: Callable[[web.Request], Awaitable[object]], *, takes_any: bool = False) -> _Handler:
    """A handler with its value as JSON, and its errors as `{"error": ...}` with 400 (500 for the disk).

    A body has to say that it is JSON, unless the handler `takes_any`: no form of another page can say that.
    """

    async def answer(request: web.Request) -> web.Response:
        if request.body_exists and request.content_type != "application/json" and not takes_any:
            return web.json_response({"error": _NO_JSON}, status=415)
        try:
            return web.json_response(await handler(request))
        except ControlError as error:
            return web.json_response({"error": str(error)}, status=400)
        except StorageError as error:
            return web.json_response({"error": str(error)}, status=500)

    return answer


class _Control:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def health(self, _request: web.Request) -> object:
        return await health(self._backend)

    async def stats(self, _request: web.Request) -> object:
        backend = self._backend
        counts = {"accepted_jobs": backend.jobs.accepted(), "jobs": backend.jobs.counts()}
        stopped = {
            "held": backend.scheduler.holds,
            "paused_queues": [queue.queue_id for queue in backend.queues.paused()],
        }
        return {**counts, **stopped, "objects": backend.objects.count(), "requests": len(backend.recorder.all())}

    async def faults(self, _request: web.Request) -> object:
        return [fault.as_dict() for fault in self._backend.faults.active()]

    async def add_fault(self, request: web.Request) -> object:
        fault = Fault.of(await _body(request))
        self._backend.faults.add(fault)
        return fault.as_dict()

    async def clear_faults(self, _request: web.Request) -> object:
        self._backend.faults.clear()
        return []

    async def requests(self, _request: web.Request) -> object:
        return [record.as_dict() for record in self._backend.recorder.all()]

    async def clear_requests(self, _request: web.Request) -> object:
        self._backend.recorder.clear()
        return []

    async def callbacks(self, _request: web.Request) -> object:
        return [record.as_dict() for record in self._backend.callbacks.records]

    async def clock(self, _request: web.Request) -> object:
        return {"offset_seconds": self._backend.clock.offset_seconds, "now": self._backend.clock.now()}

    async def set_clock(self, request: web.Request) -> object:
        given = await _body(request, offset_seconds=(int, float))
        if "offset_seconds" not in given:
            raise ControlError("offset_seconds is needed")
        self._backend.clock.offset_seconds = given["offset_seconds"]
        return await self.clock(request)

    async def pause(self, request: web.Request) -> object:
        self._backend.set_queue_active(request.match_info["queue_id"], active=False)
        return {"state": "Paused"}

    async def resume(self, request: web.Request) -> object:
        queue_id = request.match_info["queue_id"]
        self._backend.set_queue_active(queue_id, active=True)
        self._backend.scheduler.start_waiting(queue_id)
        return {"state": "Active"}

    async def create(self, request: web.Request) -> object:
        job = create(self._backend, await _body(request, **FIELDS))
        return {"job_id": job.job_id, "state": job.state}

    async def hold(self, _request: web.Request) -> object:
        self._backend.scheduler.hold()
        return {"held": True}

    async def release(self, _request: web.Request) -> object:
        self._backend.scheduler.release()
        return {"held": False}

    async def set_state(self, request: web.Request) -> object:
        given = {"code": "Success", "message": "", **await _body(request, state=str, code=str, message=str)}
        if given.get("state") not in set(State):
            raise ControlError(f"state is unknown; accepted: {', '.join(State)}")
        job_id = request.match_info["job_id"]
        self._backend.jobs.set_state(job_id, State(given["state"]), given["code"], given["message"])
        self._backend.scheduler.cancel(job_id)
        return {"job_id": job_id, "state": given["state"]}

    async def bind(self, request: web.Request) -> object:
        given = await _body(request, region=str, bound=bool)
        if given.keys() != {"region", "bound"}:
            raise ControlError("region and bound are needed")
        bucket = Bucket(request.match_info["bucket"], given["region"])
        self._backend.queues.bind(bucket, bound=given["bound"])
        return {"bucket": bucket.name, **given}

    async def upload(self, request: web.Request) -> object:
        """Store an object without a signature, so that curl can upload a document."""
        host = read_host(request.match_info["host"])
        if (
            host is None
            or host.bucket is None
            or host.service is not Service.COS
            or not is_bucket_name(host.bucket.name)
        ):
            raise ControlError(f"{BUCKET_AND_REGION}; the host is then {_EXAMPLE_HOST}")
        try:
            check_key(request.match_info["key"])
        except CloudError as error:
            raise ControlError(error.message) from None
        self._backend.queues.ensure(host.bucket)
        upload = self._backend.objects.begin()
        try:
            async for chunk in request.content.iter_chunked(_CHUNK):
                upload.write(chunk)
            stored = self._backend.objects.finish(upload, host.bucket, request.match_info["key"], Properties())
        except BaseException:
            upload.discard()
            raise
        return {"key": stored.key, "size": stored.size, "etag": stored.etag}


async def _body(request: web.Request, **accepted: type | tuple[type, ...]) -> Mapping[str, Any]:
    """The request's JSON object; with `accepted`, its keys and their types are checked.

    Raises:
        ControlError: it is not one that is accepted; the message says what is.
    """
    try:
        given = json.loads(await request.read(), parse_constant=_number, parse_int=_number, parse_float=_number)
        json.dumps(given, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        raise ControlError("the body is not JSON") from None
    if not isinstance(given, dict):
        raise ControlError("the body is not a JSON object")
    unknown = sorted(given.keys() - accepted.keys()) if accepted else []
    if unknown:
        raise ControlError(f"unknown keys {unknown}; accepted: {', '.join(accepted)}")
    for name, value in given.items():
        if accepted and (
            not isinstance(value, accepted[name]) or (isinstance(value, bool) and accepted[name] is not bool)
        ):
            raise ControlError(f"{name} is of the wrong type")
    return given


def _number(text: str) -> int | float:
    """A number of JSON; the standard library takes NaN and Infinity too, and numbers of thousands of digits."""
    if len(text) > _LONGEST_NUMBER:
        raise ControlError(f"the body has a number of {len(text)} characters; accepted: {_LONGEST_NUMBER}")
    number = int(text) if text.removeprefix("-").isdigit() else float(text)
    if not math.isfinite(number):
        raise ControlError(f"{text} is not a number that is accepted")
    return number
