"""The connection: who may see a token, what goes with a call, how it is encrypted, where it goes."""

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from rich.console import Console

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_client import (
    ClientOptions,
    DeadlineExceeded,
    DocPreviewClient,
    NotFound,
    Tls,
    Unauthenticated,
    Unavailable,
)
from docpreview_client.channel import service_config
from docpreview_client.cli.text_progress import BarProgress

from .fake_gateway import PATIENCE, SERVICE, FakeGateway, Silence
from .samples import BUCKET, JOB_ID, failure, job, succeeded


@pytest.mark.parametrize(
    "target",
    ["localhost:1", "127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "dns:///localhost:1", "ipv4:127.0.0.1:1", "unix:/tmp/s"],
)
def test_a_token_may_go_unencrypted_to_this_machine(target: str) -> None:
    DocPreviewClient(target, token="s3cret")


@pytest.mark.parametrize(
    "target",
    [
        "gateway:50051",
        "10.0.0.1:1",
        "dns:///gateway:1",
        "dns://8.8.8.8/localhost:1",
        "ipv4:127.0.0.1:1,10.0.0.1:1",
        "[2001:db8::1]:1",
        "localhost.example:1",
        "xds:///localhost",
        "",
    ],
)
def test_a_token_goes_to_another_machine_only_with_tls(target: str) -> None:
    """The refusal does not show it."""
    with pytest.raises(ValueError, match="in the clear") as caught:
        DocPreviewClient(target, token="s3cret")
    assert "s3cret" not in str(caught.value)
    DocPreviewClient(target, token="s3cret", tls=Tls())


async def test_a_token_function_is_asked_before_every_call(gateway: FakeGateway) -> None:
    gateway.will("GetPreviewJob", job())
    tokens = iter(["one", "two"])
    async with DocPreviewClient(gateway.target, token=lambda: next(tokens)) as client:
        await client.get(BUCKET, JOB_ID)
        await client.get(BUCKET, JOB_ID)
    assert [call.metadata["authorization"] for call in gateway.calls] == ["Bearer one", "Bearer two"]


@pytest.mark.parametrize(
    ("target", "instead"),
    [
        ("http://gateway:50051", "write dns:///gateway:50051 instead."),
        ("https://user:s3cret@gateway:443/path", "write dns:///gateway:443 instead, and give tls."),
        ("HTTP://", "write dns:///host:port instead."),
    ],
)
def test_a_url_is_no_target_and_the_refusal_says_what_to_write(target: str, instead: str) -> None:
    with pytest.raises(ValueError, match="no URL") as caught:
        DocPreviewClient(target)
    assert str(caught.value).endswith(instead)
    assert "s3cret" not in str(caught.value)


async def test_a_token_source_that_is_too_slow_exceeds_the_deadline_and_nothing_counts_as_sent(
    gateway: FakeGateway,
) -> None:
    """Of a create, too: it is no unknown outcome."""
    asked = asyncio.Event()

    async def token() -> str:
        asked.set()
        await asyncio.Event().wait()
        return ""

    async def watched(client: DocPreviewClient) -> None:
        async for _ in client.watch(BUCKET, JOB_ID, timeout=0.1):
            pass

    async with DocPreviewClient(gateway.target, token=token) as client, asyncio.timeout(20):
        for call in (
            client.get(BUCKET, JOB_ID, timeout=0.1),
            client.create(BUCKET, "a", output_object="b/${Page}", timeout=0.1),
            watched(client),
        ):
            asked.clear()
            with pytest.raises(DeadlineExceeded):
                await call
            assert asked.is_set()
    assert gateway.calls == []


async def test_a_create_whose_token_came_at_the_deadline_was_not_sent(gateway: FakeGateway) -> None:
    def token() -> str:
        time.sleep(0.2)
        return "s3cret"

    async with DocPreviewClient(gateway.target, token=token) as client:
        with pytest.raises(DeadlineExceeded):
            await client.create(BUCKET, "a", output_object="b/${Page}", timeout=0.1)
    assert gateway.calls == []


async def test_metadata_and_service_name_of_the_caller_go_with_every_call(gateway: FakeGateway) -> None:
    gateway.will("GetPreviewJob", job())
    options = ClientOptions(metadata=lambda: {"x-request-id": "req-1"}, user_agent="billing/2")
    async with DocPreviewClient(gateway.target, options=options) as client:
        await client.get(BUCKET, JOB_ID)
    metadata = gateway.calls[0].metadata
    assert metadata["x-request-id"] == "req-1"
    assert metadata["user-agent"].startswith("billing/2 docpreview-client/")


def test_creates_are_not_retried_by_the_service_config() -> None:
    """It names the methods that are repeated one by one: creates can never slip in."""
    methods = [name["method"] for part in service_config(health_checking=True)["methodConfig"] for name in part["name"]]
    assert "CreatePreviewJob" not in methods
    assert None not in methods
    assert len(methods) == 11


async def test_calls_wait_while_the_only_address_drains_and_none_fails(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """Behind one address of a service the next connection leads to another replica. Creates wait, too."""
    gateway.will("GetPreviewJob", job())
    gateway.will("CreatePreviewJob", job())
    gateway.will("WatchPreviewJob", [succeeded()])
    await client.get(BUCKET, JOB_ID)
    gateway.health.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
    async with asyncio.timeout(10):
        while client._calls is not None and client._calls._channel.get_state() is grpc.ChannelConnectivity.READY:  # noqa: ASYNC110 - the channel of another thread
            await asyncio.sleep(0.01)

    async def watched() -> PreviewJob:
        return [seen async for seen in client.watch(BUCKET, JOB_ID)][-1]

    calls = [
        asyncio.create_task(client.get(BUCKET, JOB_ID)),
        asyncio.create_task(client.create(BUCKET, "a", output_object="b/${Page}")),
        asyncio.create_task(watched()),
    ]
    _, waiting = await asyncio.wait(calls, timeout=3)
    assert len(waiting) == 3
    gateway.health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    assert await asyncio.gather(*calls) == [job(), job(), succeeded()]


async def test_an_unhealthy_address_gets_calls_only_with_health_checking_off(gateway: FakeGateway) -> None:
    gateway.health.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
    gateway.will("GetPreviewJob", job())
    async with DocPreviewClient(gateway.target) as client:
        with pytest.raises(Unavailable):
            await client.get(BUCKET, JOB_ID, timeout=timedelta(seconds=5))
    assert gateway.calls == []
    async with DocPreviewClient(gateway.target, options=ClientOptions(health_checking=False)) as client:
        assert await client.get(BUCKET, JOB_ID) == job()


async def test_a_client_connects_with_its_first_call_until_it_is_closed(gateway: FakeGateway) -> None:
    """Without `async with`, too; closing again does nothing."""
    gateway.will("GetPreviewJob", job())
    client = DocPreviewClient(gateway.target)
    assert await client.get(BUCKET, JOB_ID) == job()
    await client.close()
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await client.get(BUCKET, JOB_ID)


async def test_a_client_is_entered_once() -> None:
    """A second block would close it under the first."""
    client = DocPreviewClient()
    async with client:
        with pytest.raises(RuntimeError, match="in use"):
            await client.__aenter__()
    with pytest.raises(RuntimeError, match="closed"):
        await client.__aenter__()


def test_a_client_of_another_event_loop_is_refused_with_advice(gateway: FakeGateway) -> None:
    gateway.will("GetPreviewJob", job())
    client = DocPreviewClient(gateway.target)

    async def twice() -> None:
        await client.get(BUCKET, JOB_ID)
        with pytest.raises(RuntimeError, match=r"another event loop.*BlockingClient"):
            await asyncio.to_thread(asyncio.run, client.get(BUCKET, JOB_ID))
        await client.close()

    asyncio.run(twice())


async def test_a_token_source_that_fails_is_unauthenticated_at_once_with_its_cause(gateway: FakeGateway) -> None:
    async def sealed() -> str:
        raise OSError("the vault is sealed")

    async with DocPreviewClient(gateway.target, token=sealed) as client:
        for call in (
            client.get(BUCKET, JOB_ID),
            client.create(BUCKET, "a", output_object="b"),
            anext(client.list(BUCKET)),
        ):
            with pytest.raises(Unauthenticated, match="OSError") as caught:
                await call
            assert isinstance(caught.value.__cause__, OSError)
            assert caught.value.retry == "never"
    assert gateway.calls == []


@pytest.mark.parametrize("token", ["", "two\nlines", "with space", "ünicode"])
async def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(gateway: FakeGateway, token: str) -> None:
    with pytest.raises(ValueError, match="one line of visible ASCII"):
        DocPreviewClient(gateway.target, token=token)
    async with DocPreviewClient(gateway.target, token=lambda: token) as client:
        with pytest.raises(Unauthenticated) as caught:
            await client.get(BUCKET, JOB_ID)
    assert not token or token not in f"{caught.value} {caught.value.__cause__}"


async def test_a_call_can_bypass_caches_carry_metadata_and_give_that_of_its_reply(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """Also when it fails."""
    gateway.will("GetPreviewJob", job(), failure(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND"))
    gateway.reply_metadata = (("x-cache", "miss"), ("x-request-id", "req-1"))
    reply: dict[str, str] = {}
    await client.get(BUCKET, JOB_ID, no_cache=True, metadata={"x-request-id": "req-1"}, reply_metadata=reply)
    sent = gateway.call("GetPreviewJob").metadata
    assert (sent["cache-control"], sent["x-request-id"]) == ("no-cache", "req-1")
    assert (reply["x-cache"], reply["x-request-id"]) == ("miss", "req-1")
    failed: dict[str, str] = {}
    with pytest.raises(NotFound):
        await client.get(BUCKET, JOB_ID, reply_metadata=failed)
    assert failed["x-cache"] == "miss"
    assert "cache-control" not in gateway.call("GetPreviewJob", 2).metadata


class Counting(grpc.aio.UnaryUnaryClientInterceptor):
    """Counts calls."""

    def __init__(self, methods: list[str]) -> None:
        self._methods = methods

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        self._methods.append(details.method.decode().rpartition("/")[2])
        return await continuation(details, request)


class CountingStreams(grpc.aio.UnaryStreamClientInterceptor):
    """Counts streams: gRPC takes an interceptor for one kind only."""

    def __init__(self, methods: list[str]) -> None:
        self._methods = methods

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        self._methods.append(details.method.decode().rpartition("/")[2])
        return await continuation(details, request)


async def test_interceptors_see_all_calls_and_change_nothing_of_their_results(gateway: FakeGateway) -> None:
    gateway.will("GetPreviewJob", job(), failure(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND"))
    gateway.will("WatchPreviewJob", [job(), failure(grpc.StatusCode.UNAVAILABLE, "WATCH_LIMIT_REACHED")], [succeeded()])
    gateway.reply_metadata = (("x-cache", "miss"),)
    methods, reply = list[str](), dict[str, str]()
    async with DocPreviewClient(
        gateway.target, options=ClientOptions(interceptors=[Counting(methods), CountingStreams(methods)])
    ) as client:
        assert await client.get(BUCKET, JOB_ID, reply_metadata=reply) == job()
        with pytest.raises(NotFound):
            await client.get(BUCKET, JOB_ID)
        assert [seen async for seen in client.watch(BUCKET, JOB_ID)] == [job(), succeeded()]
    assert methods == ["GetPreviewJob", "GetPreviewJob", "WatchPreviewJob", "WatchPreviewJob"]
    assert reply["x-cache"] == "miss"


def test_a_client_certificate_without_key_is_refused_and_keys_are_not_shown() -> None:
    with pytest.raises(ValueError, match="give both"):
        Tls(certificate_chain=b"certificate")
    assert "s3cret" not in repr(Tls(certificate_chain=b"certificate", private_key=b"s3cret"))


def test_an_import_of_the_client_loads_nothing_that_only_the_command_needs() -> None:
    code = "import docpreview_client, sys; print({'typer', 'rich', 'httpx', 'aiohttp'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


def test_the_package_run_as_a_module_is_the_command_with_its_exit_codes(gateway: FakeGateway) -> None:
    """`python -m docpreview_client` writes nothing but its own words to stderr."""
    gateway.will("GetPreviewJob", job())
    command = [sys.executable, "-m", "docpreview_client", "get", BUCKET, JOB_ID, "--target"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DOCPREVIEW_", "GRPC_"))}
    found = subprocess.run([*command, gateway.target], capture_output=True, text=True, check=False, env=environment)
    assert (found.returncode, found.stderr) == (0, "")
    gateway.stop()
    gone = subprocess.run([*command, gateway.target], capture_output=True, text=True, check=False, env=environment)
    assert gone.returncode == 6
    assert gone.stderr.splitlines()[-1] == "Check --target, or try again later."


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Programs that a test starts heed signals, also where the tests run in a shell's background and must not."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}  # type: ignore[arg-type]
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_command_exits_with_130_and_ends_its_stream(gateway: FakeGateway) -> None:
    """Ctrl-C ends the command with a code of its own, and its stream at the gateway."""
    gateway.will("WatchPreviewJob", [job(), Silence()])
    command = [sys.executable, "-m", "docpreview_client", "--target", gateway.target, "watch", BUCKET, JOB_ID, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(PATIENCE) == 130
    assert gateway.call("WatchPreviewJob").ended.wait(PATIENCE)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_preview_that_is_ended_in_its_create_tells_how_to_repeat_it_without_a_second_job(
    gateway: FakeGateway, tmp_path: Path, number: signal.Signals
) -> None:
    """The job may have been made, and is billed."""
    gateway.will("CreatePreviewJob", Silence())
    words = ["preview", "in/a.pptx", "--bucket", BUCKET, "--pages", str(tmp_path / "out")]
    command = [sys.executable, "-m", "docpreview_client", "--target", gateway.target, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as previewing:
        request = gateway.call("CreatePreviewJob").request
        previewing.send_signal(number)
        _, told = previewing.communicate(timeout=PATIENCE)
    assert previewing.returncode == 128 + number
    assert f"--request-id {request.request_id}" in told


def test_the_bar_on_a_terminal_counts_made_pages_and_downloaded_files() -> None:
    """The bar is full when the pages that were tried are made."""
    screen = io.StringIO()
    with BarProgress(Console(file=screen, force_terminal=True, width=120)) as progress:
        progress.changed(job())
        progress.changed(succeeded("a", "b"))
        for done in range(3):
            progress.downloaded(done, total=2)
    assert "SUCCESS" in screen.getvalue()
    assert "2/2 pages" in screen.getvalue()
    assert "2/2 files" in screen.getvalue()
