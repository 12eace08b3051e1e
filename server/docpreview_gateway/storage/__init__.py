"""Connections to Redis and SQLite."""
