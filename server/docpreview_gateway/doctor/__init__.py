"""Checks a configuration and its surroundings without serving."""
