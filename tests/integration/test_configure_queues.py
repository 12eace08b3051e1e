"""`docpreview-gateway callbacks configure`, and what `doctor` says of the queues of a deployment."""

from __future__ import annotations

import asyncio
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from docpreview_emulator import Emulator
from docpreview_emulator.threaded import running
from docpreview_gateway.__main__ import app
from docpreview_gateway.doctor.checks import queue_callbacks, run_checks
from docpreview_gateway.doctor.queue_callbacks import Refused, queue_addresses
from docpreview_gateway.settings.loading import load
from docpreview_gateway.upstream.wire.queue_notices import NoticedQueue, NotifyConfig
from tests.documents.blocks import run_by
from tests.documents.session import commands
from tests.integration.conftest import BUCKET, REGION
from tests.integration.gateway_processes import configuration

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typer.testing import Result

    from docpreview_gateway.doctor.diagnosis import Finding

pytestmark = pytest.mark.usefixtures("log_of_the_tests")

HERE = "tests/integration/test_configure_queues.py"
BASE = "http://127.0.0.1:9/callback"


class Scene:
    """An emulator, and the configuration of a gateway in front of it."""

    def __init__(self, emulator: Emulator, folder: Path) -> None:
        self.emulator = emulator
        self.folder = folder
        self.key = folder / "ledger.key"
        self.key.write_text("k" * 40)
        self.queue = emulator.queue_id(BUCKET, REGION)
        self.path = self.configured()

    def configured(self, **changes: object) -> Path:
        """A configuration with callbacks of queues."""
        callbacks = {"public_url": BASE, "listen": "127.0.0.1:0", "mode": "queue"}
        values: dict[str, object] = {"callbacks": callbacks, "ledger": {"key_file": str(self.key)}}
        return configuration(self.emulator, self.folder, **(values | changes))

    def run(self, *options: str, answer: str | None = None) -> Result:
        """Run the command. Neither of its outputs ever has a token."""
        command = ["callbacks", "configure", "--config", str(self.path), *options]
        result = CliRunner().invoke(app, command, input=answer)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        for secret in (self.token, "somebody's secret"):
            assert secret not in result.output
        return result

    @property
    def token(self) -> str:
        """That of the bucket's queues."""
        return queue_addresses(load(self.path)).wanted(BUCKET).url.rpartition("/")[2]

    def now(self) -> NoticedQueue:
        """The queue as the cloud shows it."""

        async def look() -> NoticedQueue:
            async with queue_callbacks(load(self.path)) as queues:
                seen = await queues.seen(load(self.path).buckets[0].bucket())
                assert isinstance(seen, list)
                return seen[0].queue

        return asyncio.run(look())

    def tells(self, notify: NotifyConfig) -> None:
        """Have the queue tell this, as another tool would do it."""

        async def write() -> Refused | None:
            async with queue_callbacks(load(self.path)) as queues:
                seen = await queues.seen(load(self.path).buckets[0].bucket())
                assert isinstance(seen, list)
                return await queues.written(seen[0], notify)

        assert asyncio.run(write()) is None

    def writes(self) -> int:
        """Updates of queues that have reached the cloud."""
        return sum(request.operation == "update_queue" for request in self.emulator.requests)

    def findings(self) -> list[Finding]:
        """What `doctor` finds of queues."""
        found = asyncio.run(run_checks(load(self.path), config=self.path))
        return [each for each in found if each.check == "callbacks" and each.subject != BASE]


FOREIGN = NotifyConfig("http://127.0.0.1:9/somebody's secret", "On", "Url", "TaskFinish", "XML")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with running(Emulator()) as emulator:
        yield Scene(emulator, tmp_path)


def test_a_queue_is_shown_written_and_looked_at_again(scene: Scene) -> None:
    """Without its token; and a second run finds nothing to do."""
    result = scene.run("--yes")
    assert result.exit_code == 0, result.output
    assert f"{BUCKET} {scene.queue}, queue-doc-process-1 (Active)\n  tells now:      nobody" in result.output
    assert f"is to tell:     {BASE}/<token>, as JSON" in result.output
    assert f"ok: {BUCKET} {scene.queue} tells {BASE}/<token>" in result.output
    assert scene.now().notify == NotifyConfig(f"{BASE}/{scene.token}", "On", "Url", "TaskFinish", "JSON")
    again = scene.run("--yes")
    assert (again.exit_code, "there is nothing to change" in again.output) == (0, True)
    assert scene.writes() == 1


