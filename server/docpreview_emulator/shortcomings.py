"""What a machine has, and lacks, to render documents of some kinds."""

from docpreview_emulator.fonts import Fonts

_PARTS = "libreoffice-impress libreoffice-writer libreoffice-calc libreoffice-math"
OFFICE = f"apt-get install --no-install-recommends {_PARTS}"
FONTS = "apt-get install fonts-noto-cjk"


def shortcomings(office: str | None, fonts: Fonts | None) -> list[str]:
    """Each with the command that installs what is missing; `office` is LibreOffice's program, where it was found."""
    found = []
    if office is None:
        found.append(
            f"no LibreOffice: jobs of slides, text documents and spreadsheets fail; install it with `{OFFICE}`"
        )
    if fonts is not None and not fonts.has_cjk:
        what = "no font for Chinese, Japanese and Korean: their characters are empty boxes"
        found.append(f"{what}; install one with `{FONTS}`")
    return found


def renderers(office: str | None, fonts: Fonts | None) -> str:
    """What was found to render documents with."""
    families = "fonts that are not known: there is no fc-list"
    if fonts is not None:
        languages = "with" if fonts.has_cjk else "none with"
        families = f"{fonts.families} font families, {languages} Chinese, Japanese and Korean"
    return f"documents are rendered with {office or 'no LibreOffice'} and {families}"
