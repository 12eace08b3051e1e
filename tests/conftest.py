"""What tests of several folders share, and the table of what was skipped."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from rich.table import Table
from xdist.scheduler import LoadScopeScheduling

from tests.programs import PROGRAMS, missing
from tests.redis_groups import Cluster, running_cluster
from tests.redis_server import RedisServer, running_redis

if TYPE_CHECKING:
    from collections.abc import Iterator

SKIPPED = "docpreview/skipped"
"""In pytest's cache: how many tests the run before skipped, by the reason."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--continued", action="store_true", help="count on in the table of skipped tests where the run before stopped"
    )


class ByGroup(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Tests of one file run in one worker; in the conformance suite those of one language, which one worker builds.

    pytest-xdist's own `xdist_group` has no effect with pytest 9.2, whose items have another source of their node id.
    """

    def _split_scope(self, nodeid: str) -> str:
        path, _, name = nodeid.partition("::")
        language = re.search(r"\[([a-z]+)", name) if path == "tests/conformance/test_clients.py" else None
        return language[1] if language else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByGroup | None:
    return ByGroup(config, log) if config.getoption("dist") == "loadfile" else None


class FailuresAtOnce:
    """A failing test is named when it has failed, not only at the end."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.ensure_newline()
            self._terminal.write_line(f"FAILED {report.nodeid} {report.longreprtext.rpartition(chr(10))[2]}", red=True)


@pytest.hookimpl(trylast=True)  # after the terminal reporter is there
def pytest_configure(config: pytest.Config) -> None:
    terminal: pytest.TerminalReporter | None = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        config.pluginmanager.register(FailuresAtOnce(terminal))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in which a test takes its time go first: at the end one worker would run them while the others wait."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One row for each program that tests were skipped for want of, with how to get it; and for each other reason."""
    cache = getattr(config, "cache", None)  # none with -p no:cacheprovider
    before = cache.get(SKIPPED, {}) if cache and config.getoption("--continued") else {}
    reports = terminalreporter.getreports("skipped")
    skipped = Counter(before) + Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in reports)
    if cache:
        cache.set(SKIPPED, skipped)
    terminalreporter.section("skipped")
    terminalreporter.write_line(_table(skipped) if skipped else "nothing was skipped")


def _table(skipped: dict[str, int]) -> str:
    programs = {missing(name): (name, how) for name, how in PROGRAMS.items()}
    table = Table("not here", "tests", "how to get it", box=None, pad_edge=False)
    for reason, count in sorted(skipped.items()):
        name, how = programs.get(reason, (reason, ""))
        table.add_row(name, str(count), how)
    console = Console(width=160)
    with console.capture() as text:
        console.print(table)
    return text.get()


@pytest.fixture(scope="session")
def _redis_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_server(_redis_of_the_session: RedisServer) -> RedisServer:
    """An empty Redis server, to be used but not to be stopped."""
    assert _redis_of_the_session.command("FLUSHALL").startswith(b"+OK")
    return _redis_of_the_session


@pytest.fixture(scope="session")
def _cluster_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def redis_cluster(_cluster_of_the_session: Cluster) -> Cluster:
    """An empty Redis cluster, to be used but not to be stopped."""
    for node in _cluster_of_the_session.nodes:
        assert node.command("FLUSHALL").startswith(b"+OK")
    return _cluster_of_the_session
