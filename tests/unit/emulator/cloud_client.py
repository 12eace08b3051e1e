"""A small client of the cloud for these tests, with a signer of its own."""

import asyncio
import hashlib
import hmac
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import aiohttp
from yarl import URL

BUCKET = "examplebucket-1250000000"
REGION = "ap-chongqing"
SECRET_ID = "example-secret-id"
SECRET_KEY = "EXAMPLEsecretKEY00000000000000000"
CI_HOST = f"{BUCKET}.ci.{REGION}.myqcloud.com"
COS_HOST = f"{BUCKET}.cos.{REGION}.myqcloud.com"
XML = "application/xml"


def pct(text: str) -> str:
    return quote(text, safe="-_.~")


def _pairs(values: Mapping[str, str]) -> tuple[str, str]:
    items = sorted((pct(k).lower(), pct(v)) for k, v in values.items())
    return "&".join(f"{k}={v}" for k, v in items), ";".join(k for k, _ in items)


@dataclass
class Signer:
    secret_id: str = SECRET_ID
    secret_key: str = SECRET_KEY
    ahead: int = 0
    window: int = 600

    def sign(self, method: str, path: str, params: Mapping[str, str], headers: Mapping[str, str]) -> dict[str, str]:
        start = int(time.time()) - 60 + self.ahead  # noqa: TID251 - a client has the machine's clock
        period = f"{start};{start + self.window}"
        sign_key = hmac.new(self.secret_key.encode(), period.encode(), "sha1").hexdigest()
        (param_text, param_list), (header_text, header_list) = _pairs(params), _pairs(headers)
        http = f"{method.lower()}\n{path}\n{param_text}\n{header_text}\n"
        text = f"sha1\n{period}\n{hashlib.sha1(http.encode(errors='surrogateescape')).hexdigest()}\n"  # noqa: S324 - the vendor's algorithm
        return {
            "q-sign-algorithm": "sha1",
            "q-ak": self.secret_id,
            "q-sign-time": period,
            "q-key-time": period,
            "q-header-list": header_list,
            "q-url-param-list": param_list,
            "q-signature": hmac.new(sign_key.encode(), text.encode(), "sha1").hexdigest(),
        }


@dataclass
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def xml(self) -> ET.Element:
        return ET.fromstring(self.body)  # noqa: S314 - the emulator's own output

    def text(self, path: str) -> str:
        return self.xml.findtext(path) or ""

    def texts(self, path: str) -> list[str]:
        return [found.text or "" for found in self.xml.findall(path)]


@dataclass
class Cloud:
    """Speaks to the emulator at `url` as to the cloud."""

    url: str
    signer: Signer = field(default_factory=Signer)

    async def __aenter__(self) -> Self:
        self.session = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    async def send(
        self,
        method: str,
        path: str,
        *,
        host: str = CI_HOST,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Reply:
        sent = {"host": host, **(headers or {})}
        signed = self.signer.sign(method, path, params or {}, sent)
        sent["Authorization"] = "&".join(f"{name}={value}" for name, value in signed.items())
        return await self.raw(method, path, params=params, headers=sent, body=body)

    async def raw(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Reply:
        query = f"?{urlencode(params, quote_via=quote)}" if params else ""
        target = URL(self.url + quote(path) + query, encoded=True)
        async with self.session.request(
            method, target, headers=headers, data=None if body is None else io.BytesIO(body)
        ) as response:
            return Reply(response.status, response.headers, await response.read())

    async def put(self, key: str, data: bytes, *, host: str = COS_HOST) -> Reply:
        return await self.send("PUT", f"/{key}", host=host, body=data)

    async def fetch(self, key: str) -> Reply:
        return await self.send("GET", f"/{key}", host=COS_HOST)

    async def create(self, key: str, template: str = "out/${Number}", **options: Any) -> Reply:
        """Options are children of DocProcess, and `QueueId`, `UserData`, `Tag`, `CallBack` where they belong.

        `raw` is markup.
        """
        body = create_body(key, template, **options)
        return await self.send("POST", "/doc_jobs", headers={"content-type": XML}, body=body)

    async def job_id(self, key: str, template: str = "out/${Number}", **options: Any) -> str:
        reply = await self.create(key, template, **options)
        assert reply.status == 200, reply.body
        return reply.text("JobsDetail/JobId")

    async def get(self, job_id: str) -> Reply:
        return await self.send("GET", f"/doc_jobs/{job_id}")

    async def ended(self, job_id: str) -> Reply:
        """Poll an emulator in another process, as its clients do."""
        reply = await self.get(job_id)
        while reply.text("JobsDetail/State") in {"Submitted", "Running"}:
            await asyncio.sleep(0.05)
            reply = await self.get(job_id)
        return reply

    async def list(self, **params: str) -> Reply:
        return await self.send("GET", "/doc_jobs", params={"tag": "DocProcess", **params})


def create_body(key: str, template: str = "out/${Number}", **options: Any) -> bytes:
    outside = {
        name: options.pop(name)
        for name in ("QueueId", "UserData", "Tag", "CallBack", "CallBackFormat")
        if name in options
    }
    raw = options.pop("raw", "")
    process = raw + "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in options.items())
    output = f"<Region>{REGION}</Region><Bucket>{BUCKET}</Bucket><Object>{template}</Object>"
    user_data = f"<UserData>{escape(outside['UserData'])}</UserData>" if "UserData" in outside else ""
    last = "".join(f"<{n}>{outside[n]}</{n}>" for n in ("QueueId", "CallBack", "CallBackFormat") if n in outside)
    text = (
        f"<Request><Tag>{outside.get('Tag', 'DocProcess')}</Tag><Input><Object>{escape(key)}</Object></Input>"
        f"<Operation><Output>{output}</Output><DocProcess>{process}</DocProcess>{user_data}</Operation>{last}</Request>"
    )
    return text.encode()
