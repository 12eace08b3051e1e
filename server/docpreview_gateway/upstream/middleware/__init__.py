"""Middleware: each module wraps an `Upstream` in another one."""
