"""The report of `/debug`."""

from __future__ import annotations

import asyncio
import threading

from docpreview_gateway.telemetry.debug_report import debug_report


async def wait_deep(event: asyncio.Event, secret: str) -> None:
    await wait_deeper(event)
    assert secret


async def wait_deeper(event: asyncio.Event) -> None:
    await event.wait()


async def test_equal_tasks_are_shown_once_with_their_number_and_the_way_to_what_they_await() -> None:
    """No value of a variable is."""
    event = asyncio.Event()
    tasks = [asyncio.create_task(wait_deep(event, "hush"), name="hush") for _ in range(3)]
    await asyncio.sleep(0)
    report = (await debug_report({})).decode()
    (stack,) = [block for block in report.split("\n\n") if "wait_deeper" in block]
    lines = [line.rsplit(" ", 1)[1] for line in stack.splitlines()[1:]]
    assert stack.splitlines()[0] == "3 tasks"
    assert lines == ["wait_deep", "wait_deeper", "Event.wait"]
    assert "hush" not in report
    event.set()
    await asyncio.gather(*tasks)


async def test_a_thread_is_shown_where_it_is() -> None:
    started, go_on = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        go_on.wait(30)

    thread = threading.Thread(target=work, name="worker-of-test")
    thread.start()
    await asyncio.to_thread(started.wait, 30)
    report = (await debug_report({})).decode()
    go_on.set()
    thread.join()
    (stack,) = [block for block in report.split("\n\n") if "thread worker-of-test" in block]
    assert "test_a_thread_is_shown_where_it_is.<locals>.work" in stack
