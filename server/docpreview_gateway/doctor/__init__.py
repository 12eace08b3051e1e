"""Diagnostics of a configuration and its connection to the cloud, without serving."""
