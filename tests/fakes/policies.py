"""Callers with rights, as a policy file makes them."""

from __future__ import annotations

from docpreview_gateway.model.callers import Caller
from docpreview_gateway.model.option_rules import OptionRules
from docpreview_gateway.model.policy import ANY_METHOD, BucketRights, Rights

Prefixes = tuple[str, ...]


def caller_of(
    name: str, inputs: dict[str, Prefixes], outputs: Prefixes = ("",), *, options: OptionRules | None = None
) -> Caller:
    """A caller that may call every method, with input prefixes by bucket and results in the same bucket."""
    buckets = {
        bucket: BucketRights(f"callers.{name}.buckets[{bucket}]", prefixes, {bucket: outputs})
        for bucket, prefixes in inputs.items()
    }
    rights = Rights(f"callers.{name}", frozenset({ANY_METHOD}), buckets, options or OptionRules())
    return Caller(name, rights=rights)