def test_name_and_state_of_a_queue_stay_as_they_are(scene: Scene) -> None:
    """A paused queue does not go on because it is configured."""
    scene.emulator.pause_queue(scene.queue)
    before = scene.now()
    assert scene.run("--yes").exit_code == 0
    after = scene.now()
    assert (after.name, after.state, after.notify.is_on) == (before.name, "Paused", True)


def test_nothing_is_written_where_nobody_agrees(scene: Scene) -> None:
    result = scene.run()
    assert (result.exit_code, "give --yes" in result.output) == (2, True)
    assert scene.writes() == 0


def test_a_queue_that_tells_somebody_else_is_left_alone_unless_replaced(scene: Scene) -> None:
    """Whoever listens there would hear nothing any more."""
    scene.tells(FOREIGN)
    result = scene.run("--yes")
    assert result.exit_code == 1
    assert "tells now:      another receiver, at 127.0.0.1" in result.output
    assert "is left alone:  it tells somebody else; --replace writes it" in result.output
    assert "is to tell" not in result.output
    assert scene.now().notify == FOREIGN
    assert scene.run("--yes", "--replace").exit_code == 0
    assert scene.now().notify.url == f"{BASE}/{scene.token}"


def test_remove_has_queues_tell_nobody_and_leaves_those_of_others(scene: Scene) -> None:
    assert scene.run("--yes").exit_code == 0
    result = scene.run("--remove", "--yes")
    assert (result.exit_code, "is to tell:     nobody" in result.output) == (0, True)
    assert (scene.now().notify.is_on, scene.now().notify.url) == (False, "")
    scene.tells(FOREIGN)
    assert scene.run("--remove", "--yes").exit_code == 0
    assert scene.now().notify == FOREIGN


def test_a_new_secret_or_address_is_written_over_the_one_before(scene: Scene) -> None:
    """Without --replace: whoever listens there is this deployment."""
    assert scene.run("--yes").exit_code == 0
    before = scene.token
    scene.key.write_text(f"{'n' * 40}\n{'k' * 40}")
    (found,) = scene.findings()
    assert (found.level, "an earlier secret" in found.result) == ("problem", True)
    assert scene.run("--yes").exit_code == 0
    assert scene.token != before
    assert scene.now().notify.url == f"{BASE}/{scene.token}"


def test_a_missing_right_is_named_with_the_key_that_needs_it(scene: Scene) -> None:
    """Of reading as well as of writing; what the cloud said is there too."""
    scene.emulator.add_fault("error", "update_queue", status=403, code="AccessDenied")
    refused = scene.run("--yes")
    assert refused.exit_code == 1
    assert "the cloud answered AccessDenied (HTTP 403)" in refused.output
    assert "allow ci:UpdateDocProcessQueue on this bucket to the key of credentials.main" in refused.output
    assert not scene.now().notify.is_on
    scene.emulator.add_fault("error", "queues", status=403, code="AccessDenied")
    unread = scene.run("--yes")
    assert (unread.exit_code, "allow ci:DescribeDocProcessQueues" in unread.output) == (1, True)


def test_a_token_that_the_cloud_quotes_is_not_shown(scene: Scene) -> None:
    """`run` looks for it in what is printed."""
    quoted = f"{BASE}/{scene.token} is no address"
    scene.emulator.add_fault("error", "update_queue", status=400, code="InvalidArgument", message=quoted)
    result = scene.run("--yes")
    assert (result.exit_code, f"{BASE}/... is no address" in result.output) == (1, True)


@pytest.mark.parametrize("kind", ["throttle", "error", "drop_before", "garbage"])
def test_an_update_that_fails_is_told_and_makes_the_exit_code_1(scene: Scene, kind: str) -> None:
    """An answer that is no XML too: the look afterwards decides."""
    scene.emulator.add_fault(kind, "update_queue")
    result = scene.run("--yes")
    if kind == "garbage":
        assert (result.exit_code, scene.now().notify.is_on) == (0, True)
        return
    assert (result.exit_code, "to do:" in result.output) == (1, True)
    assert not scene.now().notify.is_on


