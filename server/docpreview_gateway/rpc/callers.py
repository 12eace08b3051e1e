"""Who makes a call, and whether the policy lets this caller make it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from docpreview_gateway.access.ports import Evidence
from docpreview_gateway.model.policy import require

if TYPE_CHECKING:
    import grpc

    from docpreview_gateway.access.ports import Authentication
    from docpreview_gateway.model.callers import Caller
    from docpreview_gateway.rpc.certificates import CertificateOf

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]


def metadata_of(context: grpc.aio.ServicerContext[Any, Any]) -> Metadata:
    """Metadata of a call. gRPC converts it at every access: read it once."""
    return context.invocation_metadata() or ()


async def identified(
    authentication: Authentication,
    certificate_of: CertificateOf,
    context: grpc.aio.ServicerContext[Any, Any],
    metadata: Metadata,
) -> Caller:
    """The caller of a call with this metadata. Unauthenticated; IDENTITY_UNAVAILABLE."""
    authorization = [value if isinstance(value, str) else "" for key, value in metadata if key == "authorization"]
    return await authentication.caller(Evidence(tuple(authorization), partial(certificate_of, context, metadata)))


def authorize(caller: Caller, method: str) -> None:
    """NOT_PERMITTED without the right to the method of this name."""
    if caller.rights is not None and not caller.rights.has_method(method):
        require(caller.rights.of_method(method))
