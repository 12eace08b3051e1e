"""A real Chromium without a window, for pages of ours."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.programs import need

if TYPE_CHECKING:
    from pathlib import Path


async def _run(folder: Path, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        need("chromium"),
        "--headless=new",
        # Tests may run as root in a container, where Chromium's own sandbox cannot.
        *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
        f"--user-data-dir={folder / 'profile'}",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()[-2000:]
    # What the page itself complains about, for one that its policy kept something from being used.
    complaints = [line for line in errors.decode().splitlines() if "CONSOLE" in line]
    assert not complaints, complaints
    return output.decode()


async def document(url: str, folder: Path) -> str:
    """The page as the browser has understood it."""
    return await _run(folder, "--dump-dom", url)


async def screenshot(url: str, path: Path, *, width: int, height: int, dark: bool = False) -> bytes:
    """A picture of the page in a window of this size, as PNG."""
    scheme = ("--blink-settings=preferredColorScheme=0",) if dark else ("--blink-settings=preferredColorScheme=1",)
    await _run(path.parent, f"--screenshot={path}", f"--window-size={width},{height}", *scheme, url)
    return await asyncio.to_thread(path.read_bytes)
