"""The options of a create after the gateway's policy has had its say: presets, defaults, bounds and what is forced."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from docpreview.v1.preview_job_pb2 import PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.model import rules
from docpreview_gateway.model.errors import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CLOUD_DEFAULTS: Mapping[str, int] = MappingProxyType({"image_dpi": 96, "quality": 100, "zoom_percent": 100})
"""Options that can be bounded, and what the cloud takes when they are not set (vendor document 460/46942)."""

LAST_PAGE = -1


@dataclass(frozen=True, slots=True)
class OptionRules:
    """What a policy says about a caller's options.

    `default` fills what neither the request nor its preset sets; `force` wins over everything. `at_most` bounds some of
    CLOUD_DEFAULTS, `max_pages` the pages that a job may select (of spreadsheets: in each sheet).
    """

    default: PreviewOptions = field(default_factory=PreviewOptions)
    force: PreviewOptions = field(default_factory=PreviewOptions)
    at_most: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    max_pages: int | None = None

    def applied(self, request: CreatePreviewJobRequest, preset: PreviewOptions) -> CreatePreviewJobRequest:
        """The request as it is checked and sent. What is unbounded by its silence is bounded; the rest stays."""
        options = PreviewOptions()
        for layer in (self.default, preset, request.options, self.force):
            _overlay(options, layer)
        self._bound(options)
        applied = CreatePreviewJobRequest()
        applied.CopyFrom(request)
        applied.ClearField("preset")
        if options != request.options:
            applied.options.CopyFrom(options)
        return applied

    def violations(self, request: CreatePreviewJobRequest) -> Iterator[Violation]:
        """What a request, applied and valid, exceeds."""
        for name, most in self.at_most.items():
            if getattr(request.options, name) > most:
                yield Violation(f"options.{name}", f"must be at most {most} for this caller")
        if self.max_pages is None:
            return
        if request.options.target_format == PreviewOptions.TARGET_FORMAT_PDF:
            yield Violation("options.target_format", "must be an image format for this caller, whose pages are bounded")
        elif _selected(request.options) > self.max_pages:
            bounded = "page_ranges" if request.options.page_ranges else "end_page"
            yield Violation(f"options.{bounded}", f"must select at most {self.max_pages} pages for this caller")

    def _bound(self, options: PreviewOptions) -> None:
        for name, most in self.at_most.items():
            if not options.HasField(name) and CLOUD_DEFAULTS[name] > most:  # type: ignore[arg-type]  # by name
                setattr(options, name, most)
        selects = options.page_ranges or (options.HasField("end_page") and options.end_page != LAST_PAGE)
        if self.max_pages is not None and not selects:
            options.end_page = (options.start_page or 1) + self.max_pages - 1


def _overlay(options: PreviewOptions, layer: PreviewOptions) -> None:
    """Fields of the layer win. Pages are selected by one layer alone: halves of two could contradict each other."""
    if layer.page_ranges or layer.HasField("start_page") or layer.HasField("end_page"):
        options.ClearField("start_page")
        options.ClearField("end_page")
        options.ClearField("page_ranges")
    options.MergeFrom(layer)


def _selected(options: PreviewOptions) -> int:
    if options.page_ranges:
        return rules.pages_in(options.page_ranges)
    return options.end_page - (options.start_page or 1) + 1
