"""The commands `token new`, `policy explain` and `check-config`, which operators use on a policy before its rollout."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme
import yaml
from typer.testing import CliRunner

from docpreview_gateway.__main__ import app
from docpreview_gateway.access import tokens
from tests.documents.blocks import run_by
from tests.documents.session import commands
from tests.integration.issuer import Issuer

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("log_of_the_tests")

HERE = "tests/integration/test_policy_commands.py"
EXAMPLES = Path(__file__).parents[2] / "examples"
BUCKET = "examplebucket-1250000000"
ISSUER = "https://idp.corp.example"
TLS = {"certificate": "tls.crt", "key": "tls.key", "client_ca": "ca.crt"}
JWT = {"issuer": "i", "audience": "a", "jwks_file": "f"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with the example's policy and every file that it refers to."""
    values = {
        "buckets": [{"name": BUCKET, "region": "ap-chongqing", "credentials": "main", "upload_credentials": "writer"}],
        "credentials": {name: {"secret_id": "an-id", "secret_key": "a-key"} for name in ("main", "writer")},
        "policy": {"file": str(EXAMPLES / "policy.yaml")},
        "auth": {"jwt": [{"issuer": ISSUER, "audience": "docpreview", "jwks_file": str(tmp_path / "jwks.json")}]},
        "tls": {name: str(tmp_path / file) for name, file in TLS.items()},
    }
    (tmp_path / "jwks.json").write_text(Issuer(ISSUER).jwks())
    write_pair(tmp_path)
    path = tmp_path / "gateway.yaml"
    path.write_text(json.dumps(values))
    return path


def write_pair(folder: Path) -> None:
    """A certificate with its key, and the authority."""
    authority = trustme.CA()
    pair = authority.issue_cert("localhost")
    pair.cert_chain_pems[0].write_to_path(folder / TLS["certificate"])
    pair.private_key_pem.write_to_path(folder / TLS["key"])
    authority.cert_pem.write_to_path(folder / TLS["client_ca"])


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments])
    return result.exit_code, result.output


def test_the_command_of_the_document_explains_a_call_that_is_allowed(config: Path) -> None:
    """With the policy that the document quotes."""
    (block,) = run_by(f"{HERE}::test_the_command_of_the_document_explains_a_call_that_is_allowed")
    ((line, _),) = commands(block.text)
    _, *words = shlex.split(line.replace("gateway.yaml", str(config)))
    code, said = run(*words)
    assert code == 0, said
    assert "callers.shop" in said


def test_token_new_prints_a_fresh_token_and_its_hash() -> None:
    """Each run prints another token."""
    (code, first), (_, second) = run("token", "new"), run("token", "new")
    assert code == 0
    token, hashed = first.split()
    found = tokens.split(token)
    assert found is not None
    assert tokens.parse_hash(hashed).matches(found[1])
    assert not tokens.parse_hash(second.split()[1]).matches(found[1])


def test_token_new_writes_the_token_to_a_file_of_its_owner_and_prints_the_hash_alone(tmp_path: Path) -> None:
    """As the client reads it: one line. A file that is there stays, since callers may read it."""
    path = tmp_path / "report.token"
    code, hashed = run("token", "new", "--out", str(path))
    split = tokens.split((written := path.read_text()).strip())
    assert (code, oct(path.stat().st_mode & 0o777)) == (0, "0o600")
    assert split is not None
    assert tokens.parse_hash(hashed.strip()).matches(split[1])
    code, said = run("token", "new", "--out", str(path))
    assert (code, path.read_text()) == (1, written)
    assert "is there already" in said
    code, said = run("token", "new", "--out", str(tmp_path / "none" / "report.token"))
    assert (code, said.endswith("report.token: No such file or directory\n")) == (1, True)


