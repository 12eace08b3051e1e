"""Outgoing webhooks: a target of the policy is told that a job has ended, by a signed CloudEvent."""

from __future__ import annotations

import asyncio
import base64
import secrets
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog
import yaml
from prometheus_client import generate_latest

from docpreview_client import ClientOptions, DocPreviewClient, DocPreviewError
from docpreview_emulator import Emulator
from docpreview_gateway.callbacks.trust import LEAST
from docpreview_gateway.settings.access import PolicySettings
from docpreview_gateway.settings.sections import CallbackSettings, SharedStateSettings
from docpreview_gateway.webhooks.delivering import FIRST_LOOK_SECONDS
from docpreview_gateway.wiring.gateway import Gateway
from tests.edge_process import free_port
from tests.fakes.webhook_receiver import Receiver
from tests.integration.callback_worlds import reads
from tests.integration.conftest import BUCKET, REGION, settings, until
from tests.integration.identity import Policy
from tests.integration.money import ONE_PAGE
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview.v1.preview_job_pb2 import PreviewJob


def new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


@dataclass
class Hooks:
    """An emulator, a receiver, and a policy whose caller may name the receiver as `orders`."""

    emulator: Emulator
    receiver: Receiver
    folder: Path
    secret: str
    token: str
    state: Path
    listening: AsyncExitStack

    async def stop_receiver(self) -> None:
        await self.listening.aclose()

    @asynccontextmanager
    async def gateway(self, **changes: object) -> AsyncIterator[tuple[Gateway, DocPreviewClient]]:
        """A gateway of this deployment, and a client of its caller."""
        policy = PolicySettings(file=self.folder / "policy.yaml")
        options = ClientOptions(request_ids=False, metadata=lambda: {"authorization": f"Bearer {self.token}"})
        found = settings(self.emulator, **{"policy": policy, "state_dir": self.state, **changes})
        async with (
            Gateway(found) as gateway,
            DocPreviewClient(f"127.0.0.1:{gateway.port}", options=options) as client,
        ):
            yield gateway, client

    async def create(self, client: DocPreviewClient, **fields: Any) -> PreviewJob:
        """A job that `orders` is to be told of."""
        output = "previews/${RequestToken}/${Number}.jpg"
        job: PreviewJob = await client.create(BUCKET, "a.pdf", output_object=output, **{"webhook": "orders", **fields})
        return job


@pytest.fixture
async def hooks(tmp_path: Path) -> AsyncIterator[Hooks]:
    secret, policy = new_secret(), Policy(tmp_path / "policy.yaml")
    token = policy.add("shop", BUCKET, webhooks=["orders"])
    policy.add("other", BUCKET)
    (tmp_path / "orders.secret").write_text(secret + "\n")
    async with AsyncExitStack() as listening, Emulator() as emulator:
        receiver = await listening.enter_async_context(Receiver().listening())
        emulator.put_object(BUCKET, REGION, "a.pdf", ONE_PAGE)
        target = {"url": receiver.url, "secret_file": str(tmp_path / "orders.secret")}
        whole = {"version": 1, "webhooks": {"orders": target}, "callers": policy.callers}
        policy.path.write_text(yaml.safe_dump(whole))
        state = tmp_path / "state"
        yield Hooks(emulator, receiver, tmp_path, secret, token, state, listening)


def creates(emulator: Emulator) -> int:
    """Creates that have reached the cloud."""
    return sum(request.operation == "create" for request in emulator.requests)


def queued(gateway: Gateway) -> float:
    """Deliveries that the targets have not taken, as the last round counted them."""
    names = ("docpreview_webhook_waiting", "docpreview_webhook_undelivered")
    return sum(gateway.registry.get_sample_value(name) or 0.0 for name in names)


def attempts(gateway: Gateway, outcome: str) -> float:
    """Attempts to deliver to `orders` that came to this."""
    labels = {"target": "orders", "outcome": outcome}
    return gateway.registry.get_sample_value("docpreview_webhook_deliveries_total", labels) or 0.0


async def test_the_target_gets_exactly_one_signed_event_when_the_job_has_ended(hooks: Hooks) -> None:
    """A CloudEvent about the job, signed by Standard Webhooks, and nothing before the end."""
    hooks.emulator.hold_jobs()
    async with hooks.gateway() as (gateway, client), asyncio.timeout(30):
        job = await hooks.create(client)
        assert hooks.receiver.received == []
        hooks.emulator.release_jobs()
        await client.wait(BUCKET, job.job_id)
        (received,) = await hooks.receiver.next()
        await until(lambda: attempts(gateway, "delivered") == 1)
        assert received.verifies(hooks.secret)
        assert not received.verifies(new_secret())
        event = received.event
        assert (event["specversion"], event["type"], event["id"]) == ("1.0", "dev.docpreview.job.ended.v1", received.id)
        assert (event["subject"], event["data"]["jobId"]) == (job.job_id, job.job_id)
        assert event["data"]["state"] == "STATE_SUCCESS"
        await hooks.create(client, webhook="")
        assert len(hooks.receiver.received) == 1


