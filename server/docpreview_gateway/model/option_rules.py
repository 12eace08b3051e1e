"""Policy rules for the options of creates: presets, defaults, bounds and forced values."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import unquote

from docpreview.v1.preview_job_pb2 import PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.model import rules
from docpreview_gateway.model.errors import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CLOUD_DEFAULTS: Mapping[str, int] = MappingProxyType({"image_dpi": 96, "quality": 100, "zoom_percent": 100})
"""Options that can be bounded, and the cloud's defaults for them (vendor document 460/46942)."""

LAST_PAGE = -1
"""`end_page` for the last page of the document."""

_MAX_DECODINGS = 4
_IMAGE = re.compile(r"watermark(?!\s*/\s*2\s*(?:[/|?&]|$))|(?:^|[/|?&])\s*image\s*(?:[/|?&]|$)")
"""A watermark that is not a text, or a parameter of the name `image`."""


def names_image(image_params: str) -> bool:
    """Whether operations of the cloud's image processing may draw an image that they name.

    That is every `watermark` but that of a text, `watermark/2`. What the cloud makes of capitals, percent signs and
    look-alikes is not documented, so they count as what they may become.
    """
    text = image_params
    for _ in range(_MAX_DECODINGS):
        if _IMAGE.search(text.casefold()):
            return True
        decoded = unicodedata.normalize("NFKC", unquote(text))
        if decoded == text:
            return False
        text = decoded
    return True


@dataclass(frozen=True, slots=True)
class OptionRules:
    """A policy's rules for the options of a caller's creates.

    `default` fills options that neither the request nor its preset sets; `force` overrides all others. `at_most` bounds
    some of CLOUD_DEFAULTS, `max_pages` the pages that a job may select (of a spreadsheet: in each sheet).
    """

    default: PreviewOptions = field(default_factory=PreviewOptions)
    force: PreviewOptions = field(default_factory=PreviewOptions)
    at_most: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    max_pages: int | None = None

    @property
    def selecting(self) -> str | None:
        """The rule by which every create selects a known number of pages; None: some may leave it open."""
        if self.max_pages is not None:
            return "options.max_pages"
        return "options.force" if _selected(self.force) > 0 else None

    def apply(self, request: CreatePreviewJobRequest, preset: PreviewOptions) -> CreatePreviewJobRequest:
        """The request with all layers of options, and without its preset: the one to validate and send.

        An unset option whose default would exceed its bound is set to the bound.
        """
        options = PreviewOptions()
        for layer in (self.default, preset, request.options, self.force):
            _overlay(options, layer)
        self._bound(options)
        result = CreatePreviewJobRequest()
        result.CopyFrom(request)
        result.ClearField("preset")
        if options != request.options:
            result.options.CopyFrom(options)
        return result

    def violations(self, request: CreatePreviewJobRequest) -> Iterator[Violation]:
        """Bounds that a valid request exceeds after `apply`."""
        for name, most in self.at_most.items():
            if getattr(request.options, name) > most:
                yield Violation(f"options.{name}", f"must be at most {most} for this caller")
        if self.max_pages is None:
            return
        if request.options.target_format == PreviewOptions.TARGET_FORMAT_PDF:
            yield Violation("options.target_format", "must be an image format: this caller has a page limit")
        elif _selected(request.options) > self.max_pages:
            name = "page_ranges" if request.options.page_ranges else "end_page"
            yield Violation(f"options.{name}", f"must select at most {self.max_pages} pages for this caller")

    def sources(self, request: CreatePreviewJobRequest, preset: PreviewOptions) -> dict[str, str]:
        """The options after `apply` that are not the request's own, by name: the rule, or `preset`, that set each."""
        layers = {"options.force": self.force, "": request.options, "preset": preset, "options.default": self.default}
        found = {}
        for descriptor, value in self.apply(request, preset).options.ListFields():
            own = (rule for rule, layer in layers.items() if (descriptor, value) in layer.ListFields())
            name = descriptor.name
            found[name] = next(own, "options.max_pages" if name == "end_page" else "options.at_most")
        return {name: rule for name, rule in found.items() if rule}

    def _bound(self, options: PreviewOptions) -> None:
        for name, most in self.at_most.items():
            if not options.HasField(name) and CLOUD_DEFAULTS[name] > most:  # type: ignore[arg-type]  # by name
                setattr(options, name, most)
        selects = options.page_ranges or (options.HasField("end_page") and options.end_page != LAST_PAGE)
        if self.max_pages is not None and not selects:
            start = options.start_page or 1
            # The request is not validated yet: a first page that does not exist is left to that, as it is.
            if 1 <= start <= rules.MAX_PAGE:
                options.end_page = min(start + self.max_pages - 1, rules.MAX_PAGE)


def _overlay(options: PreviewOptions, layer: PreviewOptions) -> None:
    """Set the fields of `layer`. Its page selection and its watermark replace the old ones: halves could contradict."""
    if layer.page_ranges or layer.HasField("start_page") or layer.HasField("end_page"):
        options.ClearField("start_page")
        options.ClearField("end_page")
        options.ClearField("page_ranges")
    if layer.HasField("watermark"):
        options.ClearField("watermark")
    options.MergeFrom(layer)


def _selected(options: PreviewOptions) -> int:
    if options.page_ranges:
        return rules.pages_in(options.page_ranges)
    return options.end_page - (options.start_page or 1) + 1
