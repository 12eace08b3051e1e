"""What a machine lacks to render documents of some kinds."""

from docpreview_emulator.fonts import has_cjk_fonts

OFFICE = "apt-get install --no-install-recommends libreoffice-impress libreoffice-writer libreoffice-calc"
FONTS = "apt-get install fonts-noto-cjk"


async def shortcomings(office: str | None) -> list[str]:
    """Each with the command that installs what is missing; `office` is the program of LibreOffice that was found."""
    found = []
    if office is None:
        found.append(
            f"no LibreOffice: jobs of slides, text documents and spreadsheets fail; install it with `{OFFICE}`"
        )
    if await has_cjk_fonts() is False:
        what = "no font for Chinese, Japanese and Korean: their characters are empty boxes"
        found.append(f"{what}; install one with `{FONTS}`")
    return found
