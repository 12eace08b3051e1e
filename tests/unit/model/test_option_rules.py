"""Policy rules applied to the options of a create."""

from __future__ import annotations

from typing import Any

import pytest

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewOptions, Watermark
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.model.option_rules import OptionRules

O = PreviewOptions  # noqa: E741 - read as "options"
NONE = O()


def applied(rules: OptionRules, options: O = NONE, preset: O = NONE) -> O:
    return rules.apply(CreatePreviewJobRequest(input_object="a.pdf", options=options), preset).options


def test_a_request_without_rules_stays_as_it_is() -> None:
    """No options are added."""
    request = CreatePreviewJobRequest(input_object="a.pdf", preset="p")
    made = OptionRules().apply(request, NONE)
    assert made == CreatePreviewJobRequest(input_object="a.pdf")
    assert not made.HasField("options")


def test_force_wins_over_request_over_preset_over_default() -> None:
    """Each layer overrides the layers before it."""
    rules = OptionRules(
        default=O(quality=1, zoom_percent=11, image_dpi=101, image_params="d"), force=O(image_params="f")
    )
    made = applied(rules, O(image_dpi=103, image_params="r"), O(zoom_percent=12, image_dpi=102, image_params="p"))
    assert made == O(quality=1, zoom_percent=12, image_dpi=103, image_params="f")


def test_a_watermark_replaces_another_as_a_whole() -> None:
    """Nothing of the caller's stays beside a forced one: neither a place beyond the page nor tiles."""
    ours = Watermark(image=ObjectLocation(bucket="brand-1250000000", object="logo.png"), dx=5)
    theirs = Watermark(image=ObjectLocation(object="mine.png"), dx=1, dy=65_000, tiled=True, horizontal_spacing=1)
    request = CreatePreviewJobRequest(options=O(watermark=theirs))
    assert applied(OptionRules(force=O(watermark=ours)), O(watermark=theirs), O(watermark=theirs)).watermark == ours
    assert applied(OptionRules(default=O(watermark=ours)), O(watermark=theirs)).watermark == theirs
    assert applied(OptionRules(default=O(watermark=ours))).watermark == ours
    assert OptionRules(force=O(watermark=ours)).sources(request, NONE) == {"watermark": "options.force"}


def test_the_callers_message_is_not_changed() -> None:
    """A repeated create is compared with the caller's own message."""
    request = CreatePreviewJobRequest(options=O(quality=5), preset="p")
    OptionRules(force=O(quality=1)).apply(request, O(image_dpi=96))
    assert request == CreatePreviewJobRequest(options=O(quality=5), preset="p")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (O(page_ranges="3-4"), O(page_ranges="3-4")),
        (O(start_page=3), O(start_page=3)),
        (NONE, O(start_page=1, end_page=1)),
    ],
)
def test_page_selections_do_not_mix(options: O, expected: O) -> None:
    """A page selection of the request replaces all of the preset's: halves would contradict each other."""
    assert applied(OptionRules(), options, O(start_page=1, end_page=1)) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (NONE, 10),
        (O(start_page=5), 14),
        (O(start_page=5, end_page=-1), 14),
        (O(start_page=4991), 5000),
        (O(start_page=4992), 5000),
        (O(start_page=5000), 5000),
        (O(end_page=3), 3),
        (O(end_page=50), 50),
    ],
)
def test_jobs_without_a_last_page_end_at_the_page_limit(options: O, expected: int) -> None:
    """And at the last page that there may be. An explicit one stays as it is; beyond the limit it is a violation."""
    assert applied(OptionRules(max_pages=10), options).end_page == expected


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (O(image_dpi=151), "options.image_dpi"),
        (O(end_page=11), "options.end_page"),
        (O(page_ranges="1-5,10-15"), "options.page_ranges"),
        (O(target_format=O.TARGET_FORMAT_PDF), "options.target_format"),
    ],
)
def test_an_exceeded_bound_names_its_field(options: O, field: str) -> None:
    """The violation has the path of the option."""
    rules = OptionRules(at_most={"image_dpi": 150}, max_pages=10)
    request = rules.apply(CreatePreviewJobRequest(options=options), NONE)
    assert [found.field for found in rules.violations(request)] == [field]


@pytest.mark.parametrize(
    ("at_most", "expected"),
    [({"quality": 80}, O(quality=80)), ({"image_dpi": 150}, NONE), ({"zoom_percent": 50}, O(zoom_percent=50))],
)
def test_an_unset_option_whose_default_exceeds_the_bound_is_set_to_the_bound(
    at_most: dict[str, int], expected: Any
) -> None:
    """Otherwise omitting the option would exceed the bound."""
    assert applied(OptionRules(at_most=at_most)) == expected
