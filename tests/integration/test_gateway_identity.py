"""Authentication and authorization of callers over real sockets, with the emulated cloud."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from docpreview_emulator import Emulator
from docpreview_gateway.settings.access import PolicySettings
from docpreview_gateway.settings.loading import StartError
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import BUCKET, OTHER_BUCKET, REGION, settings, until
from tests.integration.identity import Policy, bearer, create, get

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

C = grpc.StatusCode
LINES = {"call", "create"}
PDF = b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n\
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 90 90]>>endobj\ntrailer<</Root 1 0 R>>"


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """The cloud, with a document in each bucket."""
    async with Emulator() as running:
        for bucket in (BUCKET, OTHER_BUCKET):
            running.put_object(bucket, REGION, "in/a.pdf", PDF)
        yield running


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    """Two callers with a bucket each."""
    return Policy.of_two(tmp_path)


def gateway(emulator: Emulator, policy: Policy, **changes: Any) -> Gateway:
    return Gateway(settings(emulator, policy=PolicySettings(file=policy.path), **changes))


async def test_each_of_two_callers_sees_its_own_bucket_only(emulator: Emulator, policy: Policy) -> None:
    """For each caller the other's bucket does not exist, whether it does or not."""
    async with (
        gateway(emulator, policy) as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel,
    ):
        one, two = (bearer(policy.tokens[name]) for name in ("one", "two"))
        job = await create(channel, one, "in/a.pdf")
        assert await get(channel, one, BUCKET, job.job_id) == C.OK
        assert await get(channel, two, BUCKET, job.job_id) == C.PERMISSION_DENIED
        assert await get(channel, two, BUCKET, "nothing") == C.PERMISSION_DENIED
        assert await get(channel, two, OTHER_BUCKET, job.job_id) == C.NOT_FOUND
        assert await get(channel, None, BUCKET, job.job_id) == C.UNAUTHENTICATED
        assert await get(channel, (*one, *one), BUCKET, job.job_id) == C.UNAUTHENTICATED


async def test_a_forbidden_method_is_refused_before_the_request_is_decoded(emulator: Emulator, policy: Policy) -> None:
    """PERMISSION_DENIED also for a malformed request."""
    policy.add("reader", methods=["GetPreviewJob"])
    policy.write()
    async with (
        gateway(emulator, policy) as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel,
    ):
        call: Any = channel.unary_unary("/docpreview.v1.PreviewJobService/CreatePreviewJob")
        for name, code in (("reader", C.PERMISSION_DENIED), ("one", C.INVALID_ARGUMENT)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"\xff", metadata=bearer(policy.tokens[name]))
            assert caught.value.code() == code


