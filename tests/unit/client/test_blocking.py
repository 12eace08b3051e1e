"""The blocking client: what the asyncio client does, from any thread, and a clear answer where that cannot be."""

import asyncio
import gc
import inspect
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import ListPreviewJobsResponse
from docpreview_client import BlockingClient, ClientOptions, DocPreviewClient, NotFound, Unauthenticated

from .fake_gateway import PATIENCE, FakeGateway, Silence
from .fake_storage import FakeStorage
from .samples import BUCKET, JOB_ID, failure, job, succeeded


@pytest.fixture
def blocking(gateway: FakeGateway) -> Iterator[BlockingClient]:
    with BlockingClient(gateway.target) as client:
        yield client


def public(kind: type) -> dict[str, inspect.Signature]:
    methods = inspect.getmembers(kind, inspect.isfunction)
    return {name: inspect.signature(method) for name, method in methods if not name.startswith("_")}


def test_it_has_the_methods_of_the_asyncio_client_with_the_same_arguments() -> None:
    theirs, ours = public(DocPreviewClient), public(BlockingClient)
    assert list(ours) == list(theirs)
    for name, signature in ours.items():
        assert signature.parameters == theirs[name].parameters, name


def test_calls_return_their_results_and_raise_their_errors(gateway: FakeGateway, blocking: BlockingClient) -> None:
    gateway.will("GetPreviewJob", job(), failure(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND"))
    assert blocking.get(BUCKET, JOB_ID, timeout=5) == job()
    with pytest.raises(NotFound):
        blocking.get(BUCKET, JOB_ID)


def test_iterators_are_generators(gateway: FakeGateway, blocking: BlockingClient) -> None:
    gateway.will(
        "ListPreviewJobs",
        ListPreviewJobsResponse(jobs=[job(job_id="d1")], next_page_token="two"),
        ListPreviewJobsResponse(jobs=[job(job_id="d2")]),
    )
    gateway.will("WatchPreviewJob", [job(), succeeded()])
    gateway.will("WatchPreviewJobs", [succeeded()])
    assert [found.job_id for found in blocking.list(BUCKET)] == ["d1", "d2"]
    assert [seen.state for seen in blocking.watch(BUCKET, JOB_ID)] == [
        PreviewJob.STATE_RUNNING,
        PreviewJob.STATE_SUCCESS,
    ]
    assert list(blocking.watch_many(BUCKET, [JOB_ID])) == [succeeded()]


def test_a_generator_that_is_closed_early_ends_its_stream(gateway: FakeGateway, blocking: BlockingClient) -> None:
    gateway.will("WatchPreviewJob", [job(), Silence()])
    jobs = blocking.watch(BUCKET, JOB_ID)
    assert next(jobs) == job()
    jobs.close()
    assert gateway.call("WatchPreviewJob").ended.wait(PATIENCE)


def test_a_generator_that_is_left_and_collected_ends_its_stream(gateway: FakeGateway, blocking: BlockingClient) -> None:
    gateway.will("WatchPreviewJob", [job(), Silence()])
    for _ in blocking.watch(BUCKET, JOB_ID):
        break
    gc.collect()
    assert gateway.call("WatchPreviewJob").ended.wait(PATIENCE)


def test_pages_are_downloaded(blocking: BlockingClient, storage: FakeStorage, tmp_path: Path) -> None:
    storage.objects["/1"] = b"page"
    assert blocking.download(succeeded(f"{storage.url}/1"), tmp_path) == [tmp_path / "page-0001.jpg"]


def test_many_threads_share_a_client_beside_a_watch(gateway: FakeGateway, blocking: BlockingClient) -> None:
    gateway.will("WatchPreviewJob", [job(), Silence()])
    gateway.will("GetPreviewJob", lambda request: job(job_id=request.job_id))
    jobs = blocking.watch(BUCKET, JOB_ID)
    next(jobs)
    with ThreadPoolExecutor(16) as threads:
        found = threads.map(lambda number: blocking.get(BUCKET, f"d{number}").job_id, range(200))
        assert list(found) == [f"d{number}" for number in range(200)]
    jobs.close()


def test_two_clients_live_beside_each_other_and_beside_an_event_loop(gateway: FakeGateway) -> None:
    gateway.will("GetPreviewJob", job())

    async def in_loop() -> PreviewJob:
        async with DocPreviewClient(gateway.target) as client:
            with BlockingClient(gateway.target) as other:
                assert await asyncio.to_thread(other.get, BUCKET, JOB_ID) == job()
            return await client.get(BUCKET, JOB_ID)

    with BlockingClient(gateway.target) as client:
        assert client.get(BUCKET, JOB_ID) == job()
        assert asyncio.run(in_loop()) == job()
        assert client.get(BUCKET, JOB_ID) == job()


def test_a_token_function_may_block_while_other_calls_go_on(gateway: FakeGateway) -> None:
    """It is asked in a thread of its own."""
    gateway.will("GetPreviewJob", job())
    gateway.will("WatchPreviewJob", [job(), lambda _: succeeded()])
    asked, go = threading.Event(), threading.Event()
    slow = threading.Event()

    def token() -> str:
        if slow.is_set():
            asked.set()
            go.wait(PATIENCE)
        return "s3cret"

    with BlockingClient(gateway.target, token=token) as client:
        jobs = client.watch(BUCKET, JOB_ID)
        next(jobs)
        slow.set()
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(client.get, BUCKET, JOB_ID)
            assert asked.wait(PATIENCE)
            assert next(jobs) == succeeded()
            go.set()
            assert waiting.result(PATIENCE) == job()
    assert gateway.call("GetPreviewJob").metadata["authorization"] == "Bearer s3cret"


def test_a_token_function_that_fails_is_unauthenticated_with_its_cause(gateway: FakeGateway) -> None:
    def token() -> str:
        raise OSError("the vault is sealed")

    with BlockingClient(gateway.target, token=token) as client, pytest.raises(Unauthenticated) as caught:
        client.get(BUCKET, JOB_ID)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_callback_that_calls_the_client_is_refused_and_does_not_hang(gateway: FakeGateway) -> None:
    clients: list[BlockingClient] = []

    def metadata() -> dict[str, str]:
        clients[0].usage()
        return {}

    with BlockingClient(gateway.target, options=ClientOptions(metadata=metadata)) as client:
        clients.append(client)
        with pytest.raises(RuntimeError, match="callback"):
            client.get(BUCKET, JOB_ID)


def test_a_closed_client_is_refused_closing_again_is_not_and_calls_in_flight_end(gateway: FakeGateway) -> None:
    gateway.will("WaitPreviewJob", Silence())
    client = BlockingClient(gateway.target)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(client.wait, BUCKET, JOB_ID)
        gateway.call("WaitPreviewJob")
        client.close()
        assert waiting.exception(PATIENCE) is not None
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.get(BUCKET, JOB_ID)
    assert not [thread for thread in threading.enumerate() if thread.name == "docpreview-client"]


def program(gateway: FakeGateway, text: str) -> str:
    """The output of a program, which has a gateway in another process."""
    head = f"""
import os, sys
from docpreview_client import BlockingClient
target, bucket, job_id = {gateway.target!r}, {BUCKET!r}, {JOB_ID!r}

def in_child(work):
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        try:
            print(work(), flush=True)
        except BaseException as error:
            print(type(error).__name__, error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)

def use(client):
    return client.get(bucket, job_id, timeout=10).job_id
"""
    quiet = os.environ | {"GRPC_VERBOSITY": "NONE"}  # gRPC tells of forks
    found = subprocess.run(
        [sys.executable, "-c", head + text], capture_output=True, text=True, check=False, timeout=60, env=quiet
    )
    assert found.stderr == "", found.stderr
    assert found.returncode == 0
    return found.stdout


def test_a_client_that_its_workers_use_first_is_sound_in_each(gateway: FakeGateway) -> None:
    """Celery and gunicorn make the client when they load the program, and fork afterwards."""
    gateway.will("GetPreviewJob", job())
    text = "client = BlockingClient(target)\nfor _ in range(3): in_child(lambda: use(client))\nprint(use(client))"
    assert program(gateway, text).split() == [JOB_ID] * 4


def test_a_client_that_was_in_use_before_the_fork_is_refused_in_the_child_and_works_on_in_the_parent(
    gateway: FakeGateway,
) -> None:
    """Also a new one, as gRPC itself does not survive. The words say what to do."""
    gateway.will("GetPreviewJob", job())
    text = """
client = BlockingClient(target)
use(client)
in_child(lambda: use(client))
in_child(lambda: use(BlockingClient(target)))
print(use(client))
"""
    lines = program(gateway, text).splitlines()
    assert [line.split()[0] for line in lines] == ["RuntimeError", "RuntimeError", JOB_ID]
    assert all("worker_process_init" in line for line in lines[:2])


def test_after_a_client_was_closed_a_fork_may_use_a_new_one(gateway: FakeGateway) -> None:
    gateway.will("GetPreviewJob", job())
    text = "with BlockingClient(target) as client: use(client)\nin_child(lambda: use(BlockingClient(target)))"
    assert program(gateway, text).split() == [JOB_ID]


def test_a_program_that_does_not_close_its_client_ends_in_order(gateway: FakeGateway) -> None:
    """Nothing is printed, and nothing hangs, also with a stream that is open."""
    gateway.will("GetPreviewJob", job())
    gateway.will("WatchPreviewJob", [job(), Silence()])
    text = "client = BlockingClient(target)\nprint(use(client))\njobs = client.watch(bucket, job_id)\nnext(jobs)"
    assert program(gateway, text).split() == [JOB_ID]


def test_an_interrupt_ends_the_waiting_and_the_stream(gateway: FakeGateway) -> None:
    gateway.will("WatchPreviewJob", [Silence()])
    text = """
import signal, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
client = BlockingClient(target)
threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    next(client.watch(bucket, job_id))
except KeyboardInterrupt:
    print("interrupted")
"""
    assert program(gateway, text).split() == ["interrupted"]
    assert gateway.call("WatchPreviewJob").ended.wait(PATIENCE)
