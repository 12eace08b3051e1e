"""Which variables of the environment are settings: those of the schema, and no others."""

from __future__ import annotations

import pytest

from docpreview_gateway.settings.environment import unknown_variables
from docpreview_gateway.settings.loading import Settings

PORTS = ("", "_50051_TCP", "_50051_TCP_PROTO", "_50051_TCP_PORT", "_50051_TCP_ADDR")


def injected(service: str) -> list[str]:
    """What Kubernetes sets for a Service with the port `grpc`."""
    ends = ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_GRPC", *(f"PORT{port}" for port in PORTS)]
    return [f"{service}_{end}" for end in ends]


def unknown(*names: str) -> list[str]:
    return list(unknown_variables(names, Settings))


@pytest.mark.parametrize("service", ["DOCPREVIEW", "DOCPREVIEW_GATEWAY", "DOCPREVIEW_GATEWAY_HEADLESS"])
def test_the_variables_that_kubernetes_sets_for_a_service_are_left_alone(service: str) -> None:
    """Whichever Service with such a name stands in the namespace of the pod."""
    assert unknown(*injected(service)) == []


@pytest.mark.parametrize("name", ["DOCPREVIEW_PORT", "DOCPREVIEW_SERVICE_PORT", "DOCPREVIEW_GATEWAY_PORT"])
def test_a_variable_in_the_form_of_a_service_is_an_error_without_that_service(name: str) -> None:
    """It is a setting that somebody hoped for, such as of the port."""
    assert unknown(name, *injected("OTHER")) == [f"{name}: unknown setting"]


@pytest.mark.parametrize(
    "name",
    [
        "DOCPREVIEW_TARGET",
        "DOCPREVIEW_TOKEN",
        "DOCPREVIEW_BUCKET",
        "DOCPREVIEW_EMULATOR_SECRET_KEY",
        "DOCPREVIEW_CONFIG",
    ],
)
def test_the_variables_of_clients_and_emulator_are_left_alone(name: str) -> None:
    """They may run in the same environment."""
    assert unknown(name) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DOCPREVIEW_LISEN", "DOCPREVIEW_LISTEN"),
        ("docpreview_lissten", "DOCPREVIEW_LISTEN"),
        ("DOCPREVIEW_UPSTREM__ENDPOINT", "DOCPREVIEW_UPSTREAM__ENDPOINT"),
        ("DOCPREVIEW_UPSTREAM_ENDPOINT", "DOCPREVIEW_UPSTREAM__ENDPOINT"),
        ("DOCPREVIEW_SHARED_STATE__NAMESPAC", "DOCPREVIEW_SHARED_STATE__NAMESPACE"),
        ("DOCPREVIEW_CONFG", "DOCPREVIEW_CONFIG"),
    ],
)
def test_a_misspelt_variable_is_an_error_with_the_one_that_was_meant(name: str, meant: str) -> None:
    """Also beside the variables of a Service."""
    assert unknown(name, *injected("DOCPREVIEW")) == [f"{name}: unknown setting; did you mean {meant}?"]


def test_a_variable_like_no_setting_is_an_error_without_a_guess() -> None:
    """Other programs' variables without the prefix are none of ours."""
    assert unknown("DOCPREVIEW_FRUIT", "PATH", "LISTEN") == ["DOCPREVIEW_FRUIT: unknown setting"]
