"""Which sheets of a workbook have pages, and which pages, through the real LibreOffice."""

from docpreview_emulator import Emulator

from .cloud_client import Cloud
from .office_files import FILLED, FRAMED, workbook
from .office_jobs import coloured, converted, needs_office
from .test_rendering import image, targets

pytestmark = needs_office

TEMPLATE = "o/${SheetID}/${Number}.png"
PAINTED = workbook({"Filled": [[FILLED] * 3] * 5, "Blank": [], "Framed": [[FRAMED] * 3] * 5})


async def test_a_sheet_of_colours_and_borders_without_text_has_a_page(emulator: Emulator, cloud: Cloud) -> None:
    """A sheet with nothing to see has none."""
    job = await converted(emulator, cloud, "plan.xlsx", PAINTED, TEMPLATE, TgtType="png")
    assert targets(job) == ["o/1/1.png", "o/3/1.png"]
    filled, framed = (image(emulator, key).convert("RGB") for key in targets(job))
    box = coloured(filled)
    assert box is not None
    assert filled.getpixel(((box[0] + box[2]) // 2, (box[1] + box[3]) // 2)) == (255, 0, 0)
    assert coloured(framed) is None
    assert framed.convert("L").getextrema() == (0, 255), "black borders"


async def test_a_hidden_sheet_has_no_pages_and_the_others_keep_their_numbers(emulator: Emulator, cloud: Cloud) -> None:
    book = workbook({"First": [["a"]], "Hidden": [["b"]], "Third": [["c"]]}, hidden=["Hidden"])
    job = await converted(emulator, cloud, "book.xlsx", book, TEMPLATE, TgtType="png")
    assert targets(job) == ["o/1/1.png", "o/3/1.png"]
    assert job.result is not None
    assert job.result.total_sheets == 3
    asked = await converted(emulator, cloud, "book.xlsx", book, TEMPLATE, TgtType="png", SheetId=2)
    message = "Sheet 2 is hidden: hidden sheets are not converted."
    assert (asked.state, asked.code, asked.message) == ("Failed", "-3015", message)
