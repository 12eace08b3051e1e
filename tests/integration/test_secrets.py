"""Leak test: canary secrets in every place for secrets, and a search of everything that the gateway writes."""

from __future__ import annotations

import base64
import json
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import aiohttp
import grpc
import redis.asyncio

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewOptions
from docpreview.v1.preview_job_service_pb2 import (
    BatchGetPreviewJobsRequest,
    CreatePreviewJobRequest,
    GetPreviewJobRequest,
    ListPreviewJobsRequest,
    WaitPreviewJobRequest,
    WatchPreviewJobRequest,
    WatchPreviewJobsRequest,
)
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest
from docpreview.v1.preview_queue_service_pb2_grpc import PreviewQueueServiceStub
from docpreview_emulator import Credential, Emulator
from docpreview_gateway.settings.loading import load
from tests.fakes.connect_proxy import ConnectProxy
from tests.integration.conftest import BUCKET, REGION
from tests.integration.gateway_processes import configuration, running
from tests.integration.identity import Policy, bearer, caller
from tests.integration.issuer import AUDIENCE, ISSUER, Issuer

if TYPE_CHECKING:
    from tests.redis_server import RedisServer

DOCUMENT = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"
FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "error", "status": 403, "code": "SignatureDoesNotMatch"},
    {"kind": "error", "status": 403, "code": "AccessDenied"},
    {"kind": "error", "status": 500},
    {"kind": "throttle"},
    {"kind": "truncate"},
    {"kind": "garbage"},
    {"kind": "drop_after"},
)