async def test_nobody_needs_to_wait_for_the_job(hooks: Hooks) -> None:
    """The gateway itself looks for its end."""
    async with hooks.gateway() as (_, client):
        job = await hooks.create(client)
        (received,) = await hooks.receiver.next()
        assert received.event["subject"] == job.job_id


async def test_a_caller_may_name_only_targets_of_its_policy(hooks: Hooks) -> None:
    async with hooks.gateway() as (_, client):
        with pytest.raises(DocPreviewError) as unknown:
            await hooks.create(client, webhook="strangers")
        assert unknown.value.code is grpc.StatusCode.PERMISSION_DENIED
        assert creates(hooks.emulator) == 0


async def test_every_status_but_2xx_and_410_is_tried_again(hooks: Hooks) -> None:
    """With the same id and body. Redirects are not followed."""
    hooks.receiver.answers = [500, 302]
    async with hooks.gateway() as (gateway, client), asyncio.timeout(60):
        await hooks.create(client)
        received = await hooks.receiver.next(3)
        assert len({(each.id, each.body) for each in received}) == 1
        assert all(each.verifies(hooks.secret) for each in received)
        await until(lambda: attempts(gateway, "delivered") == 1)
        assert attempts(gateway, "refused") == 2


async def test_a_receiver_that_is_gone_is_told_nothing_more_of_the_job(hooks: Hooks) -> None:
    hooks.receiver.answers = [410]
    async with hooks.gateway() as (gateway, client), asyncio.timeout(60):
        await hooks.create(client)
        await until(lambda: attempts(gateway, "gone") == 1)
        await asyncio.sleep(3)
        assert len(hooks.receiver.received) == 1


async def test_a_receiver_that_was_down_gets_the_event_when_it_is_back(hooks: Hooks) -> None:
    back = Receiver(port=hooks.receiver.port)
    await hooks.stop_receiver()
    async with hooks.gateway() as (gateway, client), asyncio.timeout(60):
        job = await hooks.create(client)
        await until(lambda: attempts(gateway, "unreachable") >= 1)
        async with back.listening():
            (received,) = await back.next()
            assert received.event["subject"] == job.job_id
            await until(lambda: attempts(gateway, "delivered") == 1)


async def test_an_event_survives_a_restart_between_the_end_and_its_delivery(hooks: Hooks) -> None:
    """And so does one whose job ends while no gateway runs."""
    hooks.receiver.answers = [503]
    hooks.emulator.hold_jobs()
    async with hooks.gateway() as (_, client), asyncio.timeout(60):
        still_running = await hooks.create(client)
    hooks.emulator.release_jobs()
    async with hooks.gateway() as (gateway, client), asyncio.timeout(60):
        await until(lambda: attempts(gateway, "refused") == 1)
        assert attempts(gateway, "delivered") == 0
    async with hooks.gateway() as (gateway, _), asyncio.timeout(60):
        await until(lambda: attempts(gateway, "delivered") == 1)
        assert {each.event["subject"] for each in hooks.receiver.received} == {still_running.job_id}


async def test_of_two_replicas_one_delivers(hooks: Hooks, tmp_path: Path) -> None:
    """Whichever sees the end; none twice."""
    with running_redis(tmp_path) as server:
        state = SharedStateSettings.model_validate({"url": server.url, "namespace": "docs", "timeout_seconds": 1.0})
        async with (
            hooks.gateway(shared_state=state) as (one, client),
            hooks.gateway(shared_state=state, state_dir=tmp_path / "other") as (other, _),
            asyncio.timeout(60),
        ):
            jobs = {(await hooks.create(client)).job_id for _ in range(5)}
            await until(lambda: attempts(one, "delivered") + attempts(other, "delivered") == len(jobs))
            await asyncio.sleep(2)
            assert sorted(each.event["subject"] for each in hooks.receiver.received) == sorted(jobs)


