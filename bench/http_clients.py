"""The HTTP clients that could carry the gateway's requests, each in a gateway of its own, as ratios in one run.

Uncached GetPreviewJob, by turns; what the contract says about each is in docs/adr/0001. `make http-clients` installs
those that are no part of the product.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from typing import TYPE_CHECKING

from ratios import Comparison, Ratio, table
from run import measure, report
from subjects import (
    CHECKOUT,
    GET,
    Subject,
    command_of,
    grpc_caller,
    is_about,
    job_requests,
    line_of,
    start_bare,
    started,
)

if TYPE_CHECKING:
    from contextlib import ExitStack
    from typing import Any

CANDIDATES = ("builtin", "aiohttp", "pyreqwest", "httpx2", "httpx")


def start(stack: ExitStack, upstream_port: str, core: int) -> list[tuple[Subject, ...]]:
    """The bare proxy, and a gateway for each client."""
    subjects = start_bare(stack, upstream_port, core)[1:]
    for name in CANDIDATES:
        process = stack.enter_context(started([*command_of("http_clients.py", "serve", name), upstream_port], core))
        call = grpc_caller(int(line_of(process)), GET, job_requests(), is_about)
        subjects.append(Subject(name, process.pid, call))
    return [(subject,) for subject in subjects]


def serve(name: str, upstream_port: str) -> None:
    """A gateway whose requests go through the client of this name."""
    sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "build" / "http-clients")]
    from tests.contract.http.candidates import candidate  # noqa: PLC0415

    from docpreview_gateway.wiring import event_loop, upstream  # noqa: PLC0415
    from gateway_server import main  # noqa: PLC0415 - the parent has no use for a gateway

    def make(*, proxy: None, **settings: Any) -> Any:  # noqa: ANN401, ARG001 - refused clients know no proxy
        return candidate(name)(**settings)

    vars(upstream)["BuiltinTransport"] = make  # a refused client is no choice of the settings
    options = argparse.Namespace(upstream_port=upstream_port, token_hash=None, callbacks=False, poll=None)
    event_loop.run(main(options))


def compare() -> None:
    """Six rounds of a second each."""
    subjects = list(itertools.chain(*measure(start, 6, 1.0)))
    report(subjects)
    named = {subject.name: subject for subject in subjects}
    print()
    print(
        table(
            [
                Comparison(name, peer, Ratio.of(named[name].rates, named[peer].rates))
                for peer in ("grpc.aio + aiohttp", "aiohttp")
                for name in CANDIDATES
                if name != peer
            ]
        )
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(*sys.argv[2:])
    else:
        compare()
