"""Envoy's configuration from the gateway's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from docpreview_gateway.model.contract import SERVICES
from docpreview_gateway.rpc.server import MOST_STREAMS_OF_EDGE
from docpreview_gateway.settings.loading import Settings
from docpreview_gateway.wiring.edge_config import EdgeError, arguments, files

FOLDER = Path("/etc/docpreview/edge")
TLS = {"certificate": "/tls/tls.crt", "key": "/tls/tls.key"}


def settings(**changes: Any) -> Settings:
    values = {
        "listen": "127.0.0.1:50050",
        "edge": {"listen": "0.0.0.0:50051"},
        "buckets": [{"name": "documents-1250000000", "region": "ap-guangzhou", "credentials": "main"}],
        "credentials": {"main": {"secret_id": "x", "secret_key": "y"}},
        "auth": "insecure",
    }
    return Settings.model_validate(values | changes)


def bootstrap(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(files(settings(**changes), FOLDER)["envoy.yaml"])
    return found


def callers(**changes: Any) -> dict[str, Any]:
    """The configuration of callers' connections."""
    (chain,) = bootstrap(**changes)["static_resources"]["listeners"][0]["filter_chains"]
    found: dict[str, Any] = chain["filters"][0]["typed_config"]
    return found


def routes(**changes: Any) -> list[dict[str, Any]]:
    (host,) = callers(**changes)["route_config"]["virtual_hosts"]
    found: list[dict[str, Any]] = host["routes"]
    return found


def paths(**changes: Any) -> dict[str, str]:
    """Each path and the cluster that it leads to."""
    return {found["match"]["path"]: found["route"]["cluster"] for found in routes(**changes)[:-1]}


def clusters(**changes: Any) -> dict[str, dict[str, Any]]:
    return {found["name"]: found for found in bootstrap(**changes)["static_resources"]["clusters"]}


def seconds(value: str) -> float:
    return float(value.removesuffix("s"))


def test_the_paths_are_the_methods_of_the_contract_health_and_nothing_else() -> None:
    """Each one exactly, query included; the rest is answered by Envoy."""
    methods = {f"/{service.full_name}/{method.name}": "gateway" for service in SERVICES for method in service.methods}
    health = {f"/grpc.health.v1.Health/{name}": "health" for name in ("Check", "Watch")}
    assert paths() == methods | health
    for found in routes()[:-1]:
        only = {":path": found["match"]["path"], ":method": "POST"}
        assert {each["name"]: each["string_match"]["exact"] for each in found["match"]["headers"]} == only
    assert routes()[-1]["match"] == {"prefix": "/"}
    assert routes()[-1]["direct_response"]["status"] == 404


