"""Explicit-state models of creates and page budgets (docs/creates.md)."""
