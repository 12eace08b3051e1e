"""Sources of copies: the object that `x-cos-copy-source` names, as a copy of an object and of a part want it."""

from urllib.parse import unquote

from docpreview_emulator.backend import Backend
from docpreview_emulator.conditions import failed_precondition, is_unmodified
from docpreview_emulator.errors import CloudError, invalid_argument
from docpreview_emulator.exchange import Exchange
from docpreview_emulator.hosts import Service, read_host
from docpreview_emulator.model import Bucket, StoredObject

COPY_SOURCE = "x-cos-copy-source"


def find_source(exchange: Exchange, backend: Backend) -> StoredObject:
    """The object to copy.

    Raises:
        CloudError: 400 InvalidArgument, 404 NoSuchBucket or NoSuchKey, 412 PreconditionFailed, 501 NotImplemented.
    """
    bucket, key = _place(exchange.header(COPY_SOURCE) or "")
    backend.queues.check(bucket)
    stored = backend.objects.find(bucket, key)
    if stored is None:
        raise CloudError(404, "NoSuchKey", "The source of the copy does not exist.")
    if is_unmodified(stored, exchange.header, f"{COPY_SOURCE}-"):
        raise failed_precondition()
    return stored


def _place(text: str) -> tuple[Bucket, str]:
    address, _, query = text.partition("?")
    host, _, key = address.removeprefix("/").partition("/")
    cloud = read_host(host)
    if cloud is None or cloud.service is not Service.COS or cloud.bucket is None or not key:
        raise invalid_argument(f"{COPY_SOURCE} must be <bucket>.cos.<region>.<suffix>/<key>, with the key URL-encoded.")
    if query not in {"", "versionId="}:
        raise CloudError(501, "NotImplemented", "The emulator keeps no versions of objects.")
    return cloud.bucket, unquote(key)
