"""Jobs that need LibreOffice."""

from typing import Any

import pytest

from docpreview_emulator import Emulator
from docpreview_emulator.model import Job

from .cloud_client import BUCKET, REGION, Cloud

needs_office = pytest.mark.usefixtures("_office")


async def converted(emulator: Emulator, cloud: Cloud, key: str, data: bytes, template: str, **options: Any) -> Job:
    """The ended job of a document that is put under the key."""
    emulator.put_object(BUCKET, REGION, key, data)
    return await emulator.wait_for_job(await cloud.job_id(key, template, **options))
