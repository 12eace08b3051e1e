"""The vendor's SDK (PyPI cos-python-sdk-v5), driven without a network: the oracle for signatures and requests."""

import inspect
import warnings
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import requests

from docpreview_gateway.upstream.wire.signing import Credentials

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the SDK's own sources, when they are compiled on the first import
    from qcloud_cos import CosConfig, CosS3Client
    from qcloud_cos.cos_auth import CosS3Auth

SECRET_ID = "example-secret-id"
SECRET_KEY = "EXAMPLEsecretKEY00000000000000000"
REGION = "ap-chongqing"
CREDENTIALS = Credentials(SECRET_ID, SECRET_KEY)


@dataclass(frozen=True)
class Sent:
    """A request that the SDK sent; path and query decoded."""

    method: str
    host: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Recorder(requests.adapters.BaseAdapter):
    """An HTTP session that stores requests and answers with empty replies."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Sent] = []

    def send(self, request: requests.PreparedRequest, *_args: Any, **_options: Any) -> requests.Response:
        url = urlsplit(str(request.url))
        headers = {name.lower(): _text(value) for name, value in request.headers.items()}
        query = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query)))
        body = request.body if isinstance(request.body, bytes) else b""
        self.sent.append(Sent(str(request.method), url.netloc, unquote(url.path), query, headers, body))
        reply = requests.Response()
        reply.status_code, reply.request, reply.url = 200, request, str(request.url)
        reply._content = b"<Response/>"
        return reply

    def close(self) -> None:
        pass


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _config(token: str | None = None) -> Any:
    return CosConfig(Region=REGION, SecretId=SECRET_ID, SecretKey=SECRET_KEY, Token=token, Scheme="https")


def send(operation: str, /, **parameters: Any) -> Sent:
    """The request that the SDK sends for an operation such as `ci_get_doc_job`."""
    recorder = Recorder()
    with requests.Session() as session:
        session.trust_env = False
        session.mount("https://", recorder)
        getattr(CosS3Client(_config(), retry=0, session=session), operation)(**parameters)
    [sent] = recorder.sent
    return sent


def parameters(operation: str) -> list[str]:
    """The named parameters of an operation of the SDK."""
    signature = inspect.signature(getattr(CosS3Client, operation))
    return [name for name, found in signature.parameters.items() if name != "self" and found.kind != found.VAR_KEYWORD]


def authorization(method: str, path: str, query: dict[str, str], headers: dict[str, str]) -> str:
    """The SDK's signature over exactly these query parameters and headers, valid from a minute ago."""
    request = requests.Request(method, "https://unused.invalid/", headers=dict(headers))
    sign = CosS3Auth(_config(), path, params=query, expire=10_000, sign_host=False)
    return str(sign(request).headers["Authorization"])


def presigned(method: str, bucket: str, key: str, *, headers: dict[str, str], params: dict[str, str]) -> Sent:
    """The request of an address that the SDK presigns; path and query decoded."""
    client = CosS3Client(_config(), retry=0)
    address = client.get_presigned_url(Bucket=bucket, Key=key, Method=method, Headers=dict(headers), Params=params)
    url = urlsplit(address)
    query = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=True))
    return Sent(method, url.netloc, unquote(url.path), query, headers, b"")
