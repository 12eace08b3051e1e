"""Completion callbacks: the cloud tells that a job has ended, and the gateway reads it at once instead of polling."""
