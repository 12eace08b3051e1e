"""The bucket routes of `<bucket>.cos.<region>.*`: create, head, delete, lists, and deletion of several objects."""

from collections.abc import Awaitable, Callable

from docpreview_emulator.backend import Backend
from docpreview_emulator.errors import CloudError
from docpreview_emulator.exchange import Answer, Exchange
from docpreview_emulator.listings import read_key_query
from docpreview_emulator.model import Bucket
from docpreview_emulator.object_documents import buckets_response, deleted_response, objects_response, uploads_response
from docpreview_emulator.receiving import read_document
from docpreview_emulator.xmltree import Element

MAX_DELETED = 1000
"""Most objects that one request deletes (vendor document 436/8289)."""

_OF_LISTS = frozenset({"prefix", "delimiter", "encoding-type"})
_OF_OBJECTS = _OF_LISTS | {"marker", "max-keys"}
_OF_UPLOADS = _OF_LISTS | {"key-marker", "upload-id-marker", "max-uploads"}
_OF_BUCKETS = frozenset({"region", "marker", "max-keys"})
_Route = Callable[[Exchange, Bucket], Awaitable[Answer]]


class BucketRoutes:
    """Answers requests whose signature is good."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def list_all(self, exchange: Exchange, subresource: frozenset[str]) -> Answer:
        """The answer to a request for all buckets, or those of a region; they are never more than fit into it.

        Raises:
            CloudError: it is a refusal.
        """
        if exchange.method != "GET" or exchange.path != "/" or not subresource <= _OF_BUCKETS:
            raise CloudError(501, "NotImplemented", "Without a bucket in its host the emulator has only GET /.")
        region, marker = exchange.param("region") or exchange.cloud.region, exchange.param("marker") or ""
        found = self._backend.queues.existing(region)
        return Answer(body=buckets_response(each for each in found if each[0].name > marker))

    async def answer(self, exchange: Exchange, bucket: Bucket, subresource: frozenset[str]) -> Answer:
        """The answer to a request for a bucket itself.

        Raises:
            CloudError: it is a refusal.
            StorageError: the disk or the database is unusable.
        """
        if (exchange.method, subresource) == ("PUT", frozenset()):
            self._backend.queues.create(bucket)
            return Answer()
        self._backend.queues.check(bucket)
        return await self._route(exchange.method, subresource)(exchange, bucket)

    def _route(self, method: str, subresource: frozenset[str]) -> _Route:
        plain = {"HEAD": self._head, "GET": self._list, "DELETE": self._delete}
        if method in plain and subresource <= (_OF_OBJECTS if method == "GET" else frozenset()):
            return plain[method]
        if method == "GET" and "uploads" in subresource and subresource <= _OF_UPLOADS | {"uploads"}:
            return self._list_uploads
        if (method, subresource) == ("POST", frozenset({"delete"})):
            return self._delete_objects
        if subresource:
            names = ", ".join(sorted(subresource - _OF_OBJECTS - _OF_UPLOADS))
            raise CloudError(501, "NotImplemented", f"The emulator has no such subresource of buckets: {names}.")
        raise CloudError(405, "MethodNotAllowed", f"{method} is not allowed here.")

    async def _head(self, _exchange: Exchange, bucket: Bucket) -> Answer:
        return Answer(headers={"x-cos-bucket-region": bucket.region})

    async def _list(self, exchange: Exchange, bucket: Bucket) -> Answer:
        query = read_key_query(dict(exchange.params))
        return Answer(body=objects_response(bucket, query, self._backend.objects.page(bucket, query)))

    async def _delete(self, _exchange: Exchange, bucket: Bucket) -> Answer:
        self._backend.queues.delete(bucket)
        return Answer(204)

    async def _list_uploads(self, exchange: Exchange, bucket: Bucket) -> Answer:
        query = read_key_query(dict(exchange.params), "key-marker", "max-uploads")
        after_id = exchange.param("upload-id-marker") or ""
        page = self._backend.multiparts.page(bucket, query, after_id)
        return Answer(body=uploads_response(bucket, query, after_id, page))

    async def _delete_objects(self, exchange: Exchange, bucket: Bucket) -> Answer:
        root = await read_document(exchange, "Delete")
        keys = [_key(child) for child in root.children if child.name == "Object"]
        if not 1 <= len(keys) <= MAX_DELETED:
            raise CloudError(400, "MalformedXML", f"Delete needs 1 to {MAX_DELETED} elements Object.")
        for key in keys:
            self._backend.objects.delete(bucket, key)
        return Answer(body=deleted_response(() if root.value("Quiet") == "true" else keys))


def _key(entry: Element) -> str:
    key = entry.find("Key")
    if key is None or not key.text:
        raise CloudError(400, "MalformedXML", "An Object has no Key.")
    return key.text.removeprefix("/")
