"""gRPC: routes, the wrapper around all handlers, the mapping of errors to statuses, the server."""
