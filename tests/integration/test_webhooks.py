"""Outgoing webhooks: a target of the policy is told that a job has ended, by a signed CloudEvent."""

from __future__ import annotations

import asyncio
import base64
import secrets
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import yaml

from docpreview_client import ClientOptions, DocPreviewClient, DocPreviewError
from docpreview_emulator import Emulator
from docpreview_gateway.settings.access import PolicySettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.fakes.webhook_receiver import Receiver
from tests.integration.conftest import BUCKET, REGION, settings, until
from tests.integration.identity import Policy
from tests.integration.money import ONE_PAGE

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

    @asynccontextmanager
    async def gateway(self, **changes: object) -> AsyncIterator[tuple[Gateway, DocPreviewClient]]:
        """A gateway of this deployment, and a client of its caller."""
        policy = PolicySettings(file=self.folder / "policy.yaml")
        options = ClientOptions(metadata=lambda: {"authorization": f"Bearer {self.token}"})
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
    async with Receiver().listening() as receiver, Emulator() as emulator:
        emulator.put_object(BUCKET, REGION, "a.pdf", ONE_PAGE)
        target = {"url": receiver.url, "secret_file": str(tmp_path / "orders.secret")}
        whole = {"version": 1, "webhooks": {"orders": target}, "callers": policy.callers}
        policy.path.write_text(yaml.safe_dump(whole))
        state = tmp_path / "state"
        yield Hooks(emulator, receiver, tmp_path, secret, token, state)


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
        assert not any(request.operation == "create" for request in hooks.emulator.requests)
