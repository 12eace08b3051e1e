"""What requests that bring an object, or a part of one, have in common: their bodies, and the headers of the object."""

from base64 import b64encode

from docpreview_emulator.errors import CloudError
from docpreview_emulator.exchange import Exchange
from docpreview_emulator.objects import ANY_TYPE, Properties, Upload
from docpreview_emulator.routes_jobs import read_body
from docpreview_emulator.xmltree import Element, read_xml

_CHUNK = 1024 * 1024
_METADATA = "x-cos-meta-"
_KEPT = {"cache-control", "content-disposition", "content-encoding", "expires"}


async def receive(exchange: Exchange, upload: Upload) -> None:
    """Write the body of a request to an upload.

    Raises:
        CloudError: 400 BadDigest: it is not what Content-MD5 says.
    """
    async for chunk in exchange.source.content.iter_chunked(_CHUNK):
        upload.write(chunk)
    digest = exchange.header("content-md5")
    if digest is not None and digest != b64encode(upload.digest).decode():
        raise CloudError(400, "BadDigest", "Content-MD5 does not match the body.")


async def read_document(exchange: Exchange, root_name: str) -> Element:
    """The root of the XML document that a request to an object host brings.

    Raises:
        CloudError: 400 MalformedXML, also for another root.
    """
    root = read_xml(await read_body(exchange.source))
    if root.name != root_name:
        raise CloudError(400, "MalformedXML", f"The root element is {root.name}, not {root_name}.")
    return root


def properties_of(exchange: Exchange) -> Properties:
    """The properties of an object that the headers of a request describe."""
    headers = [(name.lower(), value) for name, value in exchange.headers]
    metadata = {name: value for name, value in headers if name in _KEPT or name.startswith(_METADATA)}
    content_type = exchange.header("content-type") or ANY_TYPE
    return Properties(content_type, metadata, exchange.header("x-cos-forbid-overwrite") != "true")
