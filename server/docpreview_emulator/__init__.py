"""Emulator of Tencent Cloud CI document-preview jobs that really renders.

`Emulator` is imported on first use, so that naming this package (as the pytest plugin does) costs nothing.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docpreview_emulator.emulator import Emulator as Emulator
    from docpreview_emulator.faults import Fault as Fault
    from docpreview_emulator.model import Credential as Credential
    from docpreview_emulator.model import State as State
    from docpreview_emulator.settings import Settings as Settings

_HOMES = {
    "Credential": "model",
    "Emulator": "emulator",
    "Fault": "faults",
    "Settings": "settings",
    "State": "model",
}

__all__ = ["Credential", "Emulator", "Fault", "Settings", "State"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - paid by the first use only

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
