"""Whether this machine has fonts for Chinese, Japanese and Korean, of which most documents of the cloud's users are."""

from __future__ import annotations

import asyncio
import shutil

SECONDS = 10.0


async def has_cjk_fonts() -> bool | None:
    """Whether fontconfig knows a font for each of the three languages; None: there is no `fc-list` to ask."""
    program = shutil.which("fc-list")
    if program is None:
        return None
    answers = [await _listed(program, language) for language in ("zh", "ja", "ko")]
    return all(answers)


async def _listed(program: str, language: str) -> bool:
    process = await asyncio.create_subprocess_exec(
        *(program, f":lang={language}", "family"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        return False
    return bool(output.strip())
