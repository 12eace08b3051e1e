"""Connections to Redis and SQLite, and background tasks."""