@pytest.mark.parametrize(
    ("caller", "method", "more", "allowed", "message"),
    [
        ("shop", "GetPreviewJob", (), True, "callers.shop.methods names *"),
        ("shop", "GetPreviewJob", ("--object", "shop/a.pdf"), True, "'shop/' covers it"),
        ("shop", "CreatePreviewJob", ("--object", "shop/../a.pdf"), False, "input_prefixes has no prefix that covers"),
        ("shop", "CreatePreviewJob", ("--output-object", "previews/${Number}"), False, "has no prefix that covers it"),
        ("shop", "CreatePreviewJob", ("--output-bucket", "other-1250000000"), False, "does not name other-1250000000"),
        ("shop", "CreatePreviewJob", ("--preset", "thumbnail"), True, "callers.shop.presets names thumbnail"),
        ("shop", "ServerReflection", (), False, "callers.shop.methods does not name ServerReflection"),
        ("archive", "CreatePreviewJob", ("--object", "any.pdf"), True, "is the whole bucket"),
        ("support", "CreatePreviewJob", (), False, "callers.support.methods does not name CreatePreviewJob"),
        ("support", "ServerReflection", (), True, "callers.support.methods names ServerReflection"),
        ("support", "GetUsage", (), False, "callers.support.methods does not name GetUsage"),
        ("shop", "WatchPreviewJob", (), True, f"addresses of pages: {BUCKET}/previews/shop/"),
        ("archive", "GetPreviewJob", (), True, "addresses of pages: none"),
    ],
)
def test_policy_explain_lists_each_rule_and_exits_by_the_decision(
    config: Path, caller: str, method: str, more: tuple[str, ...], *, allowed: bool, message: str
) -> None:
    """The exit code is 0 when the call would be allowed."""
    asked = ("--caller", caller, "--method", method, "--bucket", BUCKET, *more, "--config", str(config))
    code, output = run("policy", "explain", *asked)
    assert message in output
    assert code == (0 if allowed else 1)
    assert f"{caller} {'may' if allowed else 'may not'} call {method}" in output


@pytest.mark.parametrize(
    ("caller", "more", "allowed", "message"),
    [
        ("shop", (), True, f"callers.shop.uploads[{BUCKET}] names {BUCKET}"),
        ("shop", ("--object", "shop/${UploadId}.pdf"), True, f"uploads[{BUCKET}].prefixes 'shop/' covers it"),
        ("shop", ("--object", "shop/a.pdf"), True, f"uploads[{BUCKET}].types names application/pdf"),
        ("shop", ("--object", "shop/a.html"), False, f"uploads[{BUCKET}].types does not name text/html"),
        ("shop", ("--object", "shop/a.html", "--content-type", "application/pdf"), True, "types names application/pdf"),
        ("shop", ("--object", "in/a.pdf"), False, f"uploads[{BUCKET}].prefixes has no prefix that covers it"),
        ("shop", ("--content-length", "52428800"), True, f"uploads[{BUCKET}].max_bytes is 52428800"),
        ("shop", ("--content-length", "52428801"), False, "is 52428800, and the content has 52428801"),
        ("shop", ("--content-type", "application/pdf"), True, f"uploads[{BUCKET}].types names application/pdf"),
        ("shop", ("--content-type", "text/html"), False, f"uploads[{BUCKET}].types does not name text/html"),
        ("archive", (), False, "callers.archive.methods does not name CreateUpload"),
        ("archive", (), False, "callers.archive.uploads does not name"),
    ],
)
def test_policy_explain_tells_what_a_caller_may_upload(
    config: Path, caller: str, more: tuple[str, ...], *, allowed: bool, message: str
) -> None:
    """By bucket, key, length and type."""
    asked = ("--caller", caller, "--method", "CreateUpload", "--bucket", BUCKET, *more, "--config", str(config))
    code, output = run("policy", "explain", *asked)
    assert message in output
    assert code == (0 if allowed else 1)


@pytest.mark.parametrize(
    ("more", "allowed", "message"),
    [
        ((), True, "callers.shop.methods names *"),
        (("--bucket", BUCKET), True, f"callers.shop.uploads[{BUCKET}] names {BUCKET}"),
        (("--bucket", BUCKET, "--object", "shop/a.pdf"), True, f"uploads[{BUCKET}].prefixes 'shop/' covers it"),
        (("--bucket", BUCKET, "--object", "in/a.pdf"), False, f"uploads[{BUCKET}].prefixes has no prefix that covers"),
        (("--bucket", BUCKET, "--object", "shop/a.html"), False, f"uploads[{BUCKET}].types does not name text/html"),
        (("--bucket", "other-1250000000"), False, "callers.shop.uploads does not name other-1250000000"),
    ],
)
def test_policy_explain_asks_the_rule_of_uploads_about_a_completion_too(
    config: Path, more: tuple[str, ...], *, allowed: bool, message: str
) -> None:
    """As the gateway does, which asks the policy again when an upload is completed."""
    asked = ("--caller", "shop", "--method", "CompleteUpload", *more, "--config", str(config))
    code, output = run("policy", "explain", *asked)
    assert message in output
    assert code == (0 if allowed else 1)


def test_policy_explain_says_that_an_upload_is_aborted_by_whoever_began_it(config: Path) -> None:
    """No rule of uploads decides: an object that would decide nothing is a mistake, and so is one without a bucket."""
    asked = ("policy", "explain", "--caller", "shop", "--method")
    code, output = run(*asked, "AbortUpload", "--object", "shop/a.pdf", "--config", str(config))
    assert (code, "AbortUpload asks no rule of uploads" in " ".join(output.split())) == (2, True)
    assert run(*asked, "AbortUpload", "--config", str(config))[0] == 0
    code, output = run(*asked, "CompleteUpload", "--object", "shop/a.pdf", "--config", str(config))
    assert (code, "--bucket: is needed with --object" in output) == (2, True)


