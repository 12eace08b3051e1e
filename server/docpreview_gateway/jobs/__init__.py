"""Reads of jobs: get, list, wait, watch, and page addresses."""
