"""Creates without a signature, for the page and for people with curl."""

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

from docpreview_emulator.backend import Backend
from docpreview_emulator.errors import CloudError, ControlError
from docpreview_emulator.formats import Family, family_of, suffix_of
from docpreview_emulator.hosts import BUCKET_AND_REGION, Service, is_bucket_name, read_host
from docpreview_emulator.model import Bucket, Job
from docpreview_emulator.queues import default_queue_id
from docpreview_emulator.requests import DEFAULTS, TARGETS, read_create

FIELDS: dict[str, type | tuple[type, ...]] = {"bucket": str, "region": str, "key": str, "process": dict}
"""Fields of a create; `process` has values of `DocProcess` by name and may be left out."""


def create(backend: Backend, given: Mapping[str, Any]) -> Job:
    """A job in the bucket's own queue, for an object that is there. Its pages go below `previews/<key>/`.

    Raises:
        ControlError: something is missing, or the cloud would refuse it.
    """
    missing = [name for name in ("bucket", "region", "key") if not given.get(name)]
    if missing:
        raise ControlError(f"{' and '.join(missing)} must be given; accepted: {', '.join(FIELDS)}")
    host = read_host(f"{given['bucket']}.ci.{given['region']}.myqcloud.com")
    if host is None or host.bucket is None or host.service is not Service.CI or not is_bucket_name(host.bucket.name):
        raise ControlError(BUCKET_AND_REGION)
    bucket, key = host.bucket, given["key"]
    backend.queues.ensure(bucket)
    if not backend.queues.is_bound(bucket):
        raise ControlError(f"the document service of {bucket.name} is off: bind the bucket first")
    if backend.objects.find(bucket, key.removeprefix("/")) is None:
        raise ControlError(f"there is no object {key} in {bucket.name}: upload it first")
    try:
        spec = read_create(_body(bucket, key, given.get("process", {})))
    except CloudError as error:
        raise ControlError(error.message) from None
    queue = backend.queues.get(default_queue_id(bucket))
    job = backend.jobs.add(bucket, queue.queue_id, spec, paused=not queue.active)
    backend.scheduler.submit(job)
    return job


def _body(bucket: Bucket, key: str, process: Mapping[str, object]) -> bytes:
    """The create as it would come over the wire, so that all rules of the cloud hold."""
    unknown = sorted(process.keys() - DEFAULTS.keys())
    if unknown or not all(isinstance(value, str) for value in process.values()):
        raise ControlError(f"process must have texts by the names: {', '.join(DEFAULTS)}")
    suffix = str(process.get("TgtType", "")).lower()
    suffix = suffix if suffix in TARGETS else "jpg"
    is_sheets = family_of(suffix_of(key, str(process.get("SrcType", "")))) is Family.SHEETS
    name = "${SheetID}/${Number}" if is_sheets else "${Number}"
    template = f"previews/{key.removeprefix('/')}/{name}.{suffix}"
    output = "".join(
        f"<{tag}>{escape(value)}</{tag}>"
        for tag, value in (("Region", bucket.region), ("Bucket", bucket.name), ("Object", template))
    )
    options = "".join(f"<{tag}>{escape(str(value))}</{tag}>" for tag, value in process.items())
    return (
        f"<Request><Tag>DocProcess</Tag><Input><Object>{escape(key)}</Object></Input><Operation>"
        f"<Output>{output}</Output><DocProcess>{options}</DocProcess></Operation></Request>"
    ).encode()
