"""Settings: their sources, their validation messages, and that secrets never show."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from docpreview_gateway.creates.records import Timing
from docpreview_gateway.model.callers import PageBudget, Rate
from docpreview_gateway.settings.loading import ConfigurationError, Settings, load

CANARY = "canaryCANARY31337"
MINIMAL = """
buckets:
  - {name: examplebucket-1250000000, region: ap-chongqing, credentials: main}
credentials:
  main: {secret_id: an-id, secret_key: a-key}
"""
SHARED = MINIMAL + "shared_state: {url: redis://host, namespace: previews}\nledger: {key_file: ledger.key}\n"
VARIABLES = {
    "DOCPREVIEW_BUCKETS": json.dumps(
        [{"name": "examplebucket-1250000000", "region": "ap-chongqing", "credentials": "main"}]
    ),
    "DOCPREVIEW_CREDENTIALS__MAIN__SECRET_ID": "an-id",
    "DOCPREVIEW_CREDENTIALS__MAIN__SECRET_KEY": "a-key",
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DOCPREVIEW_"):
            monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def file(folder: Path, text: str) -> Path:
    path = folder / "gateway.yaml"
    path.write_text(text)
    return path


def problems(path: Path | None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert str(caught.value) == "; ".join(caught.value.problems)
    return caught.value.problems


def test_several_replicas_need_a_shared_state(folder: Path) -> None:
    """The error says what is missing, and what to write."""
    (problem,) = problems(file(folder, MINIMAL + "replicas: 2\n"))
    assert problem.startswith("shared_state.url: missing, and replicas is 2")
    assert "redis://" in problem
    assert load(file(folder, SHARED + "replicas: 2\n")).replicas == 2


def test_settings_that_contradict_each_other_are_all_named_in_one_run(folder: Path) -> None:
    """A line for each."""
    text = MINIMAL.replace("credentials: main", "credentials: other") + "replicas: 2\nlisten: 0.0.0.0:1\n"
    found = problems(
        file(folder, text + "watch: {poll_floor_seconds: 9, poll_cap_seconds: 1}\nconcurrency: {initial: 1}\n")
    )
    assert [line.partition(": ")[0] for line in found] == [
        "buckets",
        "listen",
        "watch.poll_cap_seconds",
        "concurrency.initial",
        "shared_state.url",
    ]


class TestSources:
    def test_a_file_with_buckets_and_keys_is_enough(self, folder: Path) -> None:
        """The rest has defaults."""
        settings = load(file(folder, MINIMAL))
        assert settings.buckets[0].name == "examplebucket-1250000000"
        assert settings.credentials["main"].secret_key.get_secret_value() == "a-key"
        assert (settings.listen, settings.admin_listen) == ("127.0.0.1:50051", "127.0.0.1:9464")
        assert settings.reflection is False

    def test_variables_alone_are_enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nested keys by `__`, lists as JSON."""
        for name, value in VARIABLES.items():
            monkeypatch.setenv(name, value)
        settings = load(None)
        assert settings.buckets[0].region == "ap-chongqing"
        assert settings.credentials["main"].secret_id == "an-id"

    def test_maps_can_be_given_as_json(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """In variables."""
        monkeypatch.setenv("DOCPREVIEW_WATCH", '{"heartbeat_seconds": 3}')
        monkeypatch.setenv("DOCPREVIEW_CREDENTIALS", '{"main": {"secret_id": "x", "secret_key": "y"}}')
        settings = load(file(folder, MINIMAL))
        assert settings.watch.heartbeat_seconds == 3
        assert settings.credentials["main"].secret_id == "x"

    def test_a_variable_wins_over_the_file_for_its_key_only(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Other keys of its section keep the file's values."""
        path = file(folder, MINIMAL + "upstream: {timeout_seconds: 7, connect_timeout_seconds: 2}\n")
        monkeypatch.setenv("DOCPREVIEW_UPSTREAM__TIMEOUT_SECONDS", "9")
        settings = load(path)
        assert (settings.upstream.timeout_seconds, settings.upstream.connect_timeout_seconds) == (9, 2)

    def test_docpreview_config_names_the_file(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Unless the command line does."""
        path = file(folder, MINIMAL + "listen: 127.0.0.1:1\n")
        other = folder / "other.yaml"
        other.write_text(MINIMAL + "listen: 127.0.0.1:2\n")
        monkeypatch.setenv("DOCPREVIEW_CONFIG", str(path))
        assert load(None).listen == "127.0.0.1:1"
        assert load(other).listen == "127.0.0.1:2"

    def test_loads_are_independent(self, folder: Path) -> None:
        """A load does not see the file of an earlier one."""
        path = file(folder, MINIMAL)
        load(path)
        with pytest.raises(ConfigurationError):
            load(None)


class TestSharedState:
    @pytest.mark.parametrize(
        "url",
        [
            "redis://cache",
            "redis://:p%40ss@cache:6379/0",
            "rediss://user:secret@[::1]:6380/15?ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=true",
            "redis://cache:6379?db=3",
            "redis://:p%25%20ss@cache_1:6379/0\n",
            "unix:///run/redis.sock",
            "unix://:secret@/run/redis.sock?db=1",
            "redis+sentinel://s1/main",
            "redis+sentinel://user:p%40ss@s1:26379,[::1]:26380,s3/main/2?sentinel_password=secret",
            "rediss+sentinel://s1/main?ssl_ca_certs=/etc/ca.pem",
            "redis+cluster://n1:7000,n2:7001,n3",
            "rediss+cluster://:secret@n1",
        ],
    )
    def test_a_shared_state_url_is_used_unchanged_and_not_shown(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, url: str
    ) -> None:
        """Every supported scheme."""
        monkeypatch.setenv("DOCPREVIEW_SHARED_STATE__URL", url)
        settings = load(file(folder, SHARED))
        assert settings.shared_state.url is not None
        assert settings.shared_state.url.get_secret_value() == url
        assert url not in f"{settings!r} {settings.model_dump()} {settings.model_dump_json()}"

    @pytest.mark.parametrize(
        ("url", "problem"),
        [
            ("cache:6379", "must be redis://"),
            (f"http://:{CANARY}@cache", "must be redis://"),
            (f"redis+sentinel://:{CANARY}@cache", "redis+sentinel://[[user]:password@]host[:port],.../service"),
            (f"redis+sentinel://:{CANARY}@cache,/main", "must be redis://"),
            (f"redis+sentinel://:{CANARY}@cache:99999/main", "must be redis://"),
            (f"redis+sentinel://:{CANARY}@cache/main/x", "the database must be a number"),
            (f"redis+sentinel://:{CANARY}@cache/main?db=1", "the options of the URL may be sentinel_password"),
            (f"redis+cluster://:{CANARY}@cache/1", "redis+cluster://[[user]:password@]host[:port],..."),
            (f"redis+cluster://:{CANARY}/x@cache", "must be redis://"),
            (f"redis+other://:{CANARY}@cache", "must be redis://"),
            (f"redis://:{CANARY}@", "must be redis://"),
            ("unix://", "must be redis://"),
            (f"redis://:12/{CANARY}@cache", "must be redis://"),
            (f"redis://:{CANARY}/x@cache", "is no URL; special characters of a password must be %-encoded"),
            (f"redis://user:{CANARY}#@cache", "is no URL"),
            (f"redis://[{CANARY}", "is no URL"),
            (f"redis://cache/{CANARY}", "the database must be a number"),
            (f"redis://cache?db={CANARY}", "the database must be a number"),
            (f"redis://cache?socket_timeout={CANARY}", "the options of the URL may be db, ssl_ca_certs"),
            (f"redis://cache?{CANARY}=1", "the options of the URL may be db, ssl_ca_certs"),
            ("", "must be redis://"),
            (f"valkey://:{CANARY}@cache", "an address of Valkey begins with redis, with TLS rediss, too. It must be"),
            (f"valkeys://:{CANARY}@cache", "an address of Valkey begins with redis, with TLS rediss, too. It must be"),
            (f"redis://:{CANARY}@127.0.0.1 :6379", "has a blank, or a % without two hexadecimal digits; write %20"),
            (f"redis://:{CANARY}@cache:6379 ", "has a blank"),
            (f"redis://:{CANARY} @cache", "has a blank"),
            (f"redis+cluster://:{CANARY}@n1, n2", "has a blank"),
            (f"redis://:{CANARY}%zz@cache", "has a blank, or a % without two hexadecimal digits; write %20"),
            (f"redis://:{CANARY}%ff@cache", "is no URL; special characters of a password must be %-encoded"),
            (f"redis://:{CANARY}@cache:0", "must be redis://"),
            (f"redis+cluster://:{CANARY}@n1:7000,n2:0", "must be redis://"),
            (f"redis://:{CANARY}@one,other", "must be redis://"),
        ],
    )
    @pytest.mark.parametrize("key", ["url", "ledger_url"])
    def test_an_invalid_shared_state_url_is_not_quoted(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, key: str, url: str, problem: str
    ) -> None:
        """The message says what is accepted; the URL may hold a password."""
        monkeypatch.setenv(f"DOCPREVIEW_SHARED_STATE__{key.upper()}", url)
        (found,) = problems(file(folder, MINIMAL))
        assert found.startswith(f"shared_state.{key}: ")
        assert problem in found
        assert CANARY not in found

    @pytest.mark.parametrize("key", ["url", "ledger_url"])
    def test_shared_state_needs_a_namespace_and_a_key_file(self, folder: Path, key: str) -> None:
        """Each message says what to write."""
        shared = MINIMAL + f"shared_state: {{{key}: redis://host}}\n"
        (problem, other) = problems(file(folder, shared))
        assert problem.startswith("shared_state.namespace: missing. Name this deployment, such as previews")
        assert other.startswith("ledger.key_file: missing, and shared_state is set")
        (problem,) = problems(file(folder, shared.replace("redis://host", "redis://host, namespace: previews")))
        assert problem.startswith("ledger.key_file: missing, and shared_state is set")
        assert "openssl rand -base64 32" in problem

    @pytest.mark.parametrize("namespace", ["''", "Previews", "a.b", "a:b", "{a}", "a" * 33, "'a\n'"])
    def test_a_namespace_is_small_letters_digits_and_hyphens(self, folder: Path, namespace: str) -> None:
        """It is a part of Redis keys and of hash tags."""
        (problem,) = problems(file(folder, SHARED.replace("previews", json.dumps(namespace.strip("'")))))
        assert problem.startswith("shared_state.namespace: must be 1 to 32 small letters, digits and hyphens")

    def test_a_gateway_without_shared_state_needs_neither_namespace_nor_key_file(self, folder: Path) -> None:
        """Its secret is generated."""
        settings = load(file(folder, MINIMAL))
        assert (settings.shared_state.namespace, settings.ledger.key_file) == (None, None)


class TestProxy:
    @pytest.mark.parametrize(
        ("url", "shown", "login"),
        [
            ("http://proxy.example.com:3128", "proxy.example.com:3128", ""),
            (f"http://user:{CANARY}@proxy:80/", "proxy:80", f"user:{CANARY}"),
            (f"http://user:{CANARY}%40%3A%2F@[::1]:3128\n", "[::1]:3128", f"user:{CANARY}@:/"),
            (f"http://{CANARY}@proxy:3128", "proxy:3128", f"{CANARY}:"),
            (f"http://n%C3%BC:{CANARY}@proxy:3128", "proxy:3128", f"n\u00fc:{CANARY}"),
        ],
    )
    def test_a_proxy_is_used_with_its_login_and_not_shown(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, url: str, shown: str, login: str
    ) -> None:
        """From a variable, as a Secret of Kubernetes gives it; its place is what messages show."""
        monkeypatch.setenv("DOCPREVIEW_UPSTREAM__PROXY", url)
        settings = load(file(folder, MINIMAL))
        proxy = settings.upstream.through()
        assert proxy is not None
        assert proxy.place == shown
        assert proxy.authorization == (login and f"Basic {base64.b64encode(login.encode()).decode()}")
        dumped = f"{settings!r} {settings.model_dump()} {settings.model_dump_json()} {proxy!r}"
        assert CANARY not in dumped
        assert not login or base64.b64encode(login.encode()).decode() not in dumped

    @pytest.mark.parametrize(
        ("url", "problem"),
        [
            ("", "must be http://[user:password@]host:port, such as http://proxy.example.com:3128"),
            (f"{CANARY}:3128", "must be http://"),
            (f"http://:{CANARY}@proxy", "must be http://"),
            (f"http://:{CANARY}@proxy:0", "must be http://"),
            (f"http://:{CANARY}@proxy:99999", "must be http://"),
            (f"http://:{CANARY}/x@proxy:3128", "special characters of a password must be %-encoded"),
            (f"http://:{CANARY}#@proxy:3128", "special characters of a password must be %-encoded"),
            (f"http://proxy:3128/{CANARY}", "must be http://"),
            (f"http://proxy:3128?{CANARY}", "must be http://"),
            (f"https://:{CANARY}@proxy:3128", "TLS to the proxy itself is not supported"),
            (f"socks5://:{CANARY}@proxy:1080", "must be http://"),
            (f"http://:{CANARY} @proxy:3128", "has a blank, or a % without two hexadecimal digits"),
            (f"http://:{CANARY}%zz@proxy:3128", "has a blank, or a % without two hexadecimal digits"),
            (f"http://:{CANARY}%ff@proxy:3128", "is no URL; special characters of a password must be %-encoded"),
            (f"http://[{CANARY}", "is no URL"),
            (f"http://a%3Ab:{CANARY}@proxy:3128", "has a user with a colon"),
            (f"http://{CANARY}\u00fc:3128", "must be http://"),
        ],
    )
    def test_an_invalid_proxy_is_not_quoted(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, url: str, problem: str
    ) -> None:
        """The message says what is accepted; the address may hold a password."""
        monkeypatch.setenv("DOCPREVIEW_UPSTREAM__PROXY", url)
        (found,) = problems(file(folder, MINIMAL))
        assert found.startswith("upstream.proxy: ")
        assert problem in found
        assert CANARY not in found

    def test_no_proxy_is_the_default_whatever_the_environment_says(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """HTTPS_PROXY is for other programs of the machine."""
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
        assert load(file(folder, MINIMAL)).upstream.through() is None


class TestLedger:
    def test_the_times_of_recorded_creates_have_defaults(self, folder: Path) -> None:
        """Those of the protocol."""
        assert load(file(folder, MINIMAL)).ledger.timing() == Timing()

    def test_ids_are_remembered_for_25_days_at_most(self, folder: Path) -> None:
        """The cloud forgets jobs after a month."""
        assert load(file(folder, MINIMAL + "ledger: {retention_seconds: 2160000}\n")).ledger.timing().keep == 2160000
        (problem,) = problems(file(folder, MINIMAL + "ledger: {retention_seconds: 2160001}\n"))
        assert problem.startswith("ledger.retention_seconds: ")

    def test_losses_are_rebuilt_and_evicting_servers_are_tolerated_unless_the_settings_differ(
        self, folder: Path
    ) -> None:
        """`rebuild` needs nobody."""
        ledger = load(file(folder, MINIMAL)).ledger
        assert (ledger.on_loss, ledger.strict) == ("rebuild", False)
        ledger = load(file(folder, MINIMAL + "ledger: {on_loss: refuse, strict: true}\n")).ledger
        assert (ledger.on_loss, ledger.strict) == ("refuse", True)
        assert problems(file(folder, MINIMAL + "ledger: {on_loss: ignore}\n"))[0].startswith("ledger.on_loss: ")

    def test_addresses_of_uploads_may_be_signed_by_other_credentials(self, folder: Path) -> None:
        """They have to be there."""
        text = MINIMAL.replace("credentials: main}", "credentials: main, upload_credentials: writer}")
        (found,) = problems(file(folder, text))
        assert found == "buckets: examplebucket-1250000000 names credentials that are not there: writer"
        settings = load(file(folder, text + "  writer: {secret_id: i, secret_key: k}\n"))
        assert settings.buckets[0].bucket().upload_credentials == "writer"
        assert load(file(folder, MINIMAL)).buckets[0].bucket().upload_credentials == ""

    def test_documents_are_looked_at_when_the_setting_says_so(self, folder: Path) -> None:
        """By default they are not: it costs requests."""
        assert load(file(folder, MINIMAL)).creates.check_input is False
        assert load(file(folder, MINIMAL + "creates: {check_input: true}\n")).creates.check_input is True

    def test_buckets_may_be_declared_exclusive(self, folder: Path) -> None:
        """Not by default."""
        assert load(file(folder, MINIMAL)).buckets[0].bucket().exclusive is False
        text = MINIMAL.replace("credentials: main}", "credentials: main, exclusive: true}")
        assert load(file(folder, text)).buckets[0].bucket().exclusive is True


class TestMistakes:
    def test_every_unknown_key_is_named_with_its_path(self, folder: Path) -> None:
        """In sections, too."""
        found = problems(file(folder, MINIMAL + "lisen: x\nupstream: {endpont: x}\n"))
        assert sorted(found) == [
            "lisen: unknown setting; did you mean `listen`?",
            "upstream.endpont: unknown setting; did you mean `endpoint`?",
        ]

    def test_an_unknown_key_in_a_list_is_named_with_its_index(self, folder: Path) -> None:
        """The index of the bucket."""
        text = MINIMAL.replace("credentials: main}", "credentials: main, acl: x}")
        assert problems(file(folder, text)) == ["buckets.0.acl: unknown setting"]

    @pytest.mark.parametrize(
        "name",
        [
            "DOCPREVIEW_LISEN",
            "DOCPREVIEW_UPSTREAM__ENDPONT",
            "DOCPREVIEW_UPSTREAM__ENDPOINT__HOST",
            "DOCPREVIEW_CREDENTIALS__MAIN__SECRET",
            "DOCPREVIEW_LISTEN__PORT",
        ],
    )
    def test_a_variable_that_sets_nothing_is_named_without_its_value(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """It is a typing error."""
        monkeypatch.setenv(name, CANARY)
        found = problems(file(folder, MINIMAL))
        assert any(line.startswith(f"{name}: unknown setting") for line in found)
        assert CANARY not in str(found)

    @pytest.mark.parametrize(
        ("name", "value", "said"),
        [
            ("ADMIN_HOSTS", f"{CANARY}.example.com", 'must be a list in JSON, such as ["gateway.example.com"]'),
            ("ADMIN_HOSTS", "", 'must be a list in JSON, such as ["gateway.example.com"]'),
            ("BUCKETS", f"[{{name: {CANARY}}}]", 'must be a list in JSON, such as [{"name": "documents-1250000000", '),
            ("BUCKETS", "[" * 20_000, 'must be a list in JSON, such as [{"name": '),
            ("BUCKETS", "9" * 5000, 'must be a list in JSON, such as [{"name": '),
            ("EDGE__ORIGINS", f"https://{CANARY}", 'must be a list in JSON, such as ["https://app.example.com"]'),
            ("EDGE", f"https://{CANARY}", "must be a map in JSON, such as {"),
            (
                "CREDENTIALS__MAIN",
                CANARY,
                'must be a map in JSON, such as {"secret_id": "AKID...", "secret_key": "..."}',
            ),
            (
                "LIMITS__ANONYMOUS__METHOD_RATES",
                "{CreatePreviewJob: 5}",
                'must be a map in JSON, such as {"CreatePreviewJob": {"per_second": 5}}',
            ),
            ("LIMITS__ACCOUNT", "5", 'must be a map in JSON, such as {"per_second": 100}'),
        ],
    )
    def test_a_variable_of_a_list_or_map_that_is_not_json_is_named_with_what_to_write(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
    ) -> None:
        """Beside other mistakes of variables and of the file, and without its value."""
        monkeypatch.setenv(f"DOCPREVIEW_{name}", value)
        monkeypatch.setenv("DOCPREVIEW_LISEN", "x")
        unknown, found, broken = problems(file(folder, MINIMAL + "listen: [\n"))
        assert unknown.startswith("DOCPREVIEW_LISEN: unknown setting")
        assert found.startswith(f"DOCPREVIEW_{name}: {said}")
        assert broken.startswith(f"{folder / 'gateway.yaml'}: line 7, column 1: not YAML")
        assert CANARY not in found

    def test_a_variable_of_a_section_that_may_be_a_word_may_be_one(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`auth` only."""
        monkeypatch.setenv("DOCPREVIEW_AUTH", "insecure")
        assert load(file(folder, MINIMAL)).auth == "insecure"

    def test_variables_of_the_clients_and_of_the_emulator_are_theirs(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All may run in one environment."""
        names = ("TARGET", "TOKEN", "EMULATOR_TOKEN", "EMULATOR_SECRET_ID", "EMULATOR_SECRET_KEY")
        for name in names:
            monkeypatch.setenv(f"DOCPREVIEW_{name}", "x")
        assert load(file(folder, MINIMAL)).buckets

    def test_all_mistakes_are_reported_together(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those of variables and of the file."""
        monkeypatch.setenv("DOCPREVIEW_LISEN", "x")
        text = MINIMAL + "listen: nowhere\nwatch: {heartbeat_seconds: 0}\nupstream: {timeout_seconds: fast}\n"
        assert [problem.partition(":")[0] for problem in problems(file(folder, text))] == [
            "DOCPREVIEW_LISEN",
            "listen",
            "upstream.timeout_seconds",
            "watch.heartbeat_seconds",
        ]

    @pytest.mark.parametrize(
        ("text", "path"),
        [
            (MINIMAL.replace("ap-chongqing", "AP CHONGQING"), "buckets.0.region"),
            (MINIMAL.replace("examplebucket-1250000000", "example.com/#"), "buckets.0.name"),
            (MINIMAL.replace("credentials: main}", "credentials: other}"), "buckets"),
            (MINIMAL.replace("a-key", "''"), "credentials.main"),
            ("buckets: []\ncredentials: {}\n", "buckets"),
            ("credentials: {}\n", "buckets"),
            (MINIMAL + "listen: ':1'\n", "listen"),
            (MINIMAL + "listen: '127.0.0.1:99999'\n", "listen"),
            (MINIMAL + "listen: '127.0.0.1:٣'\n", "listen"),
            (MINIMAL + "upstream: {endpoint: 'ftp://x'}\n", "upstream.endpoint"),
            (MINIMAL + "upstream: {endpoint: 'http://user:pass@x'}\n", "upstream.endpoint"),
            (MINIMAL + "upstream: {endpoint: 'http://x/path'}\n", "upstream.endpoint"),
            (MINIMAL + "upstream: {object_url_base: 'javascript:x'}\n", "upstream.object_url_base"),
            (MINIMAL + "watch: {poll_floor_seconds: 20}\n", "watch.poll_cap_seconds"),
            (MINIMAL + "logging: {level: LOUD}\n", "logging.level"),
            (MINIMAL + "callbacks: {listen: '127.0.0.1:1'}\n", "callbacks"),
            (MINIMAL + "callbacks: {public_url: 'https://x.example.com'}\n", "callbacks"),
            (MINIMAL + "callbacks: {mode: queue}\n", "callbacks"),
            (MINIMAL + "callbacks: {mode: both}\n", "callbacks.mode"),
            (MINIMAL + "callbacks: {public_url: 'ftp://x', listen: '127.0.0.1:1'}\n", "callbacks.public_url"),
            (MINIMAL + "callbacks: {public_url: 'https://x/?a=b', listen: '127.0.0.1:1'}\n", "callbacks.public_url"),
            (MINIMAL + "callbacks: {public_url: 'https://x', listen: '127.0.0.1:9464'}\n", "callbacks.listen"),
        ],
    )
    def test_an_invalid_value_is_rejected_with_its_path(self, folder: Path, text: str, path: str) -> None:
        """Ranges, formats and references."""
        assert path in {problem.partition(":")[0] for problem in problems(file(folder, text))}

    @pytest.mark.parametrize(("length", "fits"), [(77, True), (78, False)])
    def test_an_address_of_callbacks_has_room_for_its_token(self, folder: Path, length: int, *, fits: bool) -> None:
        """The cloud takes 100 characters; a slash at the end is none of them."""
        url = "https://previews.example.com/".ljust(length, "x") + "/"
        text = MINIMAL + f"callbacks: {{public_url: '{url}', listen: '127.0.0.1:1'}}\n"
        if fits:
            assert load(file(folder, text)).callbacks.listen == "127.0.0.1:1"
        else:
            (problem,) = problems(file(folder, text))
            assert problem.startswith("callbacks.public_url: has 78 characters, and may have 77")

    @pytest.mark.parametrize(
        ("path", "text"),
        [
            ("state_dir", "state_dir: /NAME\n"),
            ("tls.key", "tls: {certificate: x, key: /tmp/NAME}\n"),
            ("credentials.other.file", "  other: {file: NAME}\n"),
        ],
    )
    @pytest.mark.parametrize("name", ["x" * 256, "ü" * 128, "x/" * 2100])
    def test_a_path_that_no_system_takes_is_rejected(self, folder: Path, path: str, text: str, name: str) -> None:
        """So no command meets it later."""
        (problem,) = problems(file(folder, MINIMAL + text.replace("NAME", name)))
        assert problem == f"{path}: is too long: a path has fewer than 4096 bytes, and a name in it 255 at most"

    def test_a_key_that_is_there_twice_is_rejected_with_its_line(self, folder: Path) -> None:
        """All but the last would be ignored."""
        text = MINIMAL + "reflection: true\nreflection: false\n"
        path = file(folder, text)
        assert problems(path) == [f"{path}: line 7, column 1: duplicate key reflection"]

    def test_a_bucket_that_is_listed_twice_is_rejected(self, folder: Path) -> None:
        """Which of the two counts would be undefined."""
        line = MINIMAL.splitlines()[2]
        (found,) = problems(file(folder, MINIMAL.replace(line, f"{line}\n{line}")))
        assert found == "buckets: examplebucket-1250000000 is listed more than once"


MISSING = [
    "buckets: is missing; write `buckets: [{name: documents-1250000000, region: ap-chongqing, credentials: main}]`",
    "credentials: is missing; write `credentials: {main: {secret_id: AKID..., secret_key: '...'}}`",
]


class TestFiles:
    def test_a_missing_file_is_named_with_the_reason(self, folder: Path) -> None:
        """The operating system's reason."""
        assert problems(folder / "nothing.yaml") == [f"{folder}/nothing.yaml: No such file or directory"]

    def test_a_folder_in_place_of_the_file_is_named_with_the_reason(self, folder: Path) -> None:
        """The operating system's reason."""
        assert problems(folder) == [f"{folder}: Is a directory"]

    def test_a_file_that_is_not_yaml_is_rejected_with_its_name_line_and_column(self, folder: Path) -> None:
        """Of the mistake."""
        path = file(folder, "listen: x\nbuckets: [\n  - {\n")
        (found,) = problems(path)
        assert found.startswith(f"{path}: line 3, column ")

    @pytest.mark.parametrize("text", ["- a\n- b\n", "just text\n", "3\n", "on: 1\n"])
    def test_a_file_that_is_not_a_map_is_rejected(self, folder: Path, text: str) -> None:
        """Lists, strings and numbers."""
        path = file(folder, text)
        assert problems(path) == [f"{path}: the file must be a YAML map of settings"]

    def test_an_empty_file_names_what_is_required(self, folder: Path) -> None:
        """Buckets and credentials."""
        assert problems(file(folder, "")) == MISSING

    def test_without_a_file_the_mistakes_begin_with_how_to_name_one(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not of variables that are enough without one, or that name one."""
        named = "no configuration file is named: give --config gateway.yaml, or set DOCPREVIEW_CONFIG"
        assert problems(None) == [named, *MISSING]
        monkeypatch.setenv("DOCPREVIEW_CONFIG", str(file(folder, "")))
        assert problems(None) == MISSING

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("\tlisten: x\n", "{path}: line 1, column 1: a tab: YAML wants spaces"),
            ("a: {b: 'c d': 3}\n", "{path}: line 1, column 13: not YAML: expected ',' or '}', but got ':'"),
            ("listen: 5\n", 'listen: must be text in quotes, such as "127.0.0.1:50051"'),
            ("workers: [1]\n", "workers: must be a whole number from 1 to 64, such as 1"),
            ("ledger: on\n", "ledger: must be a mapping, such as {key_file: /etc/docpreview/ledger.key}"),
            ("admin_hosts: one\n", "admin_hosts: must be a list, such as [gateway.example.com]"),
            ("reflection: perhaps\n", "reflection: must be true or false"),
            ("ledgr: {}\n", "ledgr: unknown setting; did you mean `ledger`?"),
            ("ledger: {keyfile: x}\n", "ledger.keyfile: unknown setting; did you mean `key_file`?"),
            ("zzz: 1\n", "zzz: unknown setting"),
            ("ledger: {5: x}\n", "ledger: is no name of a setting; a name is a text"),
        ],
    )
    def test_a_mistake_is_told_in_words_of_yaml_with_the_nearest_key(
        self, folder: Path, text: str, problem: str
    ) -> None:
        """And not in those of Python."""
        path = file(folder, text)
        assert problem.replace("{path}", str(path)) in problems(path)

    def test_bytes_that_are_not_text_are_rejected(self, folder: Path) -> None:
        """Like any other file that is not YAML."""
        path = folder / "gateway.yaml"
        path.write_bytes(b"\xff\xfe\x00\x81")
        assert len(problems(path)) == 1


WRONG_PLACES = [
    f"credentials: {CANARY}\n",
    f"credentials: {{main: {CANARY}}}\n",
    f"credentials: {{main: {{secret_id: x, secret_key: {CANARY}, tokn: {CANARY}}}}}\n",
    f"credentials: {{main: {{secret_id: x, secret_key: [{CANARY}]}}}}\n",
    f"credentials: {{main: {{secret_id: [{CANARY}], secret_key: x}}}}\n",
    f"credentials:\n  main:\n    secret_id: x\n   secret_key: {CANARY}\n",
    f"credentials:\n  main:\n    secret_id: x\n    secret_key: *{CANARY}\n",
    f"credentials:\n  main:\n    secret_id: x\n    secret_key: !{CANARY} y\n",
    f"credentials:\n  main:\n    secret_id: x\n    secret_key: '{CANARY}\n",
    f'credentials:\n  main:\n    secret_id: x\n    secret_key: "\\x{CANARY}"\n',
    f"credentials:\n  main:\n    secret_id: x\n    secret_key: @{CANARY}\n",
    f"credentials:\n  main:\n    secret_id: x\n    secret_key: %{CANARY}\n",
    f"%{CANARY} 1\n---\n",
    f"upstream: {{endpoint: 'http://user:{CANARY}@x'}}\n",
    f"upstream: {{endpoint: '{CANARY}'}}\n",
    f"upstream: {{object_url_base: '{CANARY}'}}\n",
    f"logging: {{level: {CANARY}}}\n",
    f"watch: {{heartbeat_seconds: {CANARY}}}\n",
    f"listen: {CANARY}\n",
    f"buckets: {CANARY}\n",
    f"buckets: [{{name: {CANARY}, region: {CANARY}, credentials: x}}]\n",
    f"- {CANARY}\n",
    f"{CANARY}\n",
]


class TestSecrets:
    @pytest.mark.parametrize("text", WRONG_PLACES)
    def test_mistakes_of_a_file_do_not_quote_its_values(self, folder: Path, text: str) -> None:
        """Wherever the mistake is."""
        found = problems(file(folder, text))
        assert CANARY not in str(found)

    @pytest.mark.parametrize("name", ["DOCPREVIEW_CREDENTIALS", "DOCPREVIEW_BUCKETS", "DOCPREVIEW_UPSTREAM"])
    @pytest.mark.parametrize("value", [CANARY, f'{{"main": "{CANARY}"', f'["{CANARY}"]', f'{{"main": "{CANARY}"}}'])
    def test_mistakes_of_a_variable_do_not_quote_its_value(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        """Of any type."""
        monkeypatch.setenv(name, value)
        found = problems(file(folder, MINIMAL))
        assert CANARY not in str(found)

    def test_secrets_are_in_no_text_form_of_the_settings(self, folder: Path) -> None:
        """Not in repr, str or a dump."""
        text = MINIMAL.replace("a-key", CANARY).replace("an-id, ", f"an-id, token: {CANARY}2, ")
        settings = load(file(folder, text))
        shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
        assert CANARY not in shown
        assert settings.credentials["main"].token.get_secret_value() == CANARY + "2"

    def test_settings_are_frozen(self, folder: Path) -> None:
        """They stay as they were loaded."""
        settings = load(file(folder, MINIMAL))
        with pytest.raises(ValueError, match="frozen"):
            settings.listen = "x"  # type: ignore[misc]


class TestCommand:
    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "docpreview_gateway", *arguments]
        return subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60
        )

    def test_a_valid_configuration_exits_with_0_and_a_summary(self, folder: Path) -> None:
        """Buckets and addresses."""
        done = self.run("check-config", "--config", str(file(folder, MINIMAL)))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "ok: 1 bucket(s), gRPC on 127.0.0.1:50051, admin on 127.0.0.1:9464\n"

    def test_a_key_file_that_cannot_be_used_is_named_with_what_to_write(self, folder: Path) -> None:
        """It is read, and not quoted."""
        key = folder / "ledger.key"
        path = file(folder, SHARED.replace("key_file: ledger.key", f"key_file: {key}"))
        done = self.run("check-config", "--config", str(path))
        assert (done.returncode, done.stderr) == (2, f"error: ledger.key_file: {key}: No such file or directory\n")
        key.write_text(CANARY)
        done = self.run("check-config", "--config", str(path))
        assert (done.returncode, "openssl rand -base64 32" in done.stderr) == (2, True)
        assert CANARY not in done.stderr
        key.write_text(CANARY * 2)
        assert self.run("check-config", "--config", str(path)).returncode == 0

    @pytest.mark.parametrize("command", ["check-config", "serve"])
    def test_an_invalid_configuration_exits_with_2_and_one_line_for_each_mistake(
        self, folder: Path, command: str
    ) -> None:
        """Without secrets."""
        text = MINIMAL.replace("a-key", CANARY) + "listen: nowhere\nlisen: x\n"
        done = self.run(command, "-c", str(file(folder, text)), DOCPREVIEW_LOGING=CANARY)
        assert (done.returncode, done.stdout) == (2, "")
        assert [line.split(": ")[:2] for line in done.stderr.splitlines()] == [
            ["error", "DOCPREVIEW_LOGING"],
            ["error", "listen"],
            ["error", "lisen"],
        ]
        assert CANARY not in done.stderr


def test_sections_are_frozen() -> None:
    """No part of the gateway can change another's settings."""
    settings = Settings.model_construct()
    assert settings.watch.heartbeat_seconds == 15.0
    with pytest.raises(ValueError, match="frozen"):
        settings.watch.heartbeat_seconds = 1.0  # type: ignore[misc]


class TestProtection:
    @pytest.mark.parametrize("wrong", ["lowest: 33", "highest: 31", "{initial: 3}", "initial: 101"])
    def test_concurrency_bounds_are_ordered_and_within_the_connections(self, folder: Path, wrong: str) -> None:
        """The initial limit is between the lowest and the highest, and these are below the number of connections."""
        section = wrong if wrong.startswith("{") else f"{{{wrong}}}"
        (problem,) = problems(file(folder, MINIMAL + f"concurrency: {section}\n"))
        assert problem.startswith("concurrency.initial: ")

    def test_retries_and_breaker_can_be_switched_off(self, folder: Path) -> None:
        """By 0."""
        settings = load(file(folder, MINIMAL + "retry: {max_retries: 0}\nbreaker: {min_calls: 0}\n"))
        assert (settings.retry.max_retries, settings.breaker.min_calls) == (0, 0)

    @pytest.mark.parametrize("section", ["retry", "breaker", "concurrency", "limits"])
    def test_every_protection_key_is_documented_with_its_default(self, section: str) -> None:
        """In docs/configuration.md."""
        text = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text()
        for name, field in Settings.model_fields[section].default.__class__.model_fields.items():
            default = f"`{field.default:g}`" if isinstance(field.default, int | float) else ""
            assert f"| `{section}.{name}" in text
            assert default in next(line for line in text.splitlines() if line.startswith(f"| `{section}.{name}"))


class TestLimits:
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ("anonymous: {rate: 100}", "limits.anonymous.rate: a rate has a unit: write {per_second: 100, burst: 200}"),
            (
                "anonymous: {rate: {per_second: -1}}",
                "limits.anonymous.rate.per_second: must be a number above 0, at most 100000",
            ),
            ("anonymous: {rate: {per_second: 5, burst: 0}}", "limits.anonymous.rate.burst: "),
            ("anonymous: {budget: 5000}", "limits.anonymous.budget: a budget has a unit: write {per_day: 5000}"),
            ("anonymous: {budget: 5000/day}", "limits.anonymous.budget: a budget has a unit"),
            ("anonymous: {budget: {per_day: -1}}", "limits.anonymous.budget.per_day: "),
            ("anonymous: {budget: {count: all}}", "limits.anonymous.budget.count: "),
            ("anonymous: {budget: {outage_pages: -1}}", "limits.anonymous.budget.outage_pages: "),
            (
                "anonymous: {method_rates: {Get: {per_second: 1}}}",
                "limits.anonymous: method_rates: no such method: Get",
            ),
            ("anonymous: {concurrency: 0}", "limits.anonymous.concurrency: "),
            ("account: 50", "limits.account: a rate has a unit"),
            ("without_store: maybe", "limits.without_store: "),
        ],
    )
    def test_an_invalid_limit_is_rejected_with_its_path_and_what_to_write(
        self, folder: Path, wrong: str, message: str
    ) -> None:
        """A number without a unit, among others."""
        (problem,) = problems(file(folder, MINIMAL + f"limits: {{{wrong}}}\n"))
        assert problem.startswith(message)

    def test_limits_of_anonymous_callers_are_loaded(self, folder: Path) -> None:
        """A burst is one second's calls by default."""
        section = "{rate: {per_second: 2.5}, method_rates: {CreatePreviewJob: {per_second: 1, burst: 9}}, shadow: true}"
        caller = load(file(folder, MINIMAL + f"limits: {{anonymous: {section}}}\n")).limits.anonymous.caller("x")
        assert caller.rate == Rate(2.5, 3)
        assert caller.method_rates == {"CreatePreviewJob": Rate(1, 9)}
        assert (caller.name, caller.shadow, caller.budget) == ("x", True, None)

    def test_a_budget_may_count_asked_pages_only_and_leave_some_for_outages(self, folder: Path) -> None:
        """By default it estimates, and leaves none."""
        section = "{budget: {per_day: 70, count: asked, outage_pages: 7}}"
        caller = load(file(folder, MINIMAL + f"limits: {{anonymous: {section}}}\n")).limits.anonymous.caller("x")
        assert caller.budget == PageBudget(per_day=70, count="asked", outage_pages=7)
        caller = load(file(folder, MINIMAL + "limits: {anonymous: {budget: {}}}\n")).limits.anonymous.caller("x")
        assert caller.budget == PageBudget(count="estimate", outage_pages=0)

    def test_each_limit_can_be_set_by_a_variable(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nested keys by `__`."""
        monkeypatch.setenv("DOCPREVIEW_LIMITS__ANONYMOUS__RATE__PER_SECOND", "7")
        monkeypatch.setenv("DOCPREVIEW_LIMITS__ANONYMOUS__BUDGET__PER_DAY", "70")
        caller = load(file(folder, MINIMAL)).limits.anonymous.caller("x")
        assert (caller.rate, caller.budget) == (Rate(7, 7), PageBudget(per_day=70))
