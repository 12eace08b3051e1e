"""`docpreview listen`: a receiver in development gets what a webhook target gets."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import typer

from docpreview_client import DocPreviewClient
from docpreview_client.cli import listening
from docpreview_client.cli.json_view import JsonView
from docpreview_client.cli.listening import Listening, ListenOptions
from docpreview_client.cli.session import Session
from docpreview_emulator import Emulator
from docpreview_gateway.wiring.gateway import Gateway
from tests.fakes.webhook_receiver import Receiver
from tests.integration.conftest import BUCKET, REGION, settings, until
from tests.integration.money import ONE_PAGE
from tests.integration.test_webhooks import new_secret

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import World


class Said(JsonView):
    """What the command says."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


async def test_each_job_that_ends_is_one_event_that_verifies(world: World, tmp_path: Path) -> None:
    """Of jobs from before it began there are none."""
    secret = new_secret()
    (tmp_path / "secret").write_text(secret + "\n")
    await world.upload("a.pdf", ONE_PAGE)

    async def job() -> str:
        made = await world.client.create(BUCKET, "a.pdf", output_object="out/${RequestToken}/${Number}.jpg")
        return str(made.job_id)

    before = await job()
    await world.client.wait(BUCKET, before)
    await asyncio.sleep(2)
    session = Session(client=world.client, view=JsonView(), timeout=None)
    async with Receiver().listening() as receiver, asyncio.timeout(60):
        options = ListenOptions(forward_to=receiver.url, secret_file=tmp_path / "secret")
        running = asyncio.create_task(listening.listen(session, BUCKET, options))
        jobs = {await job() for _ in range(2)}
        received = await receiver.next(2)
        await asyncio.sleep(listening.LOOK_SECONDS + 1)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        assert {each.event["subject"] for each in received} == jobs
        assert len(receiver.received) == 2
        assert all(each.verifies(secret) for each in received)
        assert received[0].event["id"] == received[0].id
        assert received[0].event["data"]["state"] == "STATE_SUCCESS"


async def test_a_receiver_that_fails_is_said_and_the_command_goes_on(world: World) -> None:
    await world.upload("a.pdf", ONE_PAGE)
    outcomes: list[listening.Answer] = []

    def deliver(name: str, body: bytes) -> listening.Answer:
        outcomes.append(listening.post("http://127.0.0.1:1/", new_secret(), name, body))
        return outcomes[-1]

    follower = Listening(BUCKET, deliver)
    session = Session(client=world.client, view=JsonView(), timeout=None)
    made = await world.client.create(BUCKET, "a.pdf", output_object="out/${Number}.jpg")
    await world.client.wait(BUCKET, made.job_id)
    await follower.look(session)
    await until(lambda: bool(outcomes))
    assert outcomes[0].status is None
    assert outcomes[0].problem.startswith("no answer: ")


@pytest.mark.parametrize("said", [b"hello, this is not http\r\n", b"", b"HTTP/1.1 abc\r\n\r\n"])
async def test_what_is_no_http_is_an_answer_in_words(said: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        got = await asyncio.to_thread(listening.post, address, new_secret(), "evt_1", b"{}")
    assert got.status is None
    assert got.problem.startswith("no answer: ")
    assert "hello" not in got.problem


async def test_a_receiver_is_asked_as_the_gateway_asks() -> None:
    async with Receiver(answers=[503]).listening() as receiver:
        got = await asyncio.to_thread(listening.post, receiver.url, new_secret(), "evt_1", b"{}")
        (received,) = await receiver.next()
    assert got == (503, "")
    assert received.headers["user-agent"] == "docpreview-gateway"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [(listening.Answer(204), {"status": 204}), (listening.Answer(None, "no answer: x"), {"error": "no answer: x"})],
)
async def test_with_json_each_event_is_an_object(
    world: World, capsys: pytest.CaptureFixture[str], answer: listening.Answer, outcome: dict[str, object]
) -> None:
    await world.upload("a.pdf", ONE_PAGE)
    follower = Listening(BUCKET, lambda _name, _body: answer)
    made = await world.client.create(BUCKET, "a.pdf", output_object="out/${Number}.jpg")
    await world.client.wait(BUCKET, made.job_id)
    await follower.look(Session(client=world.client, view=JsonView(), timeout=None))
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    job = found.pop("job")
    assert (job["job_id"], job["state"], "pages" in job["result"]) == (made.job_id, "STATE_SUCCESS", False)
    assert found.pop("id").startswith("evt_")
    assert found == {"type": "dev.docpreview.job.ended.v1", **outcome}


