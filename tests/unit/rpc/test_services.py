"""Routes: the use-case of each method of the contract."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from docpreview_gateway.model.contract import SERVICES
from docpreview_gateway.rpc.handlers import Handlers
from docpreview_gateway.rpc.server import grpc_server
from docpreview_gateway.rpc.services import LONGEST_UNARY, register, routes
from docpreview_gateway.rpc.streams import Streams
from tests.fakes.telemetry import FakeAuditLog, FakeTelemetry
from tests.unit.conftest import Office
from tests.unit.rpc.conftest import error_info, serving
from tests.unit.rpc.test_handlers import error_of


def all_routes(office: Office) -> list[Any]:
    usages = office.recorded.usages
    return routes(office.jobs, office.queues, usages, office.uploads, FakeAuditLog(), longest_stream=300.0)


async def test_every_method_of_the_contract_has_a_route_of_its_type_and_form() -> None:
    """Its request type, unary or stream."""
    found = {(route.method.service, route.method.name): route for route in all_routes(Office())}
    methods = [method for service in SERVICES for method in service.methods]
    assert len(found) == len(methods) == 12
    for method in methods:
        route = found[method.containing_service.full_name, method.name]
        assert route.request_type.DESCRIPTOR is method.input_type
        assert (route.method.kind == "server_stream") == method.server_streaming


async def test_reads_may_take_a_minute_and_waits_a_little_over_their_limit() -> None:
    """Creates have a minute, too. The margin lets waits and watches end by themselves."""
    longest = {route.method.name: route.longest for route in all_routes(Office())}
    waits = ("WaitPreviewJob", "WatchPreviewJob", "WatchPreviewJobs")
    assert [longest.pop(name) for name in waits] == [310.0] * 3
    assert set(longest.values()) == {LONGEST_UNARY}


async def test_every_contract_method_answers_and_any_other_is_unimplemented() -> None:
    """An empty request is answered, as invalid by all but GetUsage."""
    server = grpc_server()
    found = all_routes(Office())
    register(server, Handlers(FakeTelemetry()), found, Streams())
    async with serving(server) as channel:
        for route in found:
            if route.method.name == "GetUsage":  # its empty request is a good one
                continue
            path = f"/{route.method.service}/{route.method.name}"
            make: Any = channel.unary_unary if route.method.kind == "unary" else channel.unary_stream
            assert error_info(await error_of(make(path)(b""))).reason == "INVALID_REQUEST"
        for path in ("/docpreview.v1.PreviewJobService/Nothing", "/docpreview.v1.Nothing/GetPreviewJob"):
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
            assert (await error_of(method(b""))).code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("missing", ["jobs", "queues", "usages", "uploads"])
async def test_a_method_without_a_use_case_fails_at_start_up(missing: str) -> None:
    """The gateway does not start."""
    office = Office()
    setattr(office.recorded if missing == "usages" else office, missing, object())
    with pytest.raises(AttributeError):
        all_routes(office)