def test_reflection_has_paths_when_it_is_on() -> None:
    """Of both versions that tools ask for."""
    found = {f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")}
    assert paths(reflection=True).keys() - paths().keys() == found


def test_no_route_repeats_a_call() -> None:
    """A create that is sent twice is billed twice."""
    assert "retry_policy" not in str(bootstrap())
    assert clusters()["gateway"]["circuit_breakers"]["thresholds"][0]["max_retries"] == 0


@pytest.mark.parametrize("watch", [{}, {"heartbeat_seconds": 300, "max_stream_seconds": 3600}])
def test_limits_of_time_lie_above_the_gateways_own(watch: dict[str, float]) -> None:
    """Silence above the heartbeat and the longest wait, a call above the longest watch."""
    made = settings(watch=watch)
    assert seconds(callers(watch=watch)["stream_idle_timeout"]) > max(300, made.watch.heartbeat_seconds)
    for found in routes(watch=watch)[:-1]:
        longest = seconds(found["route"]["max_stream_duration"]["max_stream_duration"])
        assert longest > max(300, made.watch.max_stream_seconds)


def test_limits_of_numbers_lie_above_the_gateways_own_for_every_worker() -> None:
    """Its refusals have reasons."""
    limits, watch = {"max_calls": 100}, {"max_watches": 5000}
    thresholds = clusters(limits=limits, watch=watch, workers=3)["gateway"]["circuit_breakers"]["thresholds"][0]
    assert thresholds["max_requests"] > 3 * 5100
    assert thresholds["max_pending_requests"] > 3 * 5100
    assert thresholds["max_connections"] == 3000


def test_watches_of_health_cannot_take_the_place_of_calls() -> None:
    """They need no token; a cluster of their own bounds them."""
    assert (
        clusters(edge={"listen": "0.0.0.0:1", "max_connections": 7})["health"]["circuit_breakers"]["thresholds"][0][
            "max_requests"
        ]
        == 7
    )


def test_several_workers_get_connections_of_few_calls() -> None:
    """Or one of them would have them all."""

    def streams(workers: int) -> int:
        options = clusters(workers=workers)["gateway"]["typed_extension_protocol_options"]
        (found,) = options.values()
        number: int = found["explicit_http_config"]["http2_protocol_options"]["max_concurrent_streams"]
        return number

    assert streams(1) == 100
    assert streams(2) < 100
    # The gateway counts streams that have ended for a while.
    assert 5 * streams(1) <= MOST_STREAMS_OF_EDGE


def test_memory_is_bounded_by_windows_whole_messages_and_the_heap() -> None:
    """The calls that hold most of the heap end before any call is refused."""
    http2 = callers()["http2_protocol_options"]
    assert (http2["initial_stream_window_size"], http2["initial_connection_window_size"]) == (65536, 1024 * 1024)
    (buffer,) = [found for found in callers()["http_filters"] if found["name"] == "envoy.filters.http.buffer"]
    assert 1024 * 1024 < buffer["typed_config"]["max_request_bytes"] < 1.1 * 1024 * 1024
    overload = bootstrap(edge={"listen": "0.0.0.0:1", "max_heap_bytes": 2**26})["overload_manager"]
    assert overload["resource_monitors"][1]["typed_config"]["max_heap_size_bytes"] == 2**26
    of_heap = {action["name"].rpartition(".")[2]: action["triggers"][0] for action in overload["actions"]}
    ends, refuses = of_heap["reset_high_memory_stream"], of_heap["stop_accepting_requests"]
    assert ends["scaled"]["saturation_threshold"] < refuses["threshold"]["value"]


def test_connections_without_a_call_make_room_before_all_are_taken() -> None:
    """And those whose handshake does not end. Silent ones are pinged."""
    (action,) = (found for found in bootstrap()["overload_manager"]["actions"] if "reduce_timeouts" in found["name"])
    timers = {found["timer"]: found["min_timeout"] for found in action["typed_config"]["timer_scale_factors"]}
    assert timers == {"HTTP_DOWNSTREAM_CONNECTION_IDLE": "2s", "TRANSPORT_SOCKET_CONNECT": "2s"}
    assert action["triggers"][0]["name"] == bootstrap()["overload_manager"]["resource_monitors"][0]["name"]
    assert action["triggers"][0]["scaled"]["saturation_threshold"] < 1
    assert callers()["http2_protocol_options"]["connection_keepalive"] == {"interval": "60s", "timeout": "20s"}


def test_certificates_of_callers_are_sanitised_with_and_without_tls() -> None:
    """A header from outside never reaches the gateway."""
    for changes in ({}, {"tls": TLS}):
        assert callers(**changes)["forward_client_cert_details"] == "SANITIZE_SET"
        assert callers(**changes)["set_current_client_cert_details"] == {"cert": True}


def test_tls_files_are_watched_and_client_certificates_optional() -> None:
    """Named in files of their own, since Envoy reads those that it names itself only once."""
    made = settings(tls=TLS | {"client_ca": "/ca/ca.crt"})
    found = files(made, FOLDER)
    (resource,) = yaml.safe_load(found["certificate.yaml"])["resources"]
    assert resource["tls_certificate"]["watched_directory"] == {"path": "/tls"}
    (resource,) = yaml.safe_load(found["authorities.yaml"])["resources"]
    assert resource["validation_context"]["watched_directory"] == {"path": "/ca"}
    (chain,) = yaml.safe_load(found["envoy.yaml"])["static_resources"]["listeners"][0]["filter_chains"]
    tls = chain["transport_socket"]["typed_config"]
    assert tls["require_client_certificate"] is False
    assert {"certificate.yaml", "authorities.yaml"} - files(settings(tls=TLS), FOLDER).keys() == {"authorities.yaml"}
    assert "transport_socket" not in bootstrap()["static_resources"]["listeners"][0]["filter_chains"][0]


def test_only_named_origins_get_cors() -> None:
    """Without any the filter is not there."""
    assert "cors" not in str(bootstrap())
    found = callers(edge={"listen": "0.0.0.0:1", "origins": ["https://app.example"]})
    (host,) = found["route_config"]["virtual_hosts"]
    (policy,) = host["typed_per_filter_config"].values()
    assert policy["allow_origin_string_match"] == [{"exact": "https://app.example"}]


@pytest.mark.parametrize(
    ("address", "socket"),
    [
        ("0.0.0.0:1", {"address": "0.0.0.0", "port_value": 1}),  # noqa: S104 - nothing listens
        ("[::]:2", {"address": "::", "port_value": 2, "ipv4_compat": True}),
        ("[::1]:3", {"address": "::1", "port_value": 3}),
    ],
)
def test_addresses_are_envoys_sockets(address: str, socket: dict[str, Any]) -> None:
    """Of both families."""
    listener = bootstrap(edge={"listen": address})["static_resources"]["listeners"][0]
    assert listener["address"]["socket_address"] == socket


def test_the_listener_of_metrics_does_not_wait_for_connections_of_callers() -> None:
    """And takes a few of its own."""
    listener = bootstrap()["static_resources"]["listeners"][1]
    assert listener["ignore_global_conn_limit"] is True
    assert listener["filter_chains"][0]["filters"][0]["typed_config"]["max_connections"] == 50


def test_the_descriptors_have_the_contract_and_error_details_each_file_after_its_imports() -> None:
    """As Envoy's pool takes them."""
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(files(settings(), FOLDER)["docpreview.binpb"]).file:
        pool.Add(file)
    for service in SERVICES:
        assert pool.FindServiceByName(service.full_name)
    assert pool.FindMessageTypeByName("google.rpc.BadRequest")


@pytest.mark.parametrize(("delay", "drain"), [(0, "1"), (0.2, "1"), (5, "5"), (7.5, "8")])
def test_envoy_drains_as_long_as_the_gateway_delays(delay: float, drain: str) -> None:
    """Whole seconds, at least one."""
    assert arguments(settings(drain={"delay_seconds": delay}), FOLDER)[-2:] == ("--drain-time-s", drain)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"edge": {}}, "edge.listen: is not set"),
        ({"listen": "127.0.0.1:0"}, "listen: must name a port"),
        ({"tls": {"certificate": "/a/tls.crt", "key": "/b/tls.key"}}, "tls.key: must be in the folder"),
    ],
)
def test_settings_without_a_usable_edge_say_what_to_set(changes: dict[str, Any], said: str) -> None:
    """The command prints it."""
    with pytest.raises(EdgeError, match=said):
        files(settings(**changes), FOLDER)