async def test_with_a_timeout_it_ends_by_itself(world: World, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(new_secret())
    session = Session(client=world.client, view=JsonView(), timeout=timedelta(seconds=1))
    async with asyncio.timeout(30):
        await listening.listen(
            session, BUCKET, ListenOptions(forward_to="http://127.0.0.1:1", secret_file=tmp_path / "secret")
        )


@pytest.mark.parametrize("port", ["99999", "abc", "0", "65536"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(typer.BadParameter, match="a number from 1 to 65535"):
        ListenOptions(forward_to=f"http://127.0.0.1:{port}/").address()


@pytest.mark.parametrize(
    "address",
    [
        None,
        "127.0.0.1:3000",
        "file:///etc/passwd",
        "http://",
        "http://me:pw@host/",
        "http://h/ü",
        "http://h/a b",
        "http://[::1/",
    ],
)
def test_an_address_that_is_none_is_refused(address: str | None) -> None:
    with pytest.raises(typer.BadParameter, match=r"http://127\.0\.0\.1:3000"):
        ListenOptions(forward_to=address).address()


@pytest.mark.parametrize("text", ["", "secret", "whsec_c2hvcnQ="])
def test_an_unusable_secret_is_refused_without_quoting_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "secret").write_text(text)
    with pytest.raises(typer.BadParameter) as refused:
        ListenOptions(forward_to="http://127.0.0.1:1", secret_file=tmp_path / "secret").secret()
    assert not text or text not in refused.value.message.replace(str(tmp_path), "").replace("/secret must", "")


async def test_without_notes_a_secret_has_to_be_given(world: World) -> None:
    """`--json` prints none: a new secret would be known to nobody."""
    session = Session(client=world.client, view=JsonView(), timeout=None)
    with pytest.raises(typer.BadParameter, match="needed with --json"):
        await listening.listen(session, BUCKET, ListenOptions(forward_to="http://127.0.0.1:1"))


async def test_a_gateway_that_is_away_for_a_while_is_waited_for(tmp_path: Path) -> None:
    """And said once: events of jobs that ended meanwhile come when it is back."""
    said = Said()
    (tmp_path / "secret").write_text(new_secret())
    async with AsyncExitStack() as first_run, Emulator() as emulator, Receiver().listening() as receiver:
        emulator.put_object(BUCKET, REGION, "a.pdf", ONE_PAGE)
        emulator.hold_jobs()
        first = await first_run.enter_async_context(Gateway(settings(emulator)))
        address = f"127.0.0.1:{first.port}"
        async with DocPreviewClient(address) as client, asyncio.timeout(90):
            session = Session(client=client, view=said, timeout=None)
            options = ListenOptions(forward_to=receiver.url, secret_file=tmp_path / "secret")
            running = asyncio.create_task(listening.listen(session, BUCKET, options))
            await until(lambda: len(said.notes) == 1)
            made = await client.create(BUCKET, "a.pdf", output_object="out/${Number}.jpg")
            await first_run.aclose()
            await until(lambda: "Trying again" in said.notes[-1])
            emulator.release_jobs()
            async with Gateway(settings(emulator, listen=address)):
                (received,) = await receiver.next(seconds=60)
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running
    assert received.event["subject"] == made.job_id
    assert sum("Trying again" in note for note in said.notes) == 1