def test_what_the_cloud_does_not_show_afterwards_is_not_called_done(scene: Scene) -> None:
    """And a queue that somebody changes meanwhile is left to them."""

    async def write() -> list[Refused | None]:
        given = load(scene.path)
        async with queue_callbacks(given) as queues:
            (before,) = await seen_by(queues)
            wanted = queue_addresses(given).wanted(BUCKET)
            unlike = before._replace(queue=NoticedQueue(scene.queue, "n", "Active", FOREIGN))
            gone = before._replace(queue=NoticedQueue("p0", "n", "Active", NotifyConfig()))
            # Written as the address with a blank behind it, which the cloud drops.
            odd = NotifyConfig(f"{wanted.url} ", "On", "Url")
            return [await queues.written(each, to) for each, to in ((unlike, wanted), (gone, wanted), (before, odd))]

    async def seen_by(queues: Any) -> Any:
        return await queues.seen(load(scene.path).buckets[0].bucket())

    problems = [each.problem for each in asyncio.run(write()) if each is not None]
    assert [text.partition(",")[0] for text in problems] == [
        "was changed meanwhile",
        "the cloud does not show this queue any more",
        "the cloud accepted the change",
    ]


def test_only_named_queues_are_written_and_an_unknown_one_ends_the_command(scene: Scene) -> None:
    result = scene.run("--queue", "p0", "--yes")
    assert (result.exit_code, f"there are: {BUCKET} {scene.queue}" in result.output) == (2, True)
    assert scene.run("--queue", scene.queue, "--yes").exit_code == 0
    assert scene.now().notify.is_on


def test_a_configuration_that_has_no_address_or_secret_is_refused_with_what_to_set(scene: Scene) -> None:
    scene.key.unlink()
    missing = CliRunner().invoke(app, ["callbacks", "configure", "--config", str(scene.path), "--yes"])
    assert (missing.exit_code, "ledger.key_file" in missing.output) == (2, True)
    path = configuration(scene.emulator, scene.folder)
    unset = CliRunner().invoke(app, ["callbacks", "configure", "--config", str(path), "--yes"])
    assert (unset.exit_code, "callbacks.public_url: is not set" in unset.output) == (2, True)
    both = CliRunner().invoke(app, ["callbacks", "configure", "--config", str(path), "--remove", "--replace"])
    assert both.exit_code == 2


def test_doctor_says_of_each_queue_whom_it_tells_and_the_command_that_mends_it(scene: Scene) -> None:
    (found,) = scene.findings()
    assert (found.level, found.subject) == ("problem", f"{BUCKET} {scene.queue}")
    command = f"docpreview-gateway callbacks configure --config {scene.path} --queue {scene.queue}"
    assert found.remedy == f"run `{command}`"
    scene.tells(FOREIGN)
    (found,) = scene.findings()
    printed = found.remedy.split("`")[1]
    assert (found.level, printed) == ("problem", f"{command} --replace")
    assert CliRunner().invoke(app, [*shlex.split(printed)[1:], "--yes"]).exit_code == 0
    (found,) = scene.findings()
    assert (found.level, "tells this deployment" in found.result) == ("ok", True)
    scene.emulator.add_fault("error", "queues", status=403, code="AccessDenied", skip=1)
    (found,) = scene.findings()
    assert (found.level, "ci:DescribeDocProcessQueues" in found.remedy) == ("problem", True)


def test_a_queue_that_creates_do_not_go_to_is_a_warning_of_doctor(scene: Scene) -> None:
    """It may be on purpose that another tool's queue is polled."""
    bucket = {"name": BUCKET, "region": REGION, "credentials": "main", "default_queue_id": "p1"}
    scene.path = scene.configured(buckets=[bucket])
    (found,) = scene.findings()
    assert found.level == "warning"


def test_doctor_says_nothing_of_queues_where_creates_name_the_address(scene: Scene) -> None:
    scene.path = scene.configured(callbacks={"public_url": BASE, "listen": "127.0.0.1:0"})
    assert load(scene.path).callbacks.mode == "job"
    assert scene.findings() == []


def test_the_commands_of_the_document_configure_a_queue_and_end_it(scene: Scene) -> None:
    (block,) = run_by(f"{HERE}::test_the_commands_of_the_document_configure_a_queue_and_end_it")
    is_on = []
    for line, _ in commands(block.text):
        words = shlex.split(line.replace("gateway.yaml", str(scene.path)))
        assert CliRunner().invoke(app, words[1:]).exit_code == 0
        is_on.append(scene.now().notify.is_on)
    assert is_on == [True, False]
