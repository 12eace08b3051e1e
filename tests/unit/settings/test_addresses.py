"""Which addresses take each other's port."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from docpreview_gateway.settings.addresses import port_mistakes
from docpreview_gateway.settings.sections import CallbackSettings


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051"),
        ("0.0.0.0:50051", "127.0.0.1:50051"),
        ("127.0.0.1:50051", "0.0.0.0:50051"),
        ("[::]:50051", "10.0.0.1:50051"),
        ("localhost:50051", "127.0.0.1:50051"),
        ("0.0.0.0:50051", "gateway.example:50051"),
    ],
)
def test_a_port_that_two_settings_name_is_a_mistake_with_a_free_one(one: str, other: str) -> None:
    """The second of them is the one to change."""
    (line,) = port_mistakes({"listen": one, "admin_listen": other})
    assert line == "admin_listen: has the port of listen, 50051; give it one of its own, such as 50052"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("127.0.0.1:50051", "127.0.0.1:9464"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("10.0.0.1:50051", "127.0.0.1:50051"),
        ("0.0.0.0:50051", "[::1]:50051"),
    ],
)
def test_addresses_that_do_not_overlap_are_no_mistake(one: str, other: str) -> None:
    """Port 0 is a free one each time."""
    assert list(port_mistakes({"listen": one, "admin_listen": other})) == []


def test_the_port_that_is_proposed_is_named_by_no_other_setting() -> None:
    lines = list(port_mistakes({"a": "127.0.0.1:1", "b": "127.0.0.1:1", "c": "127.0.0.1:2"}))
    assert lines == ["b: has the port of a, 1; give it one of its own, such as 3"]


@pytest.mark.parametrize("address", ["[fe80::1%eth0]:8090", "[::1%1]:0"])
def test_an_address_with_a_zone_is_refused_with_what_to_write(address: str) -> None:
    with pytest.raises(ValidationError, match=r"IPv6 address without a zone \(%\): take \[::\] for all addresses"):
        CallbackSettings(public_url="https://previews.example.com/cb", listen=address)


@pytest.mark.parametrize("host", ["[fe80::1%eth0]", "[fe80::1%25eth0]"])
def test_a_public_address_with_a_zone_is_no_address(host: str) -> None:
    """No other machine knows the zones of this one."""
    with pytest.raises(ValidationError, match="invalid IPv6 address"):
        CallbackSettings(public_url=f"http://{host}/cb", listen="[::]:8090")
