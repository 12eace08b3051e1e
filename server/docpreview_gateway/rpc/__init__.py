"""The only layer that knows gRPC: methods, the one wrapper around them, and the table from errors to statuses."""
