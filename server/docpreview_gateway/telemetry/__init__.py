"""Metrics, logs, traces, and the admin port with its page."""
