"""Names of the cloud: the service, bucket and region of a `Host` header, and which names buckets and objects may have.

The suffix after the region is left open (`myqcloud.com`, `tencentcos.cn`, `localhost`): the emulator answers for any.
"""

import re
from dataclasses import dataclass
from enum import Enum

from docpreview_emulator.errors import CloudError, ControlError
from docpreview_emulator.model import Bucket

_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_BUCKET = re.compile(r"(?!.{61})[a-z0-9](?:[a-z0-9-]*[a-z0-9])?-[0-9]+")
_HOST = re.compile(rf"(?:(?P<bucket>[^./]+)\.)?(?P<service>ci|cos)\.(?P<region>{_LABEL})\.[a-z0-9.-]+")
MAX_KEY_BYTES = 850
BUCKET_AND_REGION = "bucket and region must look like examplebucket-1250000000 and ap-chongqing"
_ALL_BUCKETS = re.compile(r"service\.cos\.[a-z0-9.-]+")


class Service(Enum):
    """The cloud's two services that the emulator stands in for."""

    CI = "ci"
    COS = "cos"


@dataclass(frozen=True, slots=True)
class CloudHost:
    """A host of the cloud; `bucket` is None for calls about a whole region (`ci.<region>.<suffix>`).

    `region` is empty for calls about all of them (`service.cos.<suffix>`).
    """

    service: Service
    region: str
    bucket: Bucket | None


def read_host(host: str) -> CloudHost | None:
    """The cloud's meaning of a `Host` header (a port is ignored), or None when it is not a host of the cloud."""
    name = without_port(host).lower()
    if _ALL_BUCKETS.fullmatch(name):
        return CloudHost(Service.COS, "", None)
    match = _HOST.fullmatch(name)
    if match is None:
        return None
    region, name = match["region"], match["bucket"]
    return CloudHost(Service(match["service"]), region, Bucket(name, region) if name else None)


def is_bucket_name(text: str) -> bool:
    """Whether this is `<name>-<appid>`, with at most 60 characters as the cloud has it."""
    return _BUCKET.fullmatch(text) is not None


def is_region(text: str) -> bool:
    """Whether hosts may have this as their region, such as `ap-chongqing`."""
    return re.fullmatch(_LABEL, text) is not None


def check_bucket(bucket: Bucket) -> None:
    """Check that there may be a bucket of this name and region.

    Raises:
        ControlError: there may not; the message shows what they look like.
    """
    if not (is_bucket_name(bucket.name) and is_region(bucket.region)):
        raise ControlError(BUCKET_AND_REGION)


def check_key(key: str) -> None:
    """Check that an object may have this key.

    Raises:
        CloudError: 400 InvalidURI or KeyTooLong.
    """
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise CloudError(400, "InvalidURI", "The key is not UTF-8.") from None
    if size > MAX_KEY_BYTES:
        raise CloudError(400, "KeyTooLong", f"A key may have {MAX_KEY_BYTES} bytes.")


def without_port(host: str) -> str:
    """`host:port` without its port. Addresses in brackets stay whole; no host of the cloud looks like that."""
    name, separator, port = host.rpartition(":")
    return name if separator and port.isdigit() else host