def test_a_bucket_whose_key_for_uploads_may_do_more_is_a_warning(config: Path) -> None:
    """In `check-config` and `policy explain`, for callers that may upload there."""
    explain = ("policy", "explain", "--bucket", BUCKET, "--config", str(config), "--caller")
    warned = f"warning: callers.shop.uploads[{BUCKET}]: the bucket has no upload_credentials"
    for has_key in (True, False):
        if not has_key:
            values = json.loads(config.read_text())
            del values["buckets"][0]["upload_credentials"]
            config.write_text(json.dumps(values))
        code, output = run("check-config", "--config", str(config))
        assert (code, output.count("warning: ")) == (0, 0 if has_key else 1)
        assert (warned in output) != has_key
        code, output = run(*explain, "shop", "--method", "CreateUpload")
        assert (code, warned in output) == (0, not has_key)
        assert "warning" not in run(*explain, "shop", "--method", "CreatePreviewJob")[1]
        assert "warning" not in run(*explain, "archive", "--method", "CreatePreviewJob")[1]


def test_policy_explain_refuses_the_length_of_what_is_no_upload(config: Path) -> None:
    """It would decide nothing."""
    asked = ("--caller", "shop", "--method", "GetPreviewJob", "--bucket", BUCKET, "--config", str(config))
    code, output = run("policy", "explain", *asked, "--content-length", "1")
    assert (code, "CreateUpload and CompleteUpload do" in " ".join(output.split())) == (2, True)


@pytest.mark.parametrize(
    ("caller", "more", "given", "message"),
    [
        ("shop", (), True, f"outputs[{BUCKET}].prefixes 'previews/shop/' covers it"),
        ("support", (), True, f"pages[{BUCKET}].prefixes 'previews/shop/' covers it"),
        ("archive", (), False, "callers.archive.page_urls is false"),
        ("shop", ("--page-object", "previews/archive/1.jpg"), False, "has no prefix that covers it"),
        ("shop", ("--page-object", "previews/shop/../archive/1.jpg"), False, "has no prefix that covers it"),
        ("shop", ("--output-bucket", "other-1250000000"), False, "does not name other-1250000000"),
    ],
)
def test_policy_explain_tells_whether_a_caller_gets_the_address_of_a_page(
    config: Path, caller: str, more: tuple[str, ...], *, given: bool, message: str
) -> None:
    """The call is allowed in any case; the exit code is that of the address."""
    asked = ("--caller", caller, "--method", "GetPreviewJob", "--bucket", BUCKET, "--config", str(config))
    code, output = run("policy", "explain", *asked, "--page-object", "previews/shop/1.jpg", *more)
    assert f"{caller} may call GetPreviewJob" in output
    assert message in output
    assert ("\nan address of" if given else "\nno address of") in output
    assert code == (0 if given else 1)


@pytest.mark.parametrize("method", ["GetJob", "getpreviewjob", "*", "", "Reflection", "ServerReflectionInfo", "Check"])
def test_policy_explain_refuses_a_method_that_does_not_exist_and_names_those_that_do(config: Path, method: str) -> None:
    """`*` is a word of policies, not a method."""
    asked = ("--caller", "shop", "--method", method, "--bucket", BUCKET, "--config", str(config))
    code, output = run("policy", "explain", *asked)
    assert code == 2
    assert "may" not in output
    for known in ("GetPreviewJob", "GetUsage", "ServerReflection"):
        assert known in output


