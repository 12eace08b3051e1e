"""gRPC's reflection, for callers whose rights name it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.model.policy import REFLECTION
from docpreview_gateway.rpc.handlers import metadata_of, permitted
from docpreview_gateway.rpc.statuses import DETAILS_KEY, rich_status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from docpreview_gateway.access.ports import Authentication

_PATH = f".{REFLECTION}/"


class ReflectionGuard(grpc.aio.ServerInterceptor):
    """Asks who wants to see the contract. Other methods have their own wrapper, and health stays open."""

    def __init__(self, authentication: Authentication) -> None:
        self._authentication = authentication

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler itself, behind the question when it is reflection's."""
        handler = await continuation(handler_call_details)
        if _PATH not in handler_call_details.method or handler is None or handler.stream_stream is None:
            return handler
        answer: Any = handler.stream_stream

        async def guarded(
            requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]
        ) -> AsyncIterator[Any]:
            try:
                await permitted(self._authentication, context, metadata_of(context), REFLECTION)
            except GatewayError as error:
                status = rich_status(error, "")
                await context.abort(status.code, status.message, ((DETAILS_KEY, status.details),))
            async for reply in answer(requests, context):
                yield reply

        return grpc.stream_stream_rpc_method_handler(guarded, handler.request_deserializer, handler.response_serializer)
