"""The document-preview routes of `<bucket>.ci.<region>.*` and `ci.<region>.*`."""

import json
from base64 import b64encode
from dataclasses import replace
from hashlib import md5
from typing import TYPE_CHECKING

from aiohttp import web

from docpreview_emulator.backend import Backend
from docpreview_emulator.documents import (
    Listing,
    bucket_response,
    buckets_response,
    job_response,
    list_response,
    missing_job_response,
    queue_response,
    queues_response,
)
from docpreview_emulator.errors import CloudError
from docpreview_emulator.exchange import Answer, Exchange
from docpreview_emulator.faults import Operation
from docpreview_emulator.model import Bucket, Job, Queue
from docpreview_emulator.queues import default_queue_id
from docpreview_emulator.requests import read_create, read_list, read_number, read_queue

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BODY = 1024 * 1024
_JOB_PREFIX = "/doc_jobs/"
_QUEUE_PREFIX = "/docqueue/"
_ROUTES = {
    ("POST", "/doc_jobs"): Operation.CREATE,
    ("GET", "/doc_jobs"): Operation.LIST,
    ("GET", "/docqueue"): Operation.QUEUES,
    ("GET", "/docbucket"): Operation.BUCKETS,
    ("POST", "/docbucket"): Operation.BUCKETS,
}


def operation_of(exchange: Exchange) -> Operation:
    """The operation that a request to a CI host asks for."""
    if exchange.method == "GET" and exchange.path.startswith(_JOB_PREFIX):
        return Operation.GET
    if exchange.method == "PUT" and exchange.path.startswith(_QUEUE_PREFIX):
        return Operation.UPDATE_QUEUE
    return _ROUTES.get((exchange.method, exchange.path), Operation.OTHER)