def test_policy_explain_needs_a_bucket_for_methods_on_a_bucket_only(config: Path) -> None:
    """GetUsage and reflection have none."""
    asked = ("--caller", "shop", "--config", str(config), "--method")
    assert run("policy", "explain", *asked, "GetUsage") == (
        0,
        (
            "allowed  callers.shop.methods names *\n"
            "applies  callers.shop.rate admits 20 calls per second in bursts of 40, all methods together\n"
            "applies  callers.shop.concurrency admits 50 calls at a time\n"
            "shop may call GetUsage\n"
        ),
    )
    code, output = run("policy", "explain", *asked, "ListPreviewQueues")
    assert (code, "--bucket: is needed for ListPreviewQueues" in output) == (2, True)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("GetPreviewJob", "hidden: NOT_FOUND (JOB_NOT_FOUND), as if there were none"),
        ("WaitPreviewJob", "hidden: NOT_FOUND"),
        ("WatchPreviewJob", "hidden: NOT_FOUND"),
        ("WatchPreviewJobs", "hidden: their ids get the error JOB_NOT_FOUND"),
        ("BatchGetPreviewJobs", "hidden: their ids are among missing_job_ids"),
        ("ListPreviewJobs", "hidden: the list leaves them out"),
    ],
)
def test_policy_explain_of_a_hidden_job_says_what_the_call_has_in_its_place(
    config: Path, method: str, message: str
) -> None:
    """The call itself is permitted: it does not tell that there is such a job."""
    asked = ("--caller", "shop", "--method", method, "--bucket", BUCKET, "--config", str(config), "--object")
    code, output = run("policy", "explain", *asked, "other/a.pdf")
    assert (code, "DENIED" in output) == (1, False)
    assert f"shop may call {method} on {BUCKET}\nHIDDEN   callers.shop.buckets[{BUCKET}].input_prefixes" in output
    assert f"jobs of other/a.pdf: {message}" in output
    code, output = run("policy", "explain", *asked, "shop/a.pdf")
    assert (code, "jobs of shop/a.pdf: as they are" in output) == (0, True)


def test_policy_explain_of_a_create_shows_every_rule_that_changes_or_bounds_it(config: Path, tmp_path: Path) -> None:
    """Options in each layer, limits, budget and deduplication; of other methods their limits only."""
    policy = yaml.safe_load((EXAMPLES / "policy.yaml").read_text())
    policy["callers"]["shop"] |= {"dedupe_seconds": 60, "shadow": True}
    policy["callers"]["shop"]["options"]["default"] = {"quality": 80}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy))
    changed = json.loads(config.read_text()) | {"policy": {"file": str(tmp_path / "policy.yaml")}}
    config.write_text(json.dumps(changed))
    asked = ("--caller", "shop", "--bucket", BUCKET, "--config", str(config), "--method")
    code, output = run("policy", "explain", *asked, "CreatePreviewJob", "--preset", "thumbnail")
    assert code == 0
    shown = [line.removeprefix("applies  callers.shop.") for line in output.splitlines() if line.startswith("applies")]
    assert shown == [
        "rate admits 20 calls per second in bursts of 40, all methods together",
        "method_rates.CreatePreviewJob admits 2 calls per second in bursts of 5",
        "concurrency admits 50 calls at a time",
        "shadow is true: limits and budget only count",
        "options.default sets quality: 80, where neither the create nor its preset does",
        "options.force sets image_params: watermark/2/text/U0hPUA, whatever the create says",
        "options.at_most.image_dpi refuses more than 150",
        "options.max_pages refuses more than 200 pages and PDF as target, and selects as many without a selection",
        "budget admits 20000 pages a day and 200000 pages a month",
        "dedupe_seconds answers with the existing job of an equal create for 60 s",
        (
            "presets[thumbnail] sets target_format: TARGET_FORMAT_JPG, start_page: 1, end_page: 1, "
            "image_params: imageMogr2/thumbnail/320x"
        ),
    ]
    assert "options" not in run("policy", "explain", *asked, "GetPreviewJob")[1]


@pytest.mark.parametrize(("option", "value"), [("--preset", "thumbnail"), ("--output-object", "previews/${Number}")])
def test_policy_explain_refuses_what_only_a_create_has(config: Path, option: str, value: str) -> None:
    """It would decide nothing."""
    asked = ("--caller", "shop", "--method", "GetPreviewJob", "--bucket", BUCKET, "--config", str(config))
    code, output = run("policy", "explain", *asked, option, value)
    assert (code, "CreatePreviewJob" in output) == (2, True)


def test_policy_explain_of_a_page_needs_a_method_that_gives_addresses(config: Path) -> None:
    """Lists and creates give none."""
    asked = ("--caller", "shop", "--config", str(config), "--bucket", BUCKET, "--page-object", "p", "--method")
    for method in ("ListPreviewJobs", "CreatePreviewJob", "GetUsage"):
        code, output = run("policy", "explain", *asked, method)
        assert (code, "WaitPreviewJob" in output) == (2, True)


def test_policy_explain_of_an_unknown_caller_names_the_known_ones(config: Path) -> None:
    """An unknown caller is most often a typing error."""
    asked = ("--caller", "shpo", "--method", "GetPreviewJob", "--bucket", BUCKET, "--config", str(config))
    code, output = run("policy", "explain", *asked)
    assert code == 2
    assert "archive, shop, support" in output


