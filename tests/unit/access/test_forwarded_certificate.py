"""The header of the edge: the one element that Envoy writes, or no identity at all."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from docpreview_gateway.access.directory import Unauthenticated
from docpreview_gateway.access.forwarded_certificate import forwarded

PEM = b"-----BEGIN CERTIFICATE-----\nMIIB+/=\n-----END CERTIFICATE-----\n"
HASH = "Hash=" + "0a" * 32
CERT = f'Cert="{quote(PEM, safe="")}"'


def test_the_certificate_is_decoded_from_the_one_element() -> None:
    """With the names of the gateway's own certificate before it, if it has some."""
    assert forwarded([f"{HASH};{CERT}"]) == PEM
    assert forwarded([f"By=spiffe://corp.example/gateway;{HASH};{CERT}"]) == PEM
    assert forwarded([f"By=https://a.example/;By=spiffe://b;{HASH};{CERT}"]) == PEM


def test_without_the_header_there_is_no_certificate() -> None:
    """A caller with a token has none."""
    assert forwarded([]) == b""


@pytest.mark.parametrize(
    "value",
    [
        "",
        HASH,
        CERT,
        f"{CERT};{HASH}",
        f"{HASH};{CERT},{HASH};{CERT}",
        f"{HASH};{CERT};{CERT}",
        f"{HASH};{CERT};Chain={CERT}",
        f'{HASH};{CERT};URI="spiffe://x"',
        f"{HASH};Cert=x",
        f'{HASH};Cert=""',
        f'{HASH};Cert="a"b"',
        f"{HASH.upper()};{CERT}",
        f" {HASH};{CERT}",
        f"{HASH};{CERT}\n",
        f'{HASH};Cert="{PEM.decode()}"',
        f'By="a;{HASH};{CERT}',
        f'{HASH};Cert="{"x" * 16385}"',
    ],
)
def test_whatever_the_edge_does_not_write_is_refused(value: str) -> None:
    """Nothing of it is taken."""
    with pytest.raises(Unauthenticated) as refused:
        forwarded([value])
    assert refused.value.why == "x-forwarded-client-cert is not what the edge writes"


@pytest.mark.parametrize("values", [[f"{HASH};{CERT}"] * 2, [f"{HASH};{CERT}", ""], [b"x"]])
def test_a_repeated_or_binary_header_is_refused(values: list[str | bytes]) -> None:
    """Envoy writes it once, as text."""
    with pytest.raises(Unauthenticated) as refused:
        forwarded(values)
    assert refused.value.why == "x-forwarded-client-cert stands more than once, or is not text"
