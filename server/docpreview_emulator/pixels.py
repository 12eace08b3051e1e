"""Bounds on the pixels of page images, checked before the first page is drawn."""

from collections.abc import Sequence

from docpreview_emulator.errors import JobFailure

_MEGAPIXEL = 1_000_000
Size = tuple[float, float]
"""Width and height in pixels."""


def check_pixels(sizes: Sequence[Size], page_megapixels: int, job_megapixels: int) -> None:
    """Refuse images of these sizes when one of them, or all together, have too many pixels.

    Raises:
        JobFailure: they have; the message names the limit.
    """
    for width, height in sizes:
        if width * height > page_megapixels * _MEGAPIXEL:
            message = f"An image of {width:.0f} x {height:.0f} pixels has more than {page_megapixels} megapixels"
            raise JobFailure("ImageTooLarge", f"{message} (--max-page-megapixels).")
    if sum(width * height for width, height in sizes) > job_megapixels * _MEGAPIXEL:
        message = f"The {len(sizes)} images have more than {job_megapixels} megapixels together"
        raise JobFailure("ImageTooLarge", f"{message} (--max-job-megapixels).")


def below_each_other(sizes: Sequence[Size]) -> list[Size]:
    """The size of the one image that has all of them."""
    return [(max(width for width, _ in sizes), sum(height for _, height in sizes))] if sizes else []
