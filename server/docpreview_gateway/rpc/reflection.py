"""gRPC server reflection for callers with the right to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import structlog

from docpreview_gateway.model.errors import GatewayError, NotPermitted
from docpreview_gateway.model.policy import REFLECTION
from docpreview_gateway.rpc.callers import authorize, identified, metadata_of
from docpreview_gateway.rpc.statuses import DETAILS_KEY, rich_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from docpreview_gateway.access.ports import Authentication
    from docpreview_gateway.model.callers import Caller
    from docpreview_gateway.rpc.certificates import CertificateOf

_PATH = f".{REFLECTION}/"

log = structlog.get_logger("docpreview_gateway.rpc")


class ReflectionGuard(grpc.aio.ServerInterceptor):
    """Interceptor that authenticates and authorizes reflection. Other methods have their wrapper, health stays open."""

    def __init__(self, authentication: Authentication, certificate_of: CertificateOf) -> None:
        self._authentication = authentication
        self._certificate_of = certificate_of

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler; that of reflection behind the check of its caller."""
        handler = await continuation(handler_call_details)
        if _PATH not in handler_call_details.method or handler is None or handler.stream_stream is None:
            return handler
        answer: Any = handler.stream_stream

        async def guarded(
            requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]
        ) -> AsyncIterator[Any]:
            try:
                caller = await identified(self._authentication, self._certificate_of, context, metadata_of(context))
                _authorize(caller)
            except GatewayError as error:
                status = rich_status(error, "")
                await context.abort(status.code, status.message, ((DETAILS_KEY, status.details),))
            async for reply in answer(requests, context):
                yield reply

        return grpc.stream_stream_rpc_method_handler(guarded, handler.request_deserializer, handler.response_serializer)


def _authorize(caller: Caller) -> None:
    """NOT_PERMITTED, which is logged here: reflection is no method of ours, and has no line in the log of calls."""
    try:
        authorize(caller, REFLECTION)
    except NotPermitted as error:
        log.info("reflection is not permitted", caller=caller.name, rule=error.rule)
        raise
