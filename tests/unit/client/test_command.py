"""The `docpreview` command as scripts and people use it."""

import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner, Result

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions, Watermark
from docpreview.v1.preview_job_service_pb2 import (
    CreatePreviewJobRequest,
    ListPreviewJobsRequest,
    ListPreviewJobsResponse,
)
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesResponse, PreviewQueue
from docpreview.v1.usage_service_pb2 import PageUsage, Usage
from docpreview_client.cli import listing, parameters
from docpreview_client.cli.app import app
from docpreview_client.cli.exit_codes import EXIT_CODES_HELP
from docpreview_client.cli.field_names import FieldNames
from docpreview_client.cli.text_view import TextView
from tests.packaging.project import ROOT

from .fake_gateway import Failure, FakeGateway, Silence
from .samples import BUCKET, JOB_ID, failed, failure, invalid, job, over_quota, succeeded

Docpreview = Callable[..., Result]


@pytest.fixture
def docpreview(gateway: FakeGateway) -> Docpreview:
    def run(*arguments: str, stdin: str | None = None, bucket: str | None = None) -> Result:
        environment = {"DOCPREVIEW_TARGET": gateway.target, "DOCPREVIEW_TOKEN": None, "DOCPREVIEW_BUCKET": bucket}
        return CliRunner().invoke(app, list(arguments), input=stdin, env=environment)

    return run