def test_check_config_reads_the_policy_as_serve_would(config: Path) -> None:
    """An invalid policy is an error of the command."""
    assert "ok: 3 caller(s)" in run("check-config", "--config", str(config))[1]
    values = json.loads(config.read_text())
    del values["auth"]
    config.write_text(json.dumps(values))
    code, output = run("check-config", "--config", str(config))
    assert code == 2
    assert "https://idp.corp.example is not among auth.jwt" in output


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({}, ""),
        (
            {"buckets": [{"bucket": BUCKET, "input_prefixes": ["shop/../"], "pages": []}]},
            f"callers.shop.buckets[{BUCKET}].input_prefixes: 'shop/../' covers nothing",
        ),
        (
            {"uploads": [{"bucket": BUCKET, "prefixes": ["shop/../"]}]},
            f"callers.shop.uploads[{BUCKET}].prefixes: 'shop/../' covers nothing",
        ),
        (
            {"uploads": [{"bucket": BUCKET, "prefixes": ["shop/"]}], "methods": ["GetPreviewJob"]},
            "callers.shop.uploads: has no effect, because callers.shop.methods does not name CreateUpload",
        ),
        ({"uploads": [{"bucket": BUCKET, "prefixes": ["shop/"]}], "methods": ["CreateUpload", "CompleteUpload"]}, ""),
        (
            {"options": {"force": {"page_ranges": "1-20"}, "max_pages": 10}},
            "a create without options of its own is refused: options.page_ranges must select at most 10 pages",
        ),
        (
            {"options": {"force": {"image_dpi": 300}, "at_most": {"image_dpi": 150}}},
            "a create without options of its own is refused: options.image_dpi must be at most 150",
        ),
        (
            {"options": {"default": {"image_dpi": 300}, "at_most": {"image_dpi": 150}}},
            "a create without options of its own is refused: options.image_dpi must be at most 150",
        ),
        (
            {"options": {"force": {"target_format": "TARGET_FORMAT_PDF"}, "max_pages": 10}},
            "a create without options of its own is refused: options.target_format must be an image format",
        ),
        ({"options": {"at_most": {"image_dpi": 150}}}, ""),
        (
            {
                "options": {"force": {"image_dpi": 300}, "at_most": {"image_dpi": 150}},
                "methods": ["GetPreviewJob"],
                "uploads": [],
            },
            "",
        ),
    ],
)
def test_check_config_warns_of_what_cannot_work(
    config: Path, tmp_path: Path, change: dict[str, object], warning: str
) -> None:
    """Prefixes without keys, and options of the policy that the policy refuses. It is valid all the same."""
    policy = yaml.safe_load((EXAMPLES / "policy.yaml").read_text())
    policy["callers"]["shop"] = policy["callers"]["shop"] | {"presets": [], "options": {}} | change
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(policy))
    config.write_text(json.dumps(json.loads(config.read_text()) | {"policy": {"file": str(path)}}))
    code, output = run("check-config", "--config", str(config))
    assert code == 0
    assert output.count("warning: ") == bool(warning)
    assert warning in output


def test_check_config_warns_of_a_preset_beyond_the_bounds_of_its_caller(config: Path, tmp_path: Path) -> None:
    """Each use of it would be refused."""
    policy = yaml.safe_load((EXAMPLES / "policy.yaml").read_text())
    policy["presets"]["fine"] = {"image_dpi": 600}
    policy["callers"]["shop"] |= {"presets": ["thumbnail", "fine"]}
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(policy))
    config.write_text(json.dumps(json.loads(config.read_text()) | {"policy": {"file": str(path)}}))
    _, output = run("check-config", "--config", str(config))
    assert "callers.shop.options: a create with the preset fine is refused: options.image_dpi must be at most" in output


def test_policy_explain_says_once_that_a_bucket_is_not_named(config: Path) -> None:
    """Also for a create, whose output is in the same bucket."""
    asked = ("--caller", "shop", "--method", "CreatePreviewJob", "--bucket", "unknown-1250000000")
    code, output = run("policy", "explain", *asked, "--object", "shop/a.pdf", "--config", str(config))
    assert (code, output.count("DENIED")) == (1, 1)


