"""Uploads of documents by callers without cloud keys."""
