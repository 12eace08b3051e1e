"""The commands `token new`, `policy explain` and `check-config`, which operators use on a policy before its rollout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from docpreview_gateway.__main__ import app
from docpreview_gateway.access import tokens

EXAMPLES = Path(__file__).parents[2] / "examples"
BUCKET = "examplebucket-1250000000"
JWT = {"issuer": "i", "audience": "a", "jwks_file": "f"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with the example's policy and every file that it refers to."""
    values = {
        "buckets": [{"name": BUCKET, "region": "ap-chongqing", "credentials": "main"}],
        "credentials": {"main": {"secret_id": "an-id", "secret_key": "a-key"}},
        "policy": {"file": str(EXAMPLES / "policy.yaml")},
        "auth": {"jwt": [{"issuer": "https://idp.corp.example", "audience": "docpreview", "jwks_file": "jwks.json"}]},
        "tls": {"certificate": "tls.crt", "key": "tls.key", "client_ca": "ca.crt"},
    }
    path = tmp_path / "gateway.yaml"
    path.write_text(json.dumps(values))
    return path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments])
    return result.exit_code, result.output


def test_token_new_prints_a_fresh_token_and_its_hash() -> None:
    """Each run prints another token."""
    (code, first), (_, second) = run("token", "new"), run("token", "new")
    assert code == 0
    token, hashed = first.split()
    found = tokens.split(token)
    assert found is not None
    assert tokens.parse_hash(hashed).matches(found[1])
    assert not tokens.parse_hash(second.split()[1]).matches(found[1])


@pytest.mark.parametrize(
    ("caller", "method", "more", "allowed", "message"),
    [
        ("shop", "GetPreviewJob", (), True, "callers.shop.methods names *"),
        ("shop", "GetPreviewJob", ("--object", "shop/a.pdf"), True, "'shop/' covers it"),
        ("shop", "GetPreviewJob", ("--object", "shop/../a.pdf"), False, "input_prefixes has no prefix that covers it"),
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
        "allowed  callers.shop.methods names *\nshop may call GetUsage\n",
    )
    code, output = run("policy", "explain", *asked, "ListPreviewQueues")
    assert (code, "--bucket: is needed for ListPreviewQueues" in output) == (2, True)


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