async def test_a_secret_is_replaced_without_a_gap(hooks: Hooks) -> None:
    """With two lines both sign; no restart, no reload."""
    new, file = new_secret(), hooks.folder / "orders.secret"
    async with hooks.gateway() as (_, client), asyncio.timeout(60):
        for count, (lines, valid) in enumerate(
            [((new, hooks.secret), {new, hooks.secret}), ((new,), {new})],
            start=1,
        ):
            file.write_text("\n".join(lines))
            await hooks.create(client)
            received = (await hooks.receiver.next(count))[-1]
            assert {each for each in (new, hooks.secret) if received.verifies(each)} == valid


async def test_an_unusable_secret_file_puts_the_delivery_off(hooks: Hooks) -> None:
    """Nothing is sent unsigned."""
    file = hooks.folder / "orders.secret"
    async with hooks.gateway() as (gateway, client), asyncio.timeout(60):
        file.write_text("oops")
        await hooks.create(client)
        await until(lambda: attempts(gateway, "secret") >= 1)
        assert hooks.receiver.received == []
        file.write_text(hooks.secret)
        assert (await hooks.receiver.next())[0].verifies(hooks.secret)


async def test_a_create_with_webhook_is_refused_while_the_store_is_down(hooks: Hooks, tmp_path: Path) -> None:
    """Nothing is sent: what cannot be kept is not promised. One without a promise goes on."""
    with running_redis(tmp_path) as server:
        state = SharedStateSettings.model_validate({"url": server.url, "namespace": "docs", "timeout_seconds": 1.0})
        async with hooks.gateway(shared_state=state) as (_, client), asyncio.timeout(60):
            await hooks.create(client, webhook="", request_id=str(uuid.uuid4()))
            before = creates(hooks.emulator)
            server.kill()
            with pytest.raises(DocPreviewError) as refused:
                await hooks.create(client, timeout=timedelta(seconds=10))
            assert refused.value.reason == "LEDGER_UNAVAILABLE"
            assert creates(hooks.emulator) == before
            assert (await hooks.create(client, webhook="")).job_id


async def test_a_repeated_create_is_one_job_and_one_event(hooks: Hooks) -> None:
    """With the same `request_id`, before the end of the job."""
    hooks.emulator.hold_jobs()
    request_id = str(uuid.uuid4())
    async with hooks.gateway() as (gateway, client), asyncio.timeout(60):
        jobs = {(await hooks.create(client, request_id=request_id)).job_id for _ in range(3)}
        assert len(jobs) == 1
        hooks.emulator.release_jobs()
        await until(lambda: attempts(gateway, "delivered") == 1)
        await until(lambda: queued(gateway) == 0)
        assert len(hooks.receiver.received) == 1


async def test_while_callbacks_come_a_job_that_nobody_watches_costs_one_read(hooks: Hooks) -> None:
    """The callback makes it, and the event is sent at once."""
    port = free_port()
    callbacks = CallbackSettings(public_url=f"http://127.0.0.1:{port}/cb", listen=f"127.0.0.1:{port}")
    async with hooks.gateway(callbacks=callbacks) as (gateway, client), asyncio.timeout(90):
        for count in range(1, LEAST + 1):
            await hooks.create(client)
            await hooks.receiver.next(count)
        await until(lambda: gateway.callbacks.trust.works(BUCKET))
        hooks.emulator.hold_jobs()
        job = await hooks.create(client)
        before = reads(hooks.emulator)
        await asyncio.sleep(2 * FIRST_LOOK_SECONDS)
        assert reads(hooks.emulator) == before
        hooks.emulator.release_jobs()
        received = (await hooks.receiver.next(LEAST + 1))[-1]
        assert received.event["subject"] == job.job_id
        assert reads(hooks.emulator) == before + 1


async def test_the_log_says_why_a_target_has_not_taken_an_event(hooks: Hooks) -> None:
    hooks.receiver.answers = [418]
    with structlog.testing.capture_logs() as lines:
        async with hooks.gateway() as (gateway, client), asyncio.timeout(60):
            await hooks.create(client)
            await until(lambda: attempts(gateway, "delivered") == 1)
    said = [(line["outcome"], line["detail"]) for line in lines if line["event"] == "webhook"]
    assert said == [("refused", "status 418"), ("delivered", "status 204")]


async def test_secrets_and_addresses_reach_no_log_and_no_metric(hooks: Hooks) -> None:
    hooks.receiver.answers = [500]
    with structlog.testing.capture_logs() as lines:
        async with hooks.gateway() as (gateway, client), asyncio.timeout(60):
            await hooks.create(client)
            await until(lambda: attempts(gateway, "delivered") == 1)
            shown = generate_latest(gateway.registry).decode() + repr(lines)
    assert '"orders"' in shown
    assert hooks.secret.removeprefix("whsec_") not in shown
    assert "v1," not in shown
    assert hooks.receiver.url not in shown
