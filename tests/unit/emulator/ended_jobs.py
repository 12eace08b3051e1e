"""Data directories as an earlier emulator left them, for tests of many jobs."""

from pathlib import Path

from docpreview_emulator import Settings
from docpreview_emulator.clock import Clock
from docpreview_emulator.database import Database
from docpreview_emulator.jobs import JobTable
from docpreview_emulator.model import Bucket, JobResult, JobSpec, Output, PageInfo
from docpreview_emulator.requests import DEFAULTS

from .cloud_client import BUCKET, REGION


def ended_jobs(job_count: int, page_count: int, directory: Path) -> list[str]:
    """A data directory with ended jobs, as an earlier emulator left it; their ids."""
    database, bucket = Database(directory), Bucket(BUCKET, REGION)
    jobs = JobTable(database, Clock(), Settings().retention)
    spec = JobSpec("in/long.pdf", Output(REGION, BUCKET, "out/${Number}.jpg"), dict(DEFAULTS))
    pages = tuple(PageInfo(number, f"out/{number}.jpg") for number in range(1, page_count + 1))
    ids = []
    for _ in range(job_count):
        job_id = jobs.add(bucket, "p0", spec, paused=False).job_id
        jobs.start(job_id)
        jobs.succeed(job_id, JobResult(page_count, 0, pages))
        ids.append(job_id)
    database.close()
    return ids