def forms(secret: str) -> set[bytes]:
    """A text and its encodings: base64 at each offset, hex, percent-encoding."""
    raw = secret.encode()
    found = {raw, raw.hex().encode(), raw.hex().upper().encode(), quote(secret, safe="").encode(), raw[::-1]}
    for shift in range(3):
        for alphabet in (None, b"-_"):
            encoded = base64.b64encode(b"x" * shift + raw, alphabet)
            # The part that does not depend on adjacent bytes.
            found.add(encoded[4 if shift else 0 : len(encoded) // 4 * 4 - 4])
    return found


class Secrets:
    """Random canary secrets; every occurrence is a leak of this run."""

    def __init__(self, folder: Path) -> None:
        self.issuer = Issuer()
        self.policy = Policy(folder / "policy.yaml")
        self.password = f"pass/word+{secrets.token_hex(12)}"
        self.secret_key = secrets.token_hex(16)
        self.session = f"session-{secrets.token_hex(16)}"
        self.proxy_password = f"proxy/pass+{secrets.token_hex(12)}"
        self.proxy_login = base64.b64encode(f"gateway:{self.proxy_password}".encode()).decode()
        self.token = self.policy.add("one")
        self.wrong = f"dpt_{'a' * 16}_{secrets.token_urlsafe(32)[:43]}"
        self.policy.callers["jwt"] = caller([{"jwt": {"issuer": ISSUER, "value": "svc-one"}}])
        self.policy.write()
        self.jwt = self.issuer.token()
        self.expired = self.issuer.token(exp=1_700_000_000)
        (folder / "jwks.json").write_text(self.issuer.jwks())

    def all(self) -> dict[str, str]:
        static = self.token.split("_", 2)[2]
        return {
            "password": self.password,
            "secret key": self.secret_key,
            "session token": self.session,
            "proxy password": self.proxy_password,
            "proxy login": self.proxy_login,
            "static token": static,
            "wrong token": self.wrong.split("_", 2)[2],
            "JWT": self.jwt.split(".")[2],
            "expired JWT": self.expired.split(".")[2],
            "signature": "q-signature=",
            "authorization": "Bearer ey",
        }


async def every_call(channel: grpc.aio.Channel, metadata: Any, password: str) -> list[str]:
    """Call each RPC; its replies and errors as text."""
    jobs: Any = PreviewJobServiceStub(channel)
    queues: Any = PreviewQueueServiceStub(channel)
    create = CreatePreviewJobRequest(
        bucket=BUCKET,
        input_object="a.pdf",
        output=ObjectLocation(object="previews/${Number}.jpg"),
        options=PreviewOptions(password=password),
        request_id="7d3f9b7e-6d0c-4a51-9f0e-2f4c8f6f2a10",
    )
    invalid = CreatePreviewJobRequest(bucket=BUCKET, options=PreviewOptions(password=password * 20))
    answers = []

    async def record(call: Any) -> Any:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            answers.append(repr((error, error.details(), error.trailing_metadata(), error.debug_error_string())))
            return None

    async def stream(call: Any) -> None:
        answers.extend([repr(event) async for event in call])

    made = await record(jobs.CreatePreviewJob(create, metadata=metadata, timeout=10))
    if made is not None:
        # A password is write-only: no reply contains it.
        answers.append(repr(made))
    job_id = made.job_id if made is not None else "d1"
    create.request_id = ""
    batch = BatchGetPreviewJobsRequest(bucket=BUCKET, job_ids=[job_id])
    for call in (
        jobs.CreatePreviewJob(create, metadata=metadata, timeout=5),
        jobs.CreatePreviewJob(invalid, metadata=metadata, timeout=5),
        jobs.GetPreviewJob(GetPreviewJobRequest(bucket=BUCKET, job_id=job_id), metadata=metadata, timeout=5),
        jobs.BatchGetPreviewJobs(batch, metadata=metadata, timeout=5),
        jobs.ListPreviewJobs(ListPreviewJobsRequest(bucket=BUCKET), metadata=metadata, timeout=5),
        jobs.WaitPreviewJob(WaitPreviewJobRequest(bucket=BUCKET, job_id=job_id), metadata=metadata, timeout=5),
        queues.ListPreviewQueues(ListPreviewQueuesRequest(bucket=BUCKET), metadata=metadata, timeout=5),
        stream(
            jobs.WatchPreviewJob(WatchPreviewJobRequest(bucket=BUCKET, job_id=job_id), metadata=metadata, timeout=5)
        ),
        stream(
            jobs.WatchPreviewJobs(
                WatchPreviewJobsRequest(bucket=BUCKET, job_ids=[job_id, "d1"]), metadata=metadata, timeout=5
            )
        ),
    ):
        reply = await record(call)
        answers.append(repr(reply))
    return answers


async def pages_with_addresses(channel: grpc.aio.Channel, metadata: Any) -> None:
    """Read a job with page URLs, whose signatures only the caller may get."""
    jobs: Any = PreviewJobServiceStub(channel)
    listed = await jobs.ListPreviewJobs(ListPreviewJobsRequest(bucket=BUCKET), metadata=metadata, timeout=5)
    request = WaitPreviewJobRequest(bucket=BUCKET, job_id=listed.jobs[0].job_id)
    request.page_url_ttl.seconds = 60
    job = await jobs.WaitPreviewJob(request, metadata=metadata, timeout=30)
    assert "q-signature=" in job.result.pages[0].url


async def in_redis(server: RedisServer) -> bytes:
    """Every key of the server with its value, of any type."""
    found = []
    async with redis.asyncio.from_url(server.url) as client:
        async for key in client.scan_iter():
            found.append(key)
            for read in (client.get, client.hgetall, client.smembers):
                with suppress(redis.exceptions.RedisError, TypeError):
                    found.append(repr(await read(key)).encode("latin-1", "backslashreplace"))
            found.append(await client.dump(key) or b"")
    return b"\n".join(found)


def files(folder: Path, pattern: str) -> bytes:
    return b"".join(found.read_bytes() for found in folder.glob(pattern))


async def traces_of(
    emulator: Emulator, known: Secrets, folder: Path, *, refusing: ConnectProxy | None = None, **changes: object
) -> dict[str, bytes]:
    """Everything that a gateway wrote while it served every RPC, every kind of caller and every fault.

    The last fault is that of a proxy: `refusing` takes another password than it took before.
    """
    credentials = {"main": {"secret_id": "canary-id", "secret_key": known.secret_key, "token": known.session}}
    jwks = str(known.policy.path.with_name("jwks.json"))
    path = configuration(
        emulator,
        folder,
        logging={"format": "json", "level": "DEBUG"},
        credentials=credentials,
        policy={"file": str(known.policy.path)},
        auth={"jwt": [{"issuer": ISSUER, "audience": AUDIENCE, "jwks_file": jwks}]},
        **changes,
    )
    answers = []
    async with running(path) as gateway, grpc.aio.insecure_channel(gateway.address) as channel:
        for metadata in (bearer(known.token), bearer(known.jwt), bearer(known.wrong), bearer(known.expired)):
            answers += await every_call(channel, metadata, known.password)
        for fault in FAULTS:
            emulator.add_fault(**fault, times=4)
            answers += await every_call(channel, bearer(known.token), known.password)
            emulator.clear_faults()
        await pages_with_addresses(channel, bearer(known.token))
        if refusing is not None:
            refusing.authorization = "Basic another"
            refusing.cut()
            answers += await every_call(channel, bearer(known.token), known.password)
        async with aiohttp.ClientSession() as session:
            metrics = await (await session.get(f"http://127.0.0.1:{gateway.admin_port}/metrics")).read()
        command_line = files(Path("/proc"), f"{gateway.process.pid}/cmdline")
    settings = load(path)
    dumps = (repr(settings), str(settings), settings.model_dump_json(), repr(settings.model_dump()))
    return {
        "log": files(folder, "*.log"),
        "answers to callers": "\n".join(answers).encode(),
        "metrics": metrics,
        "command line": command_line,
        "settings": "\n".join(dumps).encode(),
        "ledger": files(folder, "creates.db*"),
    }


async def traces_by_a_proxy(emulator: Emulator, known: Secrets, folder: Path) -> dict[str, bytes]:
    """The same through a proxy that wants a password, and another one in the end."""
    cloud = urlsplit(emulator.url).netloc
    async with ConnectProxy({cloud: int(cloud.rpartition(":")[2])}, f"Basic {known.proxy_login}") as proxy:
        address = f"http://gateway:{quote(known.proxy_password, safe='')}@{proxy.place}"
        way = {"endpoint": emulator.url, "proxy": address}
        found = await traces_of(emulator, known, folder, refusing=proxy, upstream=way)
    assert b"refuses its user or password (HTTP 407)" in found["answers to callers"]
    return found


async def test_no_canary_secret_leaks_into_logs_metrics_state_or_answers(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    """Every RPC, fault and log level; with and without shared state."""
    known = Secrets(tmp_path)
    (tmp_path / "sqlite").mkdir()
    (tmp_path / "redis").mkdir()
    async with Emulator(credentials=[Credential("canary-id", known.secret_key, known.session)]) as emulator:
        emulator.put_object(BUCKET, REGION, "a.pdf", DOCUMENT.read_bytes())
        alone = await traces_by_a_proxy(emulator, known, tmp_path / "sqlite")
        state = {"url": redis_server.url}
        shared = await traces_of(emulator, known, tmp_path / "redis", shared_state=state)
        shared["redis"] = await in_redis(redis_server)
    assert b"unauthenticated" in alone["log"]
    assert b"CREATE_OUTCOME_UNKNOWN" in alone["answers to callers"]
    assert alone["ledger"]
    assert shared["redis"]
    leaks = [
        f"{name} in {place}"
        for name, secret in known.all().items()
        for traces in (alone, shared)
        for place, text in traces.items()
        if any(form in text for form in forms(secret))
    ]
    assert leaks == []


def test_the_search_finds_a_secret_in_every_encoding() -> None:
    """Self-test of the search."""
    for place in (0, 1, 2, 3):
        hidden = base64.b64encode(b"y" * place + b"a-secret-of-mine" + b"zz")
        assert any(form in hidden for form in forms("a-secret-of-mine"))
    assert any(form in json.dumps("a-secret-of-mine").encode() for form in forms("a-secret-of-mine"))
