"""Whether the cloud can be asked for a create at all, for `/readyz`.

Callers' own calls show it. Only while no bucket is known to work does the check ask the cloud itself: a gateway without
callers would not notice that the cloud is back, nor that it was never there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from docpreview_gateway.model.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from docpreview_gateway.creates.lists import JobHistory
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.upstream.cloud_clock import CloudTimes


log = structlog.get_logger("docpreview_gateway.creates")


class CloudCheck:
    """The state of the cloud over all buckets: it fails when no bucket works.

    A bucket works when the clock of its host is known, without which no create with `request_id` is signed, and
    `host_problem` of its name is empty.
    """

    def __init__(
        self, history: JobHistory, times: CloudTimes, buckets: Sequence[Bucket], host_problem: Callable[[str], str]
    ) -> None:
        self._history = history
        self._times = times
        self._buckets = buckets
        self._host_problem = host_problem
        self._turn = 0
        self._why = ""
        self._was_asked = False

    @property
    def problem(self) -> str:
        """Why no create can succeed, as of the last round; empty: one can, or nobody has asked the cloud yet."""
        return "" if self._works() else self._why

    @property
    def is_known(self) -> bool:
        """Whether a bucket is known to work, or the cloud was asked."""
        return self._was_asked or self._works()

    async def round(self) -> None:
        """If no bucket works, ask one of them, the next one in the next round. One short list is asked for."""
        if self._works():
            self._became("")
            return
        bucket = self._buckets[self._turn % len(self._buckets)]
        self._turn += 1
        try:
            await self._history.hear(bucket)
        except GatewayError as error:
            why = self._host_problem(bucket.name) or error.message
            self._became(f"no bucket of the cloud can be used; {bucket.name}: {why}")
        else:
            self._became("")

    def _became(self, why: str) -> None:
        before, self._why, self._was_asked = self._why, why, True
        if why and not before:
            log.error("no create can succeed, because no bucket of the cloud can be used", why=why)
        elif before and not why:
            log.info("a bucket of the cloud can be used again")

    def _works(self) -> bool:
        return any(
            self._times.heard(bucket.ci_host) is not None and not self._host_problem(bucket.name)
            for bucket in self._buckets
        )
