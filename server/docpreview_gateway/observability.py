"""Puts together what watches the gateway: metrics and the log of calls."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import grpc
from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    CollectorRegistry,
)

from docpreview_gateway.adapters.call_log import CallLog
from docpreview_gateway.adapters.prometheus import PrometheusTelemetry
from docpreview_gateway.adapters.prometheus_calls import PrometheusCalls
from docpreview_gateway.adapters.prometheus_identity import IdentityMetrics
from docpreview_gateway.adapters.prometheus_limits import PrometheusLimits
from docpreview_gateway.rpc.observers import Observers

if TYPE_CHECKING:
    from docpreview_gateway.ports import Clock
    from docpreview_gateway.settings import LoggingSettings


class Observability:
    """The parts, of one gateway. `calls` hears of every call."""

    def __init__(self, logging: LoggingSettings, clock: Clock) -> None:
        self.registry = CollectorRegistry()
        for collect in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            self.registry.register(collect)
        self.metrics = PrometheusTelemetry(self.registry)
        calls = PrometheusCalls(self.registry)
        calls.build(version("docpreview-gateway"), platform.python_version(), grpc.__version__)
        self.limits = PrometheusLimits(self.registry)
        self.identity = IdentityMetrics(self.registry)
        as_json = logging.format == "json" or (logging.format == "auto" and not sys.stderr.isatty())
        self.log = CallLog(clock, calls=logging.access, as_json=as_json)
        self.calls = Observers(calls, self.log)