async def test_a_create_that_is_refused_before_its_request_is_read_has_the_line_of_its_call_only(
    emulator: Emulator, policy: Policy, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """As `docs/metrics.md` says: nothing is known of a create whose caller may not call the method."""
    policy.add("reader", methods=["GetPreviewJob"])
    policy.write()
    async with (
        gateway(emulator, policy) as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel,
    ):
        for name in ("reader", "one"):
            with suppress(grpc.aio.AioRpcError):
                await create(channel, bearer(policy.tokens[name]), "in/a.pdf")
    lines = [json.loads(line) for line in capfdbinary.readouterr().err.splitlines() if line.startswith(b"{")]
    shown = [(line["event"], line["caller"], line.get("rule", "")) for line in lines if line["event"] in LINES]
    assert sorted(shown) == [
        ("call", "one", ""),
        ("call", "reader", "callers.reader.methods"),
        ("create", "one", ""),
    ]


async def test_a_refusal_is_logged_and_counted_as_the_callers_with_the_rule_that_refused(
    emulator: Emulator, policy: Policy, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Of the method, the bucket, the document and the output; the rule has no text of the call."""
    policy.add("desk", prefix="in/", methods=["CreatePreviewJob"])
    policy.write()
    secret, desk = "canary", bearer(policy.tokens["desk"])
    async with (
        gateway(emulator, policy) as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel,
    ):
        assert await get(channel, desk) == C.PERMISSION_DENIED
        for key, bucket in (("in/a.pdf", f"{secret}-1250000000"), (f"{secret}/a.pdf", BUCKET)):
            with pytest.raises(grpc.aio.AioRpcError):
                await create(channel, desk, key, bucket)
        denied = {"caller": "desk", "grpc_code": "PermissionDenied"}
        await until(lambda: running.registry.get_sample_value("docpreview_caller_calls_total", denied) == 3)
    lines = [json.loads(line) for line in capfdbinary.readouterr().err.splitlines() if line.startswith(b"{")]
    calls, creates = ([line for line in lines if line["event"] == event] for event in ("call", "create"))
    assert secret not in str(calls)
    assert {(call["caller"], call["reason"]) for call in calls} == {("desk", "NOT_PERMITTED")}
    rules = ["callers.desk.methods", "callers.desk.buckets", f"callers.desk.buckets[{BUCKET}].input_prefixes"]
    assert [call["rule"] for call in calls] == rules
    assert [create["rule"] for create in creates] == rules[1:]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_health_is_open_to_everyone_and_reflection_to_callers_whose_methods_name_it(
    emulator: Emulator, policy: Policy, version: str
) -> None:
    """The policy's method is `ServerReflection`."""
    policy.add("operator", methods=["ServerReflection"])
    policy.write()

    async def services(channel: grpc.aio.Channel, metadata: Any) -> int:
        method: Any = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
        request = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
        async for reply in method(iter([request]), metadata=metadata):
            return len(reflection_pb2.ServerReflectionResponse.FromString(reply).list_services_response.service)
        return 0

    async with (
        gateway(emulator, policy, reflection=True) as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        assert await services(channel, bearer(policy.tokens["operator"])) > 1
        for metadata, code in ((None, C.UNAUTHENTICATED), (bearer(policy.tokens["one"]), C.PERMISSION_DENIED)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await services(channel, metadata)
            assert caught.value.code() == code


async def eventually(channel: grpc.aio.Channel, metadata: Any, code: grpc.StatusCode) -> None:
    """Repeat a read until it ends with this code."""
    async with asyncio.timeout(10):
        while await get(channel, metadata) != code:  # noqa: ASYNC110 - a reload is not announced
            await asyncio.sleep(0.05)


async def test_a_changed_policy_is_applied_as_a_whole_and_an_invalid_one_not_at_all(
    emulator: Emulator, policy: Policy
) -> None:
    """An invalid version is counted as `invalid`, and the previous one stays."""
    async with (
        gateway(emulator, policy) as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel,
    ):
        one = bearer(policy.tokens["one"])
        assert await get(channel, one) == C.NOT_FOUND
        three = bearer(policy.add("three"))
        del policy.callers["one"]
        policy.write()
        await eventually(channel, three, C.NOT_FOUND)
        assert await get(channel, one) == C.UNAUTHENTICATED
        policy.path.write_text("version: 1\ncallers: {three: {}}\n")
        reloads = "docpreview_reloads_total"
        async with asyncio.timeout(10):
            while running.registry.get_sample_value(reloads, {"file": "policy", "outcome": "invalid"}) != 1:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)
        assert await get(channel, three) == C.NOT_FOUND
        assert running.registry.get_sample_value(reloads, {"file": "policy", "outcome": "ok"}) == 1
        refused = partial(running.registry.get_sample_value, "docpreview_file_refused", {"file": "policy"})
        assert refused() == 1
        policy.write()
        await until(lambda: refused() == 0)


async def test_configured_limits_are_measured_from_the_start_and_change_with_the_policy(
    emulator: Emulator, policy: Policy
) -> None:
    """No call is needed for it: a budget that was cut shows as it is, with what was used before."""
    policy.callers["one"]["budget"] = {"per_day": 400}
    policy.write()
    async with gateway(emulator, policy) as running:
        limit = partial(
            running.registry.get_sample_value, "docpreview_caller_limit", {"caller": "one", "limit": "pages_day"}
        )
        assert limit() == 400
        policy.callers["one"]["budget"] = {"per_day": 20}
        policy.write()
        await until(lambda: limit() == 20)
        del policy.callers["one"]["budget"]
        policy.write()
        await until(lambda: limit() is None)


async def test_an_invalid_policy_fails_the_start_before_the_store_is_touched(
    emulator: Emulator, policy: Policy, tmp_path: Path
) -> None:
    """No gateway serves with a part of its policy, or looks for records that it will not use."""
    policy.callers["one"]["methods"] = ["Everything"]
    policy.write()
    with pytest.raises(StartError, match="Everything is not a method"):
        await gateway(emulator, policy, state_dir=tmp_path / "state").__aenter__()
    assert not (tmp_path / "state").exists()
