"""The server's channel arguments, health and reflection, over real sockets."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from docpreview_gateway.model.call import MAX_REPLY_BYTES
from docpreview_gateway.model.contract import SERVICE_NAMES
from docpreview_gateway.rpc.server import (
    CHANNEL_ARGUMENTS,
    MAX_METADATA_BYTES,
    REUSE_PORT,
    Health,
    age_arguments,
    enable_reflection,
    grpc_server,
)
from docpreview_gateway.rpc.streams import Streams
from tests.unit.rpc.conftest import serving, switchboard
from tests.unit.rpc.test_handlers import answer, error_of

(LIBRARY,) = Path(grpc.__file__).parent.glob("_cython/cygrpc*.so")
KNOWN = {found.decode() for found in re.findall(rb"grpc\.[a-z0-9_.]+(?=\0)", LIBRARY.read_bytes())}
V1 = "grpc.reflection.v1"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize(
    "name",
    [REUSE_PORT, "grpc.max_concurrent_streams", *(name for name, _ in (*CHANNEL_ARGUMENTS, *age_arguments(1, 1)))],
)
def test_every_channel_argument_is_known_to_grpc(name: str) -> None:
    """Misspelt names are silently ignored, so each is looked up in gRPC's library."""
    assert name in KNOWN


def test_an_unknown_channel_argument_is_not_found() -> None:
    """The test above can fail."""
    assert "grpc.max_concurrent_stream" not in KNOWN


def test_the_limit_of_replies_is_between_the_largest_reply_and_clients_default() -> None:
    """It must not reject a reply that the gateway allows."""
    assert MAX_REPLY_BYTES < dict(CHANNEL_ARGUMENTS)["grpc.max_send_message_length"] < 4 * 1024 * 1024


@pytest.mark.parametrize(("size", "taken"), [(MAX_METADATA_BYTES - 2000, True), (MAX_METADATA_BYTES + 2000, False)])
async def test_metadata_up_to_the_limit_always_passes_and_beyond_it_never(size: int, taken: bool) -> None:  # noqa: FBT001
    """There is no range in which gRPC rejects at random."""
    async with switchboard(answer) as board:
        calls = [board.get(metadata=(("x-filler", "x" * size),)) for _ in range(30)]
        codes = await asyncio.gather(*(call.code() for call in calls))
    assert set(codes) == {grpc.StatusCode.OK if taken else grpc.StatusCode.RESOURCE_EXHAUSTED}


async def test_a_second_server_on_the_port_fails() -> None:
    """Instead of taking half of the connections."""
    first, second = grpc_server(), grpc_server()
    port = first.add_insecure_port("127.0.0.1:0")
    with pytest.raises(RuntimeError):
        second.add_insecure_port(f"127.0.0.1:{port}")
    await first.stop(None)
    await second.stop(None)


async def test_each_service_reports_its_health_and_all_stop_serving_together() -> None:
    """Unknown services are NOT_FOUND."""
    server = grpc_server()
    health = Health()
    health.register(server, Streams())
    async with serving(server) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def status(name: str) -> object:
            return (await stub.Check(health_pb2.HealthCheckRequest(service=name))).status

        early = await error_of(stub.Check(health_pb2.HealthCheckRequest(service=SERVICE_NAMES[0])))
        assert early.code() == grpc.StatusCode.NOT_FOUND
        await health.serving()
        listed = (await stub.List(health_pb2.HealthListRequest())).statuses
        assert {name: each.status for name, each in listed.items()} == dict.fromkeys(("", *SERVICE_NAMES), SERVING)
        assert {await status(name) for name in ("", *SERVICE_NAMES)} == {SERVING}
        unknown = await error_of(stub.Check(health_pb2.HealthCheckRequest(service="docpreview.v1.Nothing")))
        assert unknown.code() == grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE_NAMES[0]))
        assert (await watch.read()).status == SERVING
        await health.leaving()
        assert (await watch.read()).status == NOT_SERVING
        assert {await status(name) for name in ("", *SERVICE_NAMES)} == {NOT_SERVING}
        await health.serving()
        assert await status("") == NOT_SERVING
        watch.cancel()


@pytest.mark.parametrize("enabled", [False, True])
async def test_reflection_is_served_only_when_it_is_enabled(enabled: bool) -> None:  # noqa: FBT001
    """Tools get the contract's descriptors."""
    server = grpc_server()
    if enabled:
        enable_reflection(server, Streams())
    async with serving(server) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        # The client fails with INTERNAL when it still sends while the refusal is there already.
        requests = [reflection_pb2.ServerReflectionRequest(list_services="")] if enabled else []
        call = stub.ServerReflectionInfo(iter(requests))
        if enabled:
            found = {service.name for service in (await call.read()).list_services_response.service}
            assert found == {
                *SERVICE_NAMES,
                "grpc.health.v1.Health",
                f"{V1}alpha.ServerReflection",
                f"{V1}.ServerReflection",
            }
        else:
            assert (await error_of(call)).code() == grpc.StatusCode.UNIMPLEMENTED
        call.cancel()


async def test_reflection_answers_by_the_name_of_v1_too_which_tools_try_first_and_describes_it() -> None:
    """No call of it counts as one of a method that does not exist."""
    unknown: list[str] = []
    server = grpc_server(on_unknown=unknown.append)
    enable_reflection(server, Streams())
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        *(
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol)
            for symbol in (SERVICE_NAMES[0], f"{V1}.ServerReflection", f"{V1}.ServerReflection.ServerReflectionInfo")
        ),
    ]
    async with serving(server) as channel:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            f"/{V1}.ServerReflection/ServerReflectionInfo"
        )
        replies = [
            reflection_pb2.ServerReflectionResponse.FromString(reply)
            async for reply in method(iter([request.SerializeToString() for request in asked]))
        ]
    assert SERVICE_NAMES[0] in {service.name for service in replies[0].list_services_response.service}
    for reply in replies[1:]:
        assert reply.file_descriptor_response.file_descriptor_proto, reply
    assert unknown == []
