"""What `/readyz` says: whether everything that callers may ask for can succeed, by dependency.

The convention is that of Kubernetes' own API server: `?verbose` names all dependencies, `?exclude=NAME` leaves one out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

SERVER = "docpreview-gateway"
"""The header `Server` of every answer of the admin port, by which a probe knows a gateway."""

LISTEN = "Docpreview-Listen"
"""The header of the same answers that has the setting `listen` of the gateway."""


class Dependency(NamedTuple):
    """A dependency of the process. `problem` says what is wrong with it; empty: nothing."""

    problem: str = ""
    blocks: bool = True
    """Whether creates with `request_id` cannot succeed because of the problem; else only some of them fail."""
    is_known: bool = True
    """Whether anything is known of it: in the first seconds of a process nobody may have asked the cloud."""


class Readiness(NamedTuple):
    """The HTTP status and the text of an answer of `/readyz`."""

    status: int
    text: str


def not_known() -> dict[str, Dependency]:
    """What is said before anything is known: nothing is wrong."""
    return {"cloud": Dependency(is_known=False), "records": Dependency(is_known=False)}


def why_unready(
    reason: str | None, dependencies: Mapping[str, Dependency], exclude: Collection[str] = ()
) -> str | None:
    """Why the process is not ready, in one line for each cause; None when it is.

    `reason` is that of the process as a whole, such as "starting"; it cannot be excluded.
    """
    if reason is not None:
        return reason
    found = [
        f"{name} failing: {each.problem}"
        for name, each in sorted(dependencies.items())
        if each.problem and each.blocks and name not in exclude
    ]
    return "\n".join(found) or None


def readiness(
    reason: str | None, dependencies: Mapping[str, Dependency], *, exclude: Collection[str] = (), verbose: bool = False
) -> Readiness:
    """The answer: 200 when ready, 503 when not, 400 when `exclude` has a name that no dependency has."""
    if unknown := sorted(set(exclude) - dependencies.keys()):
        known = ", ".join(sorted(dependencies)) or "none"
        return Readiness(400, f"exclude: there is no dependency {', '.join(unknown)}; there are: {known}\n")
    why = why_unready(reason, dependencies, exclude)
    status = 200 if why is None else 503
    if not verbose:
        return Readiness(status, f"{why or 'ready'}\n")
    lines = [reason or ("ready" if why is None else "not ready")]
    for name, each in sorted(dependencies.items()):
        said = f"{name} ok" if each.is_known else f"{name} not known yet"
        said = f"{name} failing: {each.problem}" if each.problem else said
        lines.append(f"{said} (excluded)" if name in exclude else said)
    return Readiness(status, "\n".join(lines) + "\n")
