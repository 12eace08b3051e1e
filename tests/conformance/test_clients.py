"""Conformance: every client passes the same table of scenarios. README.md explains the table and the runners."""

from __future__ import annotations

import asyncio
import os
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from docpreview_emulator import Emulator
from tests.conformance.callers import Callers
from tests.conformance.languages import LANGUAGES, ROOT, Language
from tests.conformance.runner import running
from tests.conformance.world import PATIENCE, World
from tests.integration.conftest import BUCKET
from tests.programs import need

SCENARIOS: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "scenarios.yaml").read_text())
TERMINAL = ("SUCCESS", "FAILED", "CANCELLED")
# These values differ from call to call.
_IDS = ("request_id", "upstream_request_id")
_STEP_SECONDS = 20

pytestmark = pytest.mark.timeout(900)  # the first test of a language builds its client


@pytest.fixture(
    scope="session",
    params=LANGUAGES,
    ids=[one.name for one in LANGUAGES],
)
def language(request: pytest.FixtureRequest) -> Language:
    """A language whose client is built."""
    chosen: Language = request.param
    for tool in chosen.tools:
        need(tool)
    chosen.build()
    return chosen


def test_every_client_passes_its_own_linters_and_tests(language: Language) -> None:
    """The commands of languages.py."""
    for command in language.checks:
        language.run(command)


async def test_the_example_program_follows_a_job_and_prints_its_page_urls(language: Language) -> None:
    """The example creates a job, follows it to its end and prints a URL for each page."""
    assert language.example, "languages.py does not say how to start it"
    async with Emulator() as emulator, World(emulator, {}) as world:
        await world.prepare("upload", {"document": "seven-pages.pdf", "as": "a.pdf"})
        process = await asyncio.create_subprocess_exec(
            *(*language.example, BUCKET, "a.pdf", "out/p-${Page}.jpg", world.target),
            cwd=language.folder,
            env=os.environ | language.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await asyncio.wait_for(process.communicate(), _STEP_SECONDS + PATIENCE)
        assert process.returncode == 0, printed.decode()
        assert "success" in printed.decode().lower()
        assert printed.decode().count("q-signature=") == 7


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["name"])
async def test_every_client_sees_the_same_jobs_and_errors_in_a_scenario(
    language: Language, scenario: dict[str, Any], tmp_path: Path
) -> None:
    """The expectations are the scenario's."""
    callers = Callers.of(scenario, tmp_path)
    async with Emulator() as emulator, World(emulator, scenario.get("gateway", {}) | callers.changes) as world:
        await _prepare(world, scenario)
        async with running(language, tmp_path) as runner:
            job_id = ""
            for step in scenario["steps"]:
                await _prepare(world, step)
                request = _request(step, world.target, Places(job_id, tuple(world.jobs), tmp_path))
                work = asyncio.create_task(runner.answer(request | callers.proof(step.get("as"))))
                for change in step.get("meanwhile", ()):
                    await world.disturb(change)
                answer = await asyncio.wait_for(work, request["timeout_ms"] / 1000 + PATIENCE)
                if answer.get("busy"):
                    print(f"\n{language.name}: {answer['busy']}")  # noqa: T201 - the figures
                _compare(answer, step["expect"], job_id)
                job_id = answer["jobs"][0]["job_id"] if answer["jobs"] else job_id
            await runner.end()
        counts = scenario.get("after", {})
        assert {what: world.counted(what) for what in counts} == counts


async def _prepare(world: World, part: dict[str, Any]) -> None:
    for before in part.get("before", ()):
        for change, value in before.items():
            await world.prepare(change, value)


class Places(NamedTuple):
    """What stands in place of the words in angle brackets of a step."""

    job_id: str
    jobs: tuple[str, ...]
    folder: Path

    def filled(self, value: Any) -> Any:
        """The argument that `value` stands for."""
        if isinstance(value, list):
            return [inner for one in value for inner in (self.jobs if one == "<jobs>" else (self.filled(one),))]
        match str(value).strip("<>").split(" ") if str(value).startswith("<") else [value]:
            case ["job_id"]:
                return self.job_id
            case ["directory"]:
                return str(next(path for path in map(self._pages, count(1)) if not path.exists()))
            case [size, "bytes"]:
                return _file_of(int(size), self.folder / "large")
            case [path] if path != value:
                return str(ROOT / path)
        return value

    def _pages(self, number: int) -> Path:
        return self.folder / f"pages-{number}"


def _file_of(size: int, path: Path) -> str:
    with path.open("wb") as file:
        file.truncate(size)
    return str(path)


def _request(step: dict[str, Any], target: str, places: Places) -> dict[str, Any]:
    return {
        "target": target,
        "call": step["call"],
        "timeout_ms": step.get("timeout_ms", _STEP_SECONDS * 1000),
        "with": {name: places.filled(value) for name, value in step["with"].items()},
    }


def _compare(answer: dict[str, Any], expected: dict[str, Any], job_id: str) -> None:
    jobs = answer["jobs"]
    error = _normalised(answer["error"], expected.get("error", {}))
    assert error == expected.get("error"), answer
    last = jobs[-1] if jobs else {}
    files = answer.get("files") or []
    assert all(size > 0 for _, size in files), answer
    found = {
        "jobs": len(jobs),
        "distinct_jobs": len({job["job_id"] for job in jobs}),
        "ended_jobs": sum(job["state"] in TERMINAL for job in jobs),
        "job_id": "<job_id>" if last.get("job_id") == job_id else last.get("job_id"),
        "first_state": jobs[0]["state"] if jobs else None,
        "last_state": last.get("state"),
        "page_count": last.get("page_count"),
        "page_urls": last.get("page_urls"),
        "failure_reason": last.get("failure_reason"),
        "files": [name for name, _ in files],
        "uploaded": _named(answer.get("uploaded"), expected.get("uploaded", {})),
        "job_errors": answer.get("job_errors"),
        "busy": _named(answer.get("busy"), expected.get("busy", {})),
        "error": error,
    }
    assert {key: found[key] for key in expected} == expected, answer
    seen: dict[str, dict[str, Any]] = {}
    for job in jobs:
        if (earlier := seen.get(job["job_id"])) is not None:
            assert earlier["state"] not in TERMINAL, answer
            assert earlier != job, answer
        seen[job["job_id"]] = job


def _named(values: dict[str, Any] | None, named: dict[str, Any]) -> dict[str, Any]:
    return {name: (values or {}).get(name) for name in named}


def _normalised(error: dict[str, Any] | None, named: dict[str, Any]) -> dict[str, Any] | None:
    """The error in the table's form, with the keys that the table names."""
    if error is None:
        return None
    written = {
        **error,
        "metadata": {name: value for name, value in error["metadata"].items() if name not in _IDS},
        "retry_delay": error["retry_delay_ms"] is not None and error["retry_delay_ms"] > 0,
        "request_id": bool(error["request_id"]),
    }
    return {key: written[key] for key in named or written}
