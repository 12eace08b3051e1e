"""Connections to Redis and SQLite, background tasks and deadlines."""
