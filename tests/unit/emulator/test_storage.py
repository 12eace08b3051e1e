"""What survives a restart, and what is said when the disk or the database is unusable."""

import asyncio
import resource
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from docpreview_emulator import Emulator, Settings
from docpreview_emulator.errors import StorageError

from .cloud_client import BUCKET, REGION, Cloud
from .conftest import QUICK
from .pdf_files import pdf


async def test_a_restart_preserves_everything_and_finishes_unfinished_jobs(tmp_path: Path) -> None:
    """Jobs, objects, paused queues and the count of jobs are still there; unfinished jobs are finished."""
    async with Emulator(tmp_path, settings=QUICK) as emulator, Cloud(emulator.url) as cloud:
        emulator.put_object(BUCKET, REGION, "a.pdf", pdf(2))
        done = await cloud.job_id("a.pdf", "done/${Number}")
        await emulator.wait_for_job(done)
        emulator.hold_jobs()
        running = await cloud.job_id("a.pdf", "running/${Number}")
        emulator.pause_queue(emulator.queue_id("other-1", REGION))
    async with Emulator(tmp_path, settings=QUICK) as emulator, Cloud(emulator.url) as cloud:
        assert (await cloud.get(done)).text("JobsDetail/State") == "Success"
        assert (await cloud.fetch("done/2")).status == 200
        assert (await emulator.wait_for_job(running)).state == "Success"
        assert emulator.accepted_jobs == 2
        host = f"other-1.ci.{REGION}.myqcloud.com"
        assert (await cloud.send("GET", "/docqueue", host=host)).text("QueueList/State") == "Paused"


async def test_a_submitted_job_runs_after_a_restart(tmp_path: Path) -> None:
    async with Emulator(tmp_path, settings=Settings(submit_delay=60)) as emulator, Cloud(emulator.url) as cloud:
        emulator.put_object(BUCKET, REGION, "a.pdf", pdf(1))
        job_id = await cloud.job_id("a.pdf")
    async with Emulator(tmp_path, settings=QUICK) as emulator:
        assert (await emulator.wait_for_job(job_id)).state == "Success"


async def test_a_restart_sweeps_files_that_no_object_names(tmp_path: Path) -> None:
    """A cut upload leaves one."""
    async with Emulator(tmp_path) as emulator:
        emulator.put_object(BUCKET, REGION, "k", b"kept")
    (tmp_path / "objects" / "left-over").write_bytes(b"half")
    async with Emulator(tmp_path) as emulator:
        assert emulator.get_object(BUCKET, REGION, "k") == b"kept"
    assert not (tmp_path / "objects" / "left-over").exists()


async def test_a_database_of_an_earlier_version_gets_what_it_lacks(tmp_path: Path) -> None:
    """Its objects have no checksum, new ones have; its queues tell nobody."""
    async with Emulator(tmp_path) as emulator:
        emulator.put_object(BUCKET, REGION, "old", b"kept")
    with closing(sqlite3.connect(tmp_path / "emulator.sqlite3")) as connection, connection:
        for column in ("crc64", "metadata"):
            connection.execute(f"ALTER TABLE objects DROP COLUMN {column}")
        connection.execute("ALTER TABLE queues DROP COLUMN notify")
        connection.execute("ALTER TABLE parts DROP COLUMN modified")
    async with Emulator(tmp_path) as emulator, Cloud(emulator.url) as cloud:
        emulator.put_object(BUCKET, REGION, "new", b"kept")
        old, new = await cloud.fetch("old"), await cloud.fetch("new")
        assert (old.body, new.body) == (b"kept", b"kept")
        checksum = "x-cos-hash-crc64ecma"
        assert (checksum in old.headers, checksum in new.headers) == (False, True)
        assert (await cloud.send("GET", "/docqueue")).text("QueueList/NotifyConfig/State") == "Off"


async def test_a_corrupt_database_is_refused_with_its_file_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "emulator.sqlite3").write_bytes(b"not a database, certainly" * 100)
    with pytest.raises(StorageError, match=r"emulator\.sqlite3 is not a usable database .*: move it away"):
        async with Emulator(tmp_path):
            pass


async def test_a_directory_in_use_by_another_emulator_is_refused(tmp_path: Path) -> None:
    """Two emulators on one directory would run every job twice."""
    async with Emulator(tmp_path):
        with pytest.raises(StorageError, match="in use by another emulator"):
            async with Emulator(tmp_path):
                pass


async def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be used"):
        async with Emulator(tmp_path / "file"):
            pass


async def test_a_create_that_cannot_be_stored_is_500_and_makes_no_job(emulator: Emulator, cloud: Cloud) -> None:
    """A create that cannot be kept is refused with 500, says why, and makes no job."""
    connection = emulator._backend.database._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    reply = await cloud.create("seven.pdf", UserData="x" * 100_000)
    assert (reply.status, reply.text("Code")) == (500, "InternalError")
    assert "database or disk is full" in reply.text("Message")
    assert emulator.accepted_jobs == 0


async def test_a_full_disk_refuses_uploads_with_500_and_fails_jobs(tmp_path: Path) -> None:
    """An upload that does not fit is refused with 500 and not kept; a job whose pages do not fit is Failed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "docpreview_emulator", "serve", "--port", "0", "--data-dir", str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().split()[-1]
        # From now on: what a start writes is not what this is about.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (200_000, 200_000))
        async with Cloud(url) as cloud:
            reply = await cloud.put("big.bin", b"x" * 1_000_000)
            assert (reply.status, reply.text("Code")) == (500, "InternalError")
            assert "disk cannot be used" in reply.text("Message")
            assert (await cloud.fetch("big.bin")).status == 404
            await cloud.put("a.pdf", pdf(1, 2000, 2000))
            job_id = await cloud.job_id("a.pdf", TgtType="jpg", ImageDpi=300)
            reply = await cloud.ended(job_id)
            assert reply.text("JobsDetail/Code") == "InternalError"
            assert "File too large" in reply.text("JobsDetail/Message")
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