@pytest.mark.parametrize("deep", ["policy.yaml", "gateway.yaml", "keys.yaml", "jwks.json"])
def test_check_config_of_a_deeply_nested_file_prints_one_line(config: Path, tmp_path: Path, deep: str) -> None:
    """No traceback."""
    values = json.loads(config.read_text())
    values |= {"credentials": {"main": {"file": str(tmp_path / "keys.yaml")}}}
    values |= {"policy": {"file": str(tmp_path / "policy.yaml")}}
    config.write_text(json.dumps(values))
    shutil.copy(EXAMPLES / "policy.yaml", tmp_path)
    (tmp_path / "keys.yaml").write_text("secret_id: some-id\nsecret_key: some-key\n")
    target = config if deep == "gateway.yaml" else tmp_path / deep
    target.write_text("[" * 20_000)
    code, output = run("check-config", "--config", str(config))
    assert code == 2
    assert [line[:7] for line in output.splitlines()] == ["error: "]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "tls.crt").unlink(), "tls.crt: No such file or directory"),
        (lambda folder: (folder / "tls.key").write_text("no key"), "tls.key: is no PEM file of a private key"),
        (lambda folder: shutil.copy(folder / "other" / "tls.key", folder), "tls.key: is not the key of "),
        (lambda folder: (folder / "ca.crt").write_text("no certificate"), "ca.crt: is no PEM file of certificates"),
        (lambda folder: (folder / "jwks.json").write_text("{}"), "jwks.json: not a JWKS"),
        (lambda folder: (folder / "keys.yaml").unlink(), "keys.yaml: "),
    ],
)
def test_check_config_reads_every_file_as_serve_would(
    config: Path, tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    """Missing files, and those that do not belong together, are errors of the command, all of them together."""
    (tmp_path / "other").mkdir()
    write_pair(tmp_path / "other")
    keys = tmp_path / "keys.yaml"
    keys.write_text("secret_id: some-id\nsecret_key: some-key\n")
    values = json.loads(config.read_text())
    values["credentials"]["main"] = {"file": str(keys)}
    config.write_text(json.dumps(values))
    assert run("check-config", "--config", str(config))[0] == 0
    spoil(tmp_path)
    code, output = run("check-config", "--config", str(config))
    assert (code, output.count("error: ")) == (2, 1)
    assert message in output
    keys.write_text("")
    (tmp_path / "jwks.json").unlink()
    code, output = run("check-config", "--config", str(config))
    assert "keys.yaml" in output
    assert "jwks.json" in output


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"max_pages": 10}, "options.max_pages"),
        ({"force": {"start_page": 1, "end_page": 3}}, "options.force"),
        ({"force": {"end_page": -1}}, ""),
        ({}, ""),
    ],
)
def test_check_config_warns_of_an_estimate_that_is_never_used(
    config: Path, tmp_path: Path, options: dict[str, object], rule: str
) -> None:
    """With a rule that selects the pages of every create. Without an estimate in the file there is nothing to say."""
    policy = yaml.safe_load((EXAMPLES / "policy.yaml").read_text())
    shop = policy["callers"]["shop"] | {"options": options}
    policy["callers"]["shop"] = shop
    path = tmp_path / "policy.yaml"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"policy": {"file": str(path)}}))
    for budget, warned in (({"per_day": 70}, ""), ({"per_day": 70, "estimate": 7}, rule)):
        shop["budget"] = budget
        path.write_text(yaml.safe_dump(policy))
        code, output = run("check-config", "--config", str(config))
        assert code == 0
        line = f"warning: callers.shop.budget.estimate: is never used, because with {warned} every create"
        assert (line in output) == bool(warned)
        assert ("warning" in output) == bool(warned)


@pytest.mark.parametrize(
    ("budget", "processes", "warned"),
    [
        ({"per_day": 500, "outage_pages": 100}, {}, ""),
        (
            {"per_day": 500, "outage_pages": 500},
            {},
            "outage_pages: 500 pages may be leased, of a budget of 500 in a day",
        ),
        (
            {"per_day": 500, "per_month": 9000, "outage_pages": 100},
            {"workers": 6},
            "100 pages x 6 processes = 600 pages may be leased, of a budget of 500 in a day",
        ),
        ({"per_day": 2, "outage_pages": 1}, {"workers": 2}, ": 1 page x 2 processes = 2 pages may be leased"),
        ({"per_day": 1, "outage_pages": 1}, {}, "outage_pages: 1 page may be leased, of a budget of 1 in a day"),
        ({"per_month": 99, "outage_pages": 100}, {}, "of a budget of 99 in a month"),
        ({"outage_pages": 100}, {"replicas": 9}, ""),
    ],
)
def test_leases_for_outages_that_use_up_a_budget_are_a_warning_with_the_caller_and_its_numbers(
    config: Path, tmp_path: Path, budget: dict[str, int], processes: dict[str, int], warned: str
) -> None:
    policy = yaml.safe_load((EXAMPLES / "policy.yaml").read_text())
    policy["callers"]["shop"] |= {"presets": [], "options": {}, "budget": budget}
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(policy))
    config.write_text(json.dumps(json.loads(config.read_text()) | {"policy": {"file": str(path)}} | processes))
    creates = ("--method", "CreatePreviewJob", "--bucket", BUCKET, "--object", "shop/a.pdf")
    for arguments in (("check-config",), ("policy", "explain", "--caller", "shop", *creates)):
        _, output = run(*arguments, "--config", str(config))
        assert output.count("warning: callers.shop.budget.outage_pages: ") == bool(warned), output
        assert warned in output


