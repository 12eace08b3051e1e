"""Async client of the docpreview gateway."""
