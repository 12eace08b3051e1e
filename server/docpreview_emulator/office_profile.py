"""LibreOffice's profile directory: the macro that converts, and settings that disable macros and remote links."""

from html import escape  # that of xml.sax takes as long to import as all else here
from importlib.resources import files
from pathlib import Path

_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
_MODULE = (
    '<script:module xmlns:script="http://openoffice.org/2000/script" script:name="Convert"'
    ' script:language="StarBasic">{source}</script:module>\n'
)
_LIBRARY = (
    '<library:library xmlns:library="http://openoffice.org/2000/library" library:name="Standard"'
    ' library:readonly="false" library:passwordprotected="false"><library:element library:name="Convert"/>'
    "</library:library>\n"
)
_SECURITY = (
    '<item oor:path="/org.openoffice.Office.Common/Security/Scripting">'
    '<prop oor:name="BlockUntrustedRefererLinks" oor:op="fuse"><value>true</value></prop></item>\n'
)


def prepare(profile: Path, *, complete: bool) -> bool:
    """Install macro and settings in a profile; True when LibreOffice must first create the profile.

    LibreOffice fills a new profile on its first run and overwrites macros that are already there. So that run comes
    first (the caller does it when this returns True), then this function again with `complete`.
    """
    settings = profile / "user" / "registrymodifications.xcu"
    library = profile / "user" / "basic" / "Standard"
    if not complete and not settings.exists():
        profile.mkdir(parents=True, exist_ok=True)
        return True
    library.mkdir(parents=True, exist_ok=True)
    source = files("docpreview_emulator").joinpath("convert.bas").read_text(encoding="utf-8")
    (library / "Convert.xba").write_text(_XML + _MODULE.format(source=escape(source, quote=False)), encoding="utf-8")
    (library / "script.xlb").write_text(_XML + _LIBRARY, encoding="utf-8")
    present = settings.read_text(encoding="utf-8") if settings.exists() else ""
    if "BlockUntrustedRefererLinks" not in present:
        settings.write_text(present.replace("</oor:items>", _SECURITY + "</oor:items>"), encoding="utf-8")
    return False