@pytest.mark.parametrize(
    ("change", "warned"),
    [
        ({"budget": {"per_day": 50}}, []),
        ({"budget": {"per_day": 49}}, ["50 pages, by estimate, of a budget of 49 in a day"]),
        ({"budget": {"per_month": 10, "estimate": 20}}, ["20 pages, by estimate, of a budget of 10 in a month"]),
        (
            {"budget": {"per_day": 10, "per_month": 40}},
            [
                "50 pages, by estimate, of a budget of 10 in a day",
                "50 pages, by estimate, of a budget of 40 in a month",
            ],
        ),
        ({"budget": {"per_day": 10}, "options": {"max_pages": 10}}, []),
        (
            {"budget": {"per_day": 10}, "options": {"max_pages": 11}},
            ["11 pages, by options.max_pages, of a budget of 10 in a day"],
        ),
        (
            {"budget": {"per_day": 10, "count": "asked"}, "options": {"max_pages": 11}},
            ["11 pages, by options.max_pages, of a budget of 10 in a day"],
        ),
        (
            {"budget": {"per_day": 10}, "options": {"force": {"page_ranges": "1-7,9-20"}}},
            ["19 pages, by options.force, of a budget of 10 in a day"],
        ),
        ({"budget": {"per_day": 20}, "options": {"force": {"single_image": True}}}, []),
        ({"budget": {"per_day": 10}, "options": {"default": {"end_page": 10}}}, []),
        (
            {"budget": {"per_day": 10}, "options": {"default": {"end_page": 10}}, "presets": ["long"]},
            ["the preset long counts 70 pages, by presets[long], of a budget of 10 in a day"],
        ),
        ({"budget": {"per_day": 10, "count": "asked"}}, []),
        ({"budget": {"per_day": 10}, "shadow": True}, []),
        ({"budget": {"per_day": 10}, "methods": ["GetPreviewJob"]}, []),
        ({"budget": {}}, []),
    ],
)
def test_a_budget_that_a_create_without_options_can_never_fit_is_a_warning_with_the_caller_and_its_numbers(
    config: Path, tmp_path: Path, change: dict[str, object], warned: list[str]
) -> None:
    """By what such a create counts: its selection by the policy, else the estimate."""
    policy = yaml.safe_load((EXAMPLES / "policy.yaml").read_text())
    policy["presets"]["long"] = {"end_page": 70}
    policy["callers"]["shop"] |= {"presets": [], "options": {}} | change
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(policy))
    config.write_text(json.dumps(json.loads(config.read_text()) | {"policy": {"file": str(path)}}))
    creates = ("--method", "CreatePreviewJob", "--bucket", BUCKET, "--object", "shop/a.pdf")
    for arguments in (("check-config",), ("policy", "explain", "--caller", "shop", *creates)):
        _, output = run(*arguments, "--config", str(config))
        found = [line for line in output.splitlines() if line.startswith("warning: callers.shop.budget: a create with")]
        assert len(found) == len(warned), output
        assert all(words in line for words, line in zip(warned, found, strict=True)), output


def test_a_budget_of_a_gateway_without_policy_that_no_create_fits_is_a_warning(config: Path) -> None:
    anonymous = {"limits": {"anonymous": {"budget": {"per_day": 10}}}}
    open_to_all = {"listen": "127.0.0.1:0", "policy": {}, "auth": {}, "tls": {}} | anonymous
    config.write_text(json.dumps(json.loads(config.read_text()) | open_to_all))
    code, output = run("check-config", "--config", str(config))
    assert (code, "warning: limits.anonymous.budget: a create without" in output) == (0, True), output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, "10 pages a day; a create without a selection counts 50 until its job has ended"),
        ({"options": {"force": {"single_image": True}}}, "a create without a selection counts 20 until"),
        ({"options": {"force": {"end_page": 3}}}, "admits 10 pages a day\n"),
        (
            {"budget": {"per_day": 10, "count": "asked"}},
            "a day; refuses creates without page_ranges or an end_page above 0, with PDF as target, or of a spread",
        ),
        (
            {"budget": {"per_day": 10, "count": "asked"}, "options": {"max_pages": 10}},
            "10 pages a day; refuses creates with PDF as target, or of a spreadsheet without sheet_id\n",
        ),
        ({"budget": {"per_day": 10, "count": "asked"}, "shadow": True}, "a create without a selection counts 50"),
    ],
)
def test_policy_explain_tells_a_budget_that_refuses_creates_without_a_selection_from_one_that_estimates_them(
    config: Path, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    """As the gateway does with such creates; in shadow mode nothing is refused."""
    policy = yaml.safe_load((EXAMPLES / "policy.yaml").read_text())
    policy["callers"]["shop"] |= {"presets": [], "options": {}, "budget": {"per_day": 10}} | change
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(policy))
    config.write_text(json.dumps(json.loads(config.read_text()) | {"policy": {"file": str(path)}}))
    asked = ("--caller", "shop", "--method", "CreatePreviewJob", "--bucket", BUCKET, "--config", str(config))
    code, output = run("policy", "explain", *asked)
    assert code == 0
    assert words in output


