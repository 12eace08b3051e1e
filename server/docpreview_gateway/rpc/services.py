"""Routes of the contract: the use-case of each method, and how long its calls may take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from google.protobuf.message_factory import GetMessageClass

from docpreview_gateway.creates.audit import audited
from docpreview_gateway.model.call import Method
from docpreview_gateway.model.contract import SERVICE_NAMES, SERVICES
from docpreview_gateway.model.validation import MAX_WAIT_SECONDS
from docpreview_gateway.rpc.handlers import Handlers, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import grpc

    from docpreview_gateway.creates.ports import AuditLog
    from docpreview_gateway.creates.usage import PageUsages
    from docpreview_gateway.jobs.preview_jobs import PreviewJobs
    from docpreview_gateway.jobs.preview_queues import PreviewQueues
    from docpreview_gateway.rpc.streams import Streams
    from docpreview_gateway.uploads.uploads import Uploads

LONGEST_UNARY = 60.0
"""Most seconds that a call may take, whatever its deadline; waits and watches have longer limits."""

_MARGIN = 10.0


def routes(  # noqa: PLR0913 - the use-cases of all services
    jobs: PreviewJobs,
    queues: PreviewQueues,
    usages: PageUsages,
    uploads: Uploads,
    audit: AuditLog,
    *,
    longest_stream: float,
) -> list[Route[Any]]:
    """A route for every method of the contract. KeyError, at start-up, for one without use-case."""
    longest = {"WaitPreviewJob": MAX_WAIT_SECONDS + _MARGIN} | dict.fromkeys(
        ("WatchPreviewJob", "WatchPreviewJobs"), longest_stream + _MARGIN
    )
    use_cases: Mapping[str, Callable[..., Any]] = {
        "CreatePreviewJob": audited(jobs.create, audit),
        "GetPreviewJob": jobs.get,
        "BatchGetPreviewJobs": jobs.batch_get,
        "ListPreviewJobs": jobs.list_jobs,
        "WaitPreviewJob": jobs.wait,
        "WatchPreviewJob": jobs.watch,
        "WatchPreviewJobs": jobs.watch_many,
        "ListPreviewQueues": queues.list_queues,
        "GetUsage": usages.get_usage,
        "CreateUpload": uploads.create,
        "CompleteUpload": uploads.complete,
        "AbortUpload": uploads.abort,
    }
    fast_paths: Mapping[str, Callable[..., bytes | None]] = {
        "GetPreviewJob": jobs.cached_get,
        "BatchGetPreviewJobs": jobs.cached_batch,
    }
    return [
        Route(
            _method(service.full_name, descriptor),
            GetMessageClass(descriptor.input_type),
            use_cases[descriptor.name],
            longest.get(descriptor.name, LONGEST_UNARY),
            waits=descriptor.name in longest,
            fast_path=fast_paths.get(descriptor.name),
        )
        for service in SERVICES
        for descriptor in service.methods
    ]


def _method(service: str, descriptor: Any) -> Method:  # noqa: ANN401 - protobuf's descriptors have two implementations
    kind: Literal["unary", "server_stream"] = "server_stream" if descriptor.server_streaming else "unary"
    return Method(service, descriptor.name, kind)


def register(server: grpc.aio.Server, handlers: Handlers, all_routes: list[Route[Any]], streams: Streams) -> None:
    """Serve the routes on `server`."""
    for service in SERVICE_NAMES:
        methods = {
            route.method.name: streams.guarded(handlers.handler(route))
            for route in all_routes
            if route.method.service == service
        }
        server.add_registered_method_handlers(service, methods)
