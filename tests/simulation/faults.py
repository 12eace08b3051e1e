"""Faults that are decided in advance: which kind strikes at which opportunity."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Fault:
    """One fault. It strikes at the opportunity after `passes` others of its kind; `value` is how far or how long."""

    kind: str
    passes: int = 0
    value: float = 0.0


class Faults:
    """The faults of a world that have not struck."""

    def __init__(self, faults: list[Fault]) -> None:
        self._waiting: dict[str, list[Fault]] = {}
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """One more."""
        self._waiting.setdefault(fault.kind, []).append(Fault(fault.kind, fault.passes, fault.value))

    def strike(self, kind: str) -> Fault | None:
        """The fault of this kind that strikes now. Each call is an opportunity."""
        if kind not in self._waiting:
            return None
        for fault in self._waiting[kind]:
            if fault.passes == 0:
                self._waiting[kind].remove(fault)
                return fault
            fault.passes -= 1
        return None

    def end(self) -> None:
        """From now on nothing fails."""
        self._waiting.clear()
