"""Where a call's client certificate comes from: its own connection's TLS, or the edge before the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from docpreview_gateway.access.forwarded_certificate import HEADER, forwarded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import grpc

    Metadata = Iterable[tuple[str, str | bytes]]
    CertificateOf = Callable[[grpc.aio.ServicerContext[Any, Any], Metadata], bytes]


def from_tls(context: grpc.aio.ServicerContext[Any, Any], _metadata: Metadata) -> bytes:
    """The certificate of the connection, as PEM; empty without one."""
    (pem,) = context.auth_context().get("x509_pem_cert") or (b"",)
    return pem


def from_edge(_context: grpc.aio.ServicerContext[Any, Any], metadata: Metadata) -> bytes:
    """The certificate that the edge has verified, as PEM; empty without one. Unauthenticated when it is malformed."""
    return forwarded([value for key, value in metadata if key == HEADER])