class JobRoutes:
    """Answers requests whose signature is good."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._handlers: dict[Operation, Callable[[Exchange, Bucket, bytes], Answer]] = {
            Operation.CREATE: self._create,
            Operation.GET: self._get,
            Operation.LIST: self._list,
            Operation.QUEUES: self._list_queues,
            Operation.UPDATE_QUEUE: self._update_queue,
            Operation.OTHER: self._other,
        }

    def answer(self, exchange: Exchange, body: bytes) -> Answer:
        """The answer.

        Raises:
            CloudError: it is a refusal.
            StorageError: the disk or the database is unusable.
        """
        operation = operation_of(exchange)
        if operation is Operation.BUCKETS:
            return self._buckets(exchange)
        if exchange.cloud.bucket is None:
            raise CloudError(400, "InvalidHost", "This call needs the host of a bucket.")
        bucket = exchange.cloud.bucket
        self._backend.queues.check(bucket)
        self._backend.queues.ensure(bucket)
        if operation is not Operation.OTHER and not self._backend.queues.is_bound(bucket):
            raise CloudError(400, "DocBucketUnBinded", "doc bucket unbinded")
        return self._handlers[operation](exchange, bucket, body)

    def _create(self, exchange: Exchange, bucket: Bucket, body: bytes) -> Answer:
        check_body(exchange, body)
        spec = read_create(body)
        self._backend.queues.check(Bucket(spec.output.bucket, spec.output.region))
        queue_id = spec.queue_id or default_queue_id(bucket)
        queue = self._queue(bucket, queue_id)
        if self._backend.objects.find(bucket, spec.input_object.removeprefix("/")) is None:
            raise CloudError(400, "ResourceNotFound", f"The object {spec.input_object} does not exist.")
        job = self._backend.jobs.add(bucket, queue_id, spec, paused=not queue.active)
        self._backend.scheduler.submit(job)
        return Answer(body=job_response(self._shown(job)), job_id=job.job_id)

    def _get(self, exchange: Exchange, bucket: Bucket, _body: bytes) -> Answer:
        job_id = exchange.path.removeprefix(_JOB_PREFIX)
        job = self._backend.jobs.find(bucket, job_id)
        return Answer(body=job_response(self._shown(job)) if job else missing_job_response(job_id), job_id=job_id)

    def _list(self, exchange: Exchange, bucket: Bucket, _body: bytes) -> Answer:
        query, token = read_list(dict(exchange.params)), exchange.param("nextToken") or ""
        # A token with one more zero before it is another text of the same position.
        if len(token) - len(token.lstrip("0")) < self._backend.settings.empty_pages:
            return Answer(body=list_response((), f"0{token}"))
        jobs, token = self._backend.jobs.page(bucket, query)
        return Answer(body=list_response(map(self._shown, jobs), token))

    def _shown(self, job: Job) -> Job:
        """The job as answers show it."""
        echo = self._backend.settings.echo_user_data
        return job if echo else replace(job, spec=replace(job.spec, user_data=None))

    def _list_queues(self, exchange: Exchange, bucket: Bucket, _body: bytes) -> Answer:
        wanted = _names(exchange.param("queueIds"))
        queues = self._backend.queues.of_bucket(bucket)
        missing = [queue_id for queue_id in wanted if queue_id not in {queue.queue_id for queue in queues}]
        state = exchange.param("state") or "All"
        chosen = [queue for queue in queues if _matches(queue, wanted, state)]
        page = Listing.cut(chosen, *_paging(exchange))
        max_concurrent = self._backend.settings.max_concurrent
        return Answer(body=queues_response(exchange.request_id, page, missing, max_concurrent))

    def _update_queue(self, exchange: Exchange, bucket: Bucket, body: bytes) -> Answer:
        check_body(exchange, body, default_type="application/xml")
        queue = self._queue(bucket, exchange.path.removeprefix(_QUEUE_PREFIX))
        update = read_queue(body, queue.queue_id)
        self._backend.queues.update(queue.queue_id, update.name, update.notify)
        if update.active != queue.active:
            self._backend.set_queue_active(queue.queue_id, active=update.active)
            self._backend.scheduler.start_waiting(queue.queue_id)
        changed = self._backend.queues.get(queue.queue_id)
        return Answer(body=queue_response(exchange.request_id, changed, self._backend.settings.max_concurrent))

    def _queue(self, bucket: Bucket, queue_id: str) -> Queue:
        queue = next((q for q in self._backend.queues.of_bucket(bucket) if q.queue_id == queue_id), None)
        if queue is None:
            raise CloudError(400, "QueueNotFound", f"The queue {queue_id} does not exist.")
        return queue

    def _buckets(self, exchange: Exchange) -> Answer:
        if exchange.method == "POST":
            if exchange.cloud.bucket is None:
                raise CloudError(400, "InvalidHost", "This call needs the host of a bucket.")
            self._backend.queues.check(exchange.cloud.bucket)
            created = self._backend.queues.bind(exchange.cloud.bucket, bound=True)
            return Answer(body=bucket_response(exchange.request_id, exchange.cloud.bucket, created))
        regions = _names(exchange.param("regions")) or [exchange.cloud.region]
        names = _names(exchange.param("bucketNames"))
        prefix = exchange.param("bucketName") or ""
        found = [
            (bucket, created)
            for bucket, created in self._backend.queues.buckets(() if "All" in regions else regions)
            if (not names or bucket.name in names) and bucket.name.startswith(prefix)
        ]
        return Answer(body=buckets_response(exchange.request_id, Listing.cut(found, *_paging(exchange))))

    def _other(self, exchange: Exchange, bucket: Bucket, _body: bytes) -> Answer:
        if (exchange.method, exchange.path) == ("GET", "/"):
            status = "on" if self._backend.queues.is_bound(bucket) else "off"
            return Answer(body=json.dumps({"CIStatus": status}).encode(), content_type="application/json")
        if exchange.path in {path for _, path in _ROUTES} or exchange.path.startswith((_JOB_PREFIX, _QUEUE_PREFIX)):
            raise CloudError(405, "MethodNotAllowed", f"{exchange.method} is not allowed here.")
        raise CloudError(400, "InvalidUrl", "The emulator knows no such interface.")


async def read_body(request: web.Request) -> bytes:
    """The body of a request to a CI host.

    Raises:
        CloudError: 400 EntityTooLarge: more than 1 MiB.
    """
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise CloudError(400, "EntityTooLarge", f"The body has more than {MAX_BODY} bytes.") from None


def check_body(exchange: Exchange, body: bytes, *, default_type: str = "") -> None:
    """The headers of a request must describe its body. The vendor's SDK for Python updates queues without a type.

    Raises:
        CloudError: 400 InvalidContentType or InvalidContent, 411 MissingContentLength.
    """
    if exchange.header("content-length") is None:
        raise CloudError(411, "MissingContentLength", "Content-Length is missing.")
    kind = exchange.header("content-type") or default_type
    if kind.partition(";")[0].strip().lower() not in {"application/xml", "text/xml"}:
        raise CloudError(400, "InvalidContentType", "Content-Type must be application/xml.")
    digest = exchange.header("content-md5")
    if digest is not None and digest != b64encode(md5(body, usedforsecurity=False).digest()).decode():
        raise CloudError(400, "InvalidContent", "Content-MD5 does not match the body.")


def _names(text: str | None) -> list[str]:
    return [name for name in (text or "").split(",") if name]


def _matches(queue: Queue, wanted: list[str], state: str) -> bool:
    return (not wanted or queue.queue_id in wanted) and state in {"All", "Active" if queue.active else "Paused"}


def _paging(exchange: Exchange) -> tuple[int, int]:
    params = dict(exchange.params)
    return max(read_number(params, "pageNumber", 1, 10**6), 1), max(read_number(params, "pageSize", 10, 1000), 1)
