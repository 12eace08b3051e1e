"""A page for browsers that shows all pages of a document at a glance. It needs nothing but the files beside it."""

import html
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Final

CONTACT_SHEET: Final = "contact-sheet.html"

_SHEET: Final = Template(
    """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>$title</title>
<style>
:root { color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif; }
body { margin: 0; padding: 1.5rem; background: light-dark(#eceef1, #17191c); color: light-dark(#1c1f23, #e4e6e9); }
h1 { font-size: 1.2rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
p { margin: 0 0 1.25rem; color: light-dark(#5b626b, #9aa1aa); }
ol { list-style: none; margin: 0; padding: 0; display: grid; gap: 1.25rem;
  grid-template-columns: repeat(auto-fill, minmax(min(160px, 100%), 1fr)); align-items: end; }
a { display: block; color: inherit; text-decoration: none; }
a:focus-visible { outline: 3px solid #2f6fde; outline-offset: 3px; }
img { display: block; width: 100%; height: auto; background: #fff; border-radius: 3px;
  box-shadow: 0 1px 3px rgb(0 0 0 / .25); }
span { display: block; padding-top: .4rem; text-align: center; font-variant-numeric: tabular-nums; }
</style>
<h1>$title</h1>
<p>$count</p>
<ol>
$pages
</ol>
</html>
"""
)


def write_contact_sheet(title: str, files: Sequence[Path]) -> Path:
    """Writes the sheet beside the files, and returns it; a PDF is its own."""
    if len(files) == 1 and files[0].suffix == ".pdf":
        return files[0]
    count = f"{len(files)} page{'' if len(files) == 1 else 's'}"
    items = "\n".join(_item(file) for file in files)
    sheet = files[0].parent / CONTACT_SHEET
    sheet.write_text(_SHEET.substitute(title=html.escape(title), count=count, pages=items), encoding="utf-8")
    return sheet


def _item(file: Path) -> str:
    name, label = html.escape(file.name), _label(file.stem)
    return f'<li><a href="{name}"><img src="{name}" alt="{label}" loading="lazy"><span>{label}</span></a></li>'


def _label(stem: str) -> str:
    """`page-0007` is page 7, and `sheet-02-page-003` is sheet 2, page 3."""
    words = stem.split("-")
    pairs = zip(words[::2], words[1::2], strict=False)
    return ", ".join(f"{word} {int(number)}" for word, number in pairs).capitalize()
