"""The settings of the edge."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from docpreview_gateway.settings.edge import EdgeSettings
from docpreview_gateway.settings.loading import Settings

BASE = {
    "buckets": [{"name": "documents-1250000000", "region": "ap-guangzhou", "credentials": "main"}],
    "credentials": {"main": {"secret_id": "x", "secret_key": "y"}},
    "auth": "insecure",
}


def settings(listen: str, edge: dict[str, Any], **changes: Any) -> Settings:
    return Settings.model_validate(BASE | {"listen": listen, "edge": edge} | changes)


@pytest.mark.parametrize("listen", ["127.0.0.1:50050", "[::1]:50050", "localhost:50050"])
def test_a_gateway_behind_an_edge_listens_on_loopback(listen: str) -> None:
    """There only this machine can tell it certificates."""
    assert settings(listen, {"listen": "0.0.0.0:50051"}).edge.listen == "0.0.0.0:50051"


@pytest.mark.parametrize("listen", ["0.0.0.0:50050", "[::]:50050", "10.0.0.1:50050", "gateway.example:50050"])
def test_a_gateway_behind_an_edge_that_others_reach_is_refused(listen: str) -> None:
    """Without an edge the same address is fine."""
    with pytest.raises(ValidationError, match="is not on loopback, and the gateway behind"):
        settings(listen, {"listen": "0.0.0.0:50051"})
    assert settings(listen, {}).listen == listen


def test_a_policy_needs_tls_for_the_address_that_callers_reach() -> None:
    """The gateway's own loopback is no excuse."""
    policy = {"auth": {}, "policy": {"file": "policy.yaml"}}
    with pytest.raises(ValidationError, match="tokens and answers on a network need certificate and key"):
        settings("127.0.0.1:50050", {"listen": "0.0.0.0:50051"}, **policy)
    tls = {"certificate": "tls.crt", "key": "tls.key"}
    assert settings("127.0.0.1:50050", {"listen": "0.0.0.0:50051"}, **policy, tls=tls).tls.key is not None


@pytest.mark.parametrize(
    ("edge", "said"),
    [
        ({"listen": "gateway.example:50051"}, "IP:port"),
        ({"listen": "0.0.0.0:0"}, "must name a port"),
        ({"listen": "50051"}, "host:port"),
        ({"metrics_listen": "localhost:9465"}, "IP:port"),
        ({"admin_listen": "0.0.0.0:9901"}, "must be on loopback"),
        ({"max_connections": 0}, "greater than or equal to 1"),
    ],
)
def test_addresses_that_envoy_cannot_use_or_must_not_are_refused(edge: dict[str, Any], said: str) -> None:
    """With the form that it takes."""
    with pytest.raises(ValidationError, match=said):
        EdgeSettings.model_validate(edge)


def test_envoy_and_the_gateway_need_a_port_each() -> None:
    """All addresses of one port include loopback."""
    with pytest.raises(ValidationError, match="has the port of listen"):
        settings("127.0.0.1:50051", {"listen": "0.0.0.0:50051"})