def test_leases_that_use_up_the_budget_of_a_gateway_without_policy_are_a_warning(config: Path) -> None:
    anonymous = {"limits": {"anonymous": {"budget": {"per_day": 10, "outage_pages": 10}}}}
    open_to_all = {"listen": "127.0.0.1:0", "policy": {}, "auth": {}, "tls": {}} | anonymous
    config.write_text(json.dumps(json.loads(config.read_text()) | open_to_all))
    code, output = run("check-config", "--config", str(config))
    assert (code, "warning: limits.anonymous.budget.outage_pages: 10 pages" in output) == (0, True), output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"listen": "0.0.0.0:50051", "policy": {}, "auth": {}, "tls": {}}, "auth: insecure"),
        ({"listen": "[::]:50051", "policy": {}, "auth": {}, "tls": {}}, "auth: insecure"),
        ({"listen": "gateway:50051", "policy": {}, "auth": {}, "tls": {}}, "auth: insecure"),
        ({"listen": "0.0.0.0:50051", "tls": {}}, "plaintext: true"),
        ({"policy": {}}, "policy.file: is needed"),
        ({"auth": "insecure"}, "take one of them away"),
        ({"auth": "none"}, "auth"),
        ({"tls": {"certificate": "tls.crt"}}, "belong together"),
        ({"tls": {"client_ca": "ca.crt"}}, "client_ca needs"),
        ({"auth": {"jwt": [{"issuer": "i", "audience": "a"}]}}, "one of jwks_file and jwks_url"),
        ({"auth": {"jwt": [{"issuer": "i", "audience": "a", "jwks_url": "http://idp/jwks"}]}}, "jwks_url"),
        (
            {"auth": {"jwt": [{"issuer": "i", "audience": "a", "jwks_file": "f", "algorithms": ["HS256"]}]}},
            "algorithms",
        ),
        ({"auth": {"jwt": [{**JWT, "algorithms": ["none"]}]}}, "algorithms"),
        ({"credentials": {"main": {"file": "f", "secret_key": "canary"}}}, "take one of them away"),
        ({"credentials": {"main": {}}}, "needs secret_id and secret_key"),
    ],
)
def test_a_configuration_open_to_anybody_is_refused_unless_it_says_so(
    config: Path, change: dict[str, object], message: str
) -> None:
    """Contradictory settings are refused too."""
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    code, output = run("check-config", "--config", str(config))
    assert code == 2
    assert message in output
    assert "canary" not in output


@pytest.mark.parametrize(
    "change",
    [
        {"listen": "0.0.0.0:50051", "policy": {}, "auth": "insecure", "tls": {}},
        {"listen": "localhost:0", "policy": {}, "auth": {}, "tls": {}},
        {"listen": "[::1]:0", "policy": {}, "auth": {}, "tls": {}},
        {"listen": "0.0.0.0:50051"},
    ],
)
def test_an_open_configuration_is_accepted_on_loopback_or_when_it_says_so(
    config: Path, change: dict[str, object]
) -> None:
    """Other addresses need a policy with TLS, or an explicit setting."""
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    assert run("check-config", "--config", str(config))[0] == 0


def test_policy_explain_shows_a_forced_watermark(config: Path, tmp_path: Path) -> None:
    """With its image and its place."""
    text = (EXAMPLES / "policy.yaml").read_text()
    old = "force: {image_params: watermark/2/text/U0hPUA}"
    assert old in text
    policy = tmp_path / "policy.yaml"
    policy.write_text(text.replace(old, "force: {watermark: {image: {object: brand/logo.png}, dx: 5}}"))
    config.write_text(json.dumps(json.loads(config.read_text()) | {"policy": {"file": str(policy)}}))
    asked = ("--caller", "shop", "--method", "CreatePreviewJob", "--bucket", BUCKET, "--config", str(config))
    _, output = run("policy", "explain", *asked)
    assert 'options.force sets watermark: {image { object: "brand/logo.png" } dx: 5}, whatever' in output
