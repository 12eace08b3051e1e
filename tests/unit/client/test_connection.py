"""The connection: who may see a token, what goes with a call, how it is encrypted, where it goes."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest
from grpc_health.v1 import health_pb2
from rich.console import Console

from docpreview_client import ClientOptions, DocPreviewClient, Tls, Unavailable
from docpreview_client.channel import service_config
from docpreview_client.cli.text_progress import BarProgress

from .fake_gateway import PATIENCE, SERVICE, FakeGateway, Silence
from .samples import BUCKET, JOB_ID, job, succeeded


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
    assert len(methods) == 7


async def test_an_unhealthy_address_gets_calls_only_with_health_checking_off(gateway: FakeGateway) -> None:
    gateway.health.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
    gateway.will("GetPreviewJob", job())
    async with DocPreviewClient(gateway.target) as client:
        with pytest.raises(Unavailable):
            await client.get(BUCKET, JOB_ID, timeout=timedelta(seconds=5))
    assert gateway.calls == []
    async with DocPreviewClient(gateway.target, options=ClientOptions(health_checking=False)) as client:
        assert await client.get(BUCKET, JOB_ID) == job()


async def test_a_client_that_is_not_open_refuses_calls_with_advice() -> None:
    """It names `async with`."""
    with pytest.raises(RuntimeError, match="async with"):
        await DocPreviewClient().get(BUCKET, JOB_ID)


async def test_an_open_client_cannot_be_opened_again_until_it_is_closed() -> None:
    """A client has one channel."""
    client = DocPreviewClient()
    async with client:
        with pytest.raises(RuntimeError, match="in use"):
            await client.__aenter__()
    async with client:
        pass


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
    """Programs that a test starts heed Ctrl-C, also where the tests run in a shell's background and must not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