def lines(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


REQUEST_ID = "7d3f9b7e-6d0c-4a51-9f0e-2f4c8f6f2a10"


def test_create_passes_every_option_and_prints_the_job(gateway: FakeGateway, docpreview: Docpreview) -> None:
    """Every option reaches its field; the job is printed."""
    gateway.will("CreatePreviewJob", job(PreviewJob.STATE_SUBMITTED))
    options = "--output o/${Number}.png --format png --start-page 2 --end-page -1 --quality 80 --zoom 50 --dpi 150"
    more = "--comments show --orientation landscape --paper a2 --sheet-id 0 --single-image --user-data me"
    more += f" --request-id {REQUEST_ID} --watermark logo.png --tile-watermark"
    result = docpreview("create", BUCKET, "a.pptx", *options.split(), *more.split())
    assert (result.exit_code, result.stderr) == (0, "")
    assert JOB_ID in result.stdout
    request = gateway.asked("CreatePreviewJob")[0]
    assert (request.bucket, request.input_object, request.user_data) == (BUCKET, "a.pptx", "me")
    assert request.output.object == "o/${Number}.png"
    assert request.request_id == REQUEST_ID
    assert request.options == PreviewOptions(
        target_format=PreviewOptions.TARGET_FORMAT_PNG,
        start_page=2,
        end_page=-1,
        quality=80,
        zoom_percent=50,
        image_dpi=150,
        comments=PreviewOptions.COMMENTS_SHOW,
        paper_orientation=PreviewOptions.PAPER_ORIENTATION_LANDSCAPE,
        paper_size=PreviewOptions.PAPER_SIZE_A2,
        sheet_id=0,
        single_image=True,
        watermark=Watermark(image=ObjectLocation(object="logo.png"), tiled=True),
    )


@pytest.mark.parametrize(
    ("source", "template"),
    [
        ("docs/a.pptx", "out/${RequestToken}/page-${Number}.jpg"),
        ("docs/a.XLSX", "out/${RequestToken}/sheet-${SheetID}/page-${Number}.jpg"),
    ],
)
def test_create_without_output_names_pages_by_a_template_that_the_cloud_takes(
    gateway: FakeGateway, docpreview: Docpreview, source: str, template: str
) -> None:
    """Workbooks need the sheet in it."""
    gateway.will("CreatePreviewJob", job())
    assert docpreview("create", BUCKET, source).exit_code == 0
    assert gateway.asked("CreatePreviewJob")[0].output.object == template


def test_a_password_file_gives_its_first_line_as_the_password(
    gateway: FakeGateway, docpreview: Docpreview, tmp_path: Path
) -> None:
    gateway.will("CreatePreviewJob", job())
    file = tmp_path / "password"
    file.write_text("open sesame\n")
    assert docpreview("create", BUCKET, "a.docx", "--password-file", str(file)).exit_code == 0
    assert gateway.asked("CreatePreviewJob")[0].options.password == "open sesame"


def test_a_password_dash_asks_for_the_password_without_echoing_it(gateway: FakeGateway, docpreview: Docpreview) -> None:
    gateway.will("CreatePreviewJob", job())
    result = docpreview("create", BUCKET, "a.docx", "--password", "-", stdin="open sesame\n")
    assert gateway.asked("CreatePreviewJob")[0].options.password == "open sesame"
    assert "sesame" not in result.output


def test_a_password_on_the_command_line_is_refused_and_not_repeated(
    gateway: FakeGateway, docpreview: Docpreview
) -> None:
    """The list of processes would show it."""
    result = docpreview("create", BUCKET, "a.docx", "--password", "sesame")
    assert result.exit_code == 2
    assert "sesame" not in result.output
    assert gateway.calls == []


def test_get_of_a_failed_job_succeeds_and_escapes_foreign_text(gateway: FakeGateway, docpreview: Docpreview) -> None:
    """What came from outside cannot format or command the terminal."""
    gateway.will("GetPreviewJob", failed())
    result = docpreview("get", BUCKET, JOB_ID)
    assert result.exit_code == 0
    assert "DocTooBig too [bold]big[/bold] \\x1b[31mred" in result.stdout
    assert datetime.fromtimestamp(1_700_000_000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z") in result.stdout


def test_get_as_json_prints_the_job_as_one_json_object(gateway: FakeGateway, docpreview: Docpreview) -> None:
    """With the contract's field names, wherever --json stands."""
    gateway.will("GetPreviewJob", succeeded("https://a/1"))
    after = lines(docpreview("get", BUCKET, JOB_ID, "--json", "--page-url-ttl", "60"))
    before = lines(docpreview("--json", "get", BUCKET, JOB_ID))
    assert after == before
    assert after[0]["job_id"] == JOB_ID
    assert after[0]["state"] == "STATE_SUCCESS"
    assert [request.page_url_ttl.seconds for request in gateway.asked("GetPreviewJob")] == [60, 0]


def test_list_passes_filters_joins_pages_and_stops_at_its_limit(gateway: FakeGateway, docpreview: Docpreview) -> None:
    """No more pages are asked for than --limit needs."""
    gateway.will(
        "ListPreviewJobs",
        ListPreviewJobsResponse(jobs=[job(job_id="d1")], next_page_token="two"),
        ListPreviewJobsResponse(jobs=[job(job_id="d2"), job(job_id="d3")], next_page_token="three"),
    )
    filters = ["--state", "failed", "--state", "running", "--after", "2026-01-02T03:04:05", "--oldest-first"]
    result = docpreview("list", BUCKET, "--limit", "2", *filters)
    assert result.exit_code == 0
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [["d1", "RUNNING"], ["d2", "RUNNING"]]
    requests = gateway.asked("ListPreviewJobs")
    assert [request.page_token for request in requests] == ["", "two"]
    assert requests[0].order == ListPreviewJobsRequest.ORDER_OLDEST_FIRST
    assert list(requests[0].states) == [PreviewJob.STATE_FAILED, PreviewJob.STATE_RUNNING]


def test_list_as_json_prints_one_job_per_line(gateway: FakeGateway, docpreview: Docpreview) -> None:
    gateway.will("ListPreviewJobs", ListPreviewJobsResponse(jobs=[job(job_id="d1"), job(job_id="d2")]))
    assert [line["job_id"] for line in lines(docpreview("list", BUCKET, "--json"))] == ["d1", "d2"]


def test_list_without_jobs_prints_nothing_to_stdout_and_a_word_to_stderr(
    gateway: FakeGateway, docpreview: Docpreview
) -> None:
    gateway.will("ListPreviewJobs", ListPreviewJobsResponse())
    result = docpreview("list", BUCKET)
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (0, "", "No jobs.")


def test_queues_are_a_table_that_shows_markup_as_text(gateway: FakeGateway, docpreview: Docpreview) -> None:
    queue = PreviewQueue(queue_id="p1", name="[red]main[/red]", state=PreviewQueue.STATE_ACTIVE, max_size=10000)
    gateway.will("ListPreviewQueues", ListPreviewQueuesResponse(queues=[queue]))
    row = docpreview("queues", BUCKET).stdout.splitlines()[1].split()
    assert row == ["p1", "[red]main[/red]", "ACTIVE", "10000", "0"]


def test_usage_is_a_line_per_period_with_a_dash_where_unbounded(gateway: FakeGateway, docpreview: Docpreview) -> None:
    day = PageUsage(end_time=Timestamp(seconds=1_700_000_000), used_pages=7, reserved_pages=50, budget_pages=100)
    day.left_pages = 43
    month = PageUsage(end_time=Timestamp(seconds=1_700_000_000), used_pages=70)
    gateway.will("GetUsage", Usage(caller="reports", day=day, month=month))
    rows = [line.split() for line in docpreview("usage").stdout.splitlines()]
    assert rows[1][:6] == ["reports", "day", "7", "50", "100", "43"]
    assert rows[2][:6] == ["reports", "month", "70", "0", "-", "-"]


def test_usage_of_a_caller_that_is_not_counted_is_told_on_stderr(gateway: FakeGateway, docpreview: Docpreview) -> None:
    gateway.will("GetUsage", Usage(caller="anonymous"))
    assert "does not count the pages of anonymous" in docpreview("usage").stderr


def test_usage_says_of_reserved_pages_that_they_are_counted_soon(gateway: FakeGateway, docpreview: Docpreview) -> None:
    """Right after a preview none are used yet."""
    day, month = PageUsage(reserved_pages=50), PageUsage(reserved_pages=50)
    gateway.will("GetUsage", Usage(caller="reports", day=day, month=month))
    assert "soon after a job's end" in docpreview("usage").stderr
    gateway.will("GetUsage", Usage(caller="reports", day=PageUsage(used_pages=7)))
    assert docpreview("usage").stderr.count("Reserved:") == 0


@pytest.mark.parametrize(
    ("method", "answer", "words"),
    [
        ("GetPreviewJob", succeeded(), ("get", JOB_ID)),
        ("WatchPreviewJob", [succeeded()], ("watch", JOB_ID)),
        ("WaitPreviewJob", succeeded(), ("wait", JOB_ID)),
        ("CreatePreviewJob", job(), ("create", "a.pptx")),
        ("ListPreviewJobs", ListPreviewJobsResponse(), ("list",)),
        ("ListPreviewQueues", ListPreviewQueuesResponse(), ("queues",)),
    ],
)
def test_the_bucket_of_the_environment_takes_the_place_of_one_that_is_not_named(
    gateway: FakeGateway, docpreview: Docpreview, method: str, answer: Any, words: tuple[str, ...]
) -> None:
    """Of two arguments the first is the bucket all the same, and without either the command says what to give."""
    command, *rest = words
    gateway.will(method, answer)
    gateway.will(method, answer)
    assert docpreview(command, *rest, bucket="of-environment-1").exit_code == 0
    assert docpreview(command, "named-1", *rest, bucket="of-environment-1").exit_code == 0
    asked = gateway.asked(method)
    assert [request.bucket for request in asked] == ["of-environment-1", "named-1"]
    assert {getattr(request, "job_id", JOB_ID) for request in asked} == {JOB_ID}
    refused = docpreview(command, *rest)
    assert refused.exit_code == 2
    assert "DOCPREVIEW_BUCKET" in refused.stderr


@pytest.mark.parametrize(("command", "name"), [("get", "JOB_ID"), ("create", "INPUT_OBJECT")])
def test_a_command_without_what_it_is_about_names_it(docpreview: Docpreview, command: str, name: str) -> None:
    refused = docpreview(command, bucket="of-environment-1")
    assert (refused.exit_code, name in refused.stderr) == (2, True)


def test_the_readme_has_the_exit_codes_of_the_help() -> None:
    """Word for word, but for the marks of code."""
    readme = (ROOT / "clients" / "python" / "README.md").read_text().replace("`", "")
    assert re.findall(r"^\* ([\d, ]+): (.+)$", EXIT_CODES_HELP, re.MULTILINE) == re.findall(
        r"^\| ([\d, ]+) \| (.+) \|$", readme, re.MULTILINE
    )


def test_a_used_up_budget_is_named_with_advice_and_not_with_try_again(
    gateway: FakeGateway, docpreview: Docpreview
) -> None:
    gateway.will("CreatePreviewJob", over_quota("PAGE_BUDGET_EXHAUSTED", "caller:a:pages_per_day"))
    result = docpreview("create", BUCKET, "a.pdf", "--output", "p-${Page}.jpg")
    assert result.exit_code == 10
    assert "caller:a:pages_per_day" in result.stderr
    assert "larger budget" in result.stderr


def test_advice_promises_nothing_of_repeating_where_that_never_helps(
    gateway: FakeGateway, docpreview: Docpreview
) -> None:
    gateway.will("CreatePreviewJob", over_quota("PAGE_BUDGET_TOO_SMALL", "caller:a:pages_per_day"))
    result = docpreview("create", BUCKET, "a.pdf", "--output", "p-${Page}.jpg")
    assert result.stderr.splitlines()[-1] == "Ask for fewer pages, or for a larger budget."
    gateway.will("CreatePreviewJob", failure(grpc.StatusCode.UNKNOWN, "CREATE_OUTCOME_AMBIGUOUS"))
    assert "Only with a new --request-id, or without one" in docpreview("create", BUCKET, "a.pptx").stderr


def test_watch_without_a_terminal_prints_states_to_stderr_and_job_to_stdout(
    gateway: FakeGateway, docpreview: Docpreview
) -> None:
    gateway.will("WatchPreviewJob", [job(PreviewJob.STATE_SUBMITTED), job(), succeeded("", "")])
    result = docpreview("watch", BUCKET, JOB_ID)
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [f"{JOB_ID} SUBMITTED", f"{JOB_ID} RUNNING", f"{JOB_ID} SUCCESS"]
    assert "previews/abc_2.jpg" in result.stdout


def test_watch_as_json_prints_a_line_per_state_and_exits_by_the_outcome(
    gateway: FakeGateway, docpreview: Docpreview
) -> None:
    gateway.will("WatchPreviewJob", [job(), failed()])
    result = docpreview("watch", BUCKET, JOB_ID, "--json")
    assert [line["state"] for line in lines(result)] == ["STATE_RUNNING", "STATE_FAILED"]
    assert result.exit_code == 1


def test_watch_exits_at_its_timeout_with_9_while_running_and_6_if_unanswered(
    gateway: FakeGateway, docpreview: Docpreview
) -> None:
    gateway.will("WatchPreviewJob", [job(), Silence()])
    assert docpreview("watch", BUCKET, JOB_ID, "--timeout", "0.5").exit_code == 9
    gateway.will("WatchPreviewJob", [Silence()])
    assert docpreview("watch", BUCKET, JOB_ID, "--timeout", "0.5").exit_code == 6


@pytest.mark.parametrize(("answer", "exit_code"), [(succeeded(), 0), (failed(), 1), (job(), 9)])
def test_wait_exits_by_how_the_job_ended_or_that_it_has_not(
    gateway: FakeGateway, docpreview: Docpreview, answer: PreviewJob, exit_code: int
) -> None:
    gateway.will("WaitPreviewJob", answer)
    assert docpreview("wait", BUCKET, JOB_ID, "--timeout", "0.001").exit_code == exit_code


@pytest.mark.parametrize(
    ("answer", "exit_code"),
    [
        (invalid(bucket="is required"), 3),
        (failure(grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND"), 4),
        (failure(grpc.StatusCode.PERMISSION_DENIED, "BUCKET_NOT_CONFIGURED"), 5),
        (Failure(grpc.StatusCode.UNAUTHENTICATED), 5),
        (failure(grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE"), 6),
        (failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_THROTTLED"), 6),
        (failure(grpc.StatusCode.UNKNOWN, "CREATE_OUTCOME_UNKNOWN"), 7),
        (failure(grpc.StatusCode.UNKNOWN, "CREATE_OUTCOME_AMBIGUOUS"), 7),
        (over_quota("PAGE_BUDGET_TOO_SMALL", "caller:a:pages_per_day"), 3),
        (over_quota("PAGE_BUDGET_EXHAUSTED", "caller:a:pages_per_day"), 10),
        (failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_QUOTA"), 10),
        (failure(grpc.StatusCode.FAILED_PRECONDITION, "CI_ROLE_MISSING"), 8),
        (failure(grpc.StatusCode.INTERNAL, "INTERNAL"), 70),
    ],
)
def test_a_failed_create_exits_by_its_reason_and_prints_nothing_to_stdout(
    gateway: FakeGateway, docpreview: Docpreview, answer: Failure, exit_code: int
) -> None:
    """Scripts decide on the exit code."""
    gateway.will("CreatePreviewJob", answer)
    result = docpreview("create", BUCKET, "a.pptx")
    assert (result.exit_code, result.stdout) == (exit_code, "")


def test_an_error_names_every_bad_field_and_shows_markup_as_text(gateway: FakeGateway, docpreview: Docpreview) -> None:
    gateway.will("CreatePreviewJob", invalid(bucket="is required", quality="[1] to [100]"))
    result = docpreview("create", BUCKET, "a.pptx")
    assert result.stderr.splitlines() == [
        "Error: 2 fields are invalid (INVALID_REQUEST)",
        "  BUCKET: is required",
        "  --quality: [1] to [100]",
        "Change what is named above.",
    ]


def test_an_error_as_json_is_one_object_on_stderr(gateway: FakeGateway, docpreview: Docpreview) -> None:
    gateway.will(
        "GetPreviewJob",
        failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_THROTTLED", retry_delay=timedelta(seconds=2)),
    )
    printed = json.loads(docpreview("get", BUCKET, JOB_ID, "--json").stderr)
    assert printed["exit_code"] == 6
    assert printed["error"]["reason"] == "UPSTREAM_THROTTLED"
    assert printed["error"]["retry_delay_seconds"] == 2.0
    assert printed["error"]["request_id"] == "req-7"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.24, "0.3 s"),
        (2, "2 s"),
        (59.2, "1 min"),
        (61, "1 min 1 s"),
        (7199.5, "2 h"),
        (57286.8, "15 h 55 min"),
        (57240, "15 h 54 min"),
        (30 * 86400 + 1, "30 d 1 h"),
    ],
)
def test_the_time_to_wait_is_told_in_words(
    gateway: FakeGateway, docpreview: Docpreview, seconds: float, words: str
) -> None:
    delay = timedelta(seconds=seconds)
    gateway.will("GetPreviewJob", failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_QUOTA", retry_delay=delay))
    assert f"Try again in {words}.\n" in docpreview("get", BUCKET, JOB_ID).stderr


def test_a_token_in_the_clear_to_another_machine_is_refused_and_not_shown(
    docpreview: Docpreview, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    result = docpreview("get", BUCKET, JOB_ID, "--target", "gateway.example:50051", "--token-file", str(file))
    assert result.exit_code == 2
    assert "s3cret" not in result.output


def test_the_token_of_a_file_is_sent_as_a_bearer_token(
    gateway: FakeGateway, docpreview: Docpreview, tmp_path: Path
) -> None:
    gateway.will("GetPreviewJob", job())
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    assert docpreview("--token-file", str(file), "get", BUCKET, JOB_ID).exit_code == 0
    assert gateway.calls[0].metadata["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"one\ntwo\n", "2 lines"), (b"\n", "is empty"), (b"with space", "one line of"), (b"\xff\xfe", "one line of")],
)
def test_a_token_file_without_one_token_is_refused_clearly_and_not_shown(
    gateway: FakeGateway, docpreview: Docpreview, tmp_path: Path, content: bytes, words: str
) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    result = docpreview("get", BUCKET, JOB_ID, "--token-file", str(file))
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert "two" not in result.stderr
    assert gateway.calls == []


def test_a_token_file_may_end_with_empty_lines(gateway: FakeGateway, docpreview: Docpreview, tmp_path: Path) -> None:
    gateway.will("GetPreviewJob", job())
    file = tmp_path / "token"
    file.write_bytes(b"\r\n s3cret \r\n\r\n")
    assert docpreview("get", BUCKET, JOB_ID, "--token-file", str(file)).exit_code == 0
    assert gateway.calls[0].metadata["authorization"] == "Bearer s3cret"


def test_signed_addresses_have_lines_of_their_own_that_are_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    """On a narrow terminal, too: they are copied."""
    url = f"https://docs.example/{'a' * 300}?q-signature={'b' * 300}"
    view = TextView(FieldNames("get"))
    view._out = Console(file=sys.stdout, width=40, force_terminal=True, color_system=None, markup=False)
    view.job(succeeded(url, url))
    assert capsys.readouterr().out.splitlines().count(url) == 2


def test_create_of_a_file_of_this_machine_names_the_command_that_uploads_it(
    gateway: FakeGateway, docpreview: Docpreview, tmp_path: Path
) -> None:
    file = tmp_path / "a.pptx"
    file.write_bytes(b"slides")
    result = docpreview("create", BUCKET, str(file))
    assert result.exit_code == 2
    assert "docpreview preview" in " ".join(result.stderr.replace("│", " ").split())
    assert gateway.calls == []


def fields_of(message: type[Message], prefix: str = "") -> list[str]:
    return [f"{prefix}{field.name}" for field in message.DESCRIPTOR.fields]


@pytest.mark.parametrize("command", ["create", "preview"])
def test_every_field_of_a_create_is_named_as_an_option_that_the_command_has(command: str) -> None:
    names = FieldNames(command)
    fields = {*fields_of(CreatePreviewJobRequest), *fields_of(PreviewOptions, "options.")} - {"options"}
    named = {names.name(field) for field in fields | {"output.object", "output.bucket"}}
    known = {option for one in get_command(app).commands[command].params for option in one.opts}  # type: ignore[attr-defined]
    arguments = {"BUCKET", "INPUT_OBJECT", "DOCUMENT"}
    assert named - arguments <= known
    assert names.name("options.watermark.image.object") == "--watermark"
    assert names.name("something_new") == "something_new"
    assert names.sentence("must not be set together with options.page_ranges") == (
        "must not be set together with --page-ranges"
    )
    assert names.sentence("must be -1 (to the last page) or at least start_page").endswith("at least --start-page")
    assert names.sentence("not to TARGET_FORMAT_PDF; the order of states") == "not to --format pdf; the order of states"


def test_a_missing_token_file_exits_with_2(docpreview: Docpreview, tmp_path: Path) -> None:
    assert docpreview("get", BUCKET, JOB_ID, "--token-file", str(tmp_path / "no")).exit_code == 2


@pytest.mark.parametrize(
    ("choices", "enum", "prefix"),
    [
        (parameters.Format, PreviewOptions.TargetFormat, "TARGET_FORMAT_"),
        (parameters.Orientation, PreviewOptions.PaperOrientation, "PAPER_ORIENTATION_"),
        (parameters.Paper, PreviewOptions.PaperSize, "PAPER_SIZE_"),
        (parameters.Comments, PreviewOptions.Comments, "COMMENTS_"),
        (listing.State, PreviewJob.State, "STATE_"),
    ],
)
def test_the_choices_of_an_option_are_those_of_the_contract(
    choices: type[parameters.Format], enum: type[PreviewOptions.TargetFormat], prefix: str
) -> None:
    assert {f"{prefix}{choice.name}" for choice in choices} == set(enum.keys()) - {f"{prefix}UNSPECIFIED"}
