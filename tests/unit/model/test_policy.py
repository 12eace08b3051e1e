"""Authorization: denied unless a rule allows it, and each decision names its rule."""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.model.policy import ANY_METHOD, REFLECTION, BucketRights, Question, Rights, explain, require

if TYPE_CHECKING:
    from docpreview_gateway.model.policy import Decision

MINE, THEIRS, OUT = "mine-1250000000", "theirs-1250000000", "out-1250000000"
RIGHTS = Rights(
    "callers.shop",
    frozenset({"GetPreviewJob", "CreatePreviewJob"}),
    {
        MINE: BucketRights("callers.shop.buckets[mine]", ("in/", "a/b/"), {OUT: ("p/",)}),
        "whole-1250000000": BucketRights("callers.shop.buckets[whole]", ("",), {"whole-1250000000": ("",)}),
    },
    presets={"thumbnail": PreviewOptions(quality=50)},
)

LOOK_ALIKE = "\N{FULLWIDTH FULL STOP}"
PARTS = st.sampled_from(
    ["in", "a", "b", "p", "x", ".", "..", "", "%2e%2e", "..%2f", LOOK_ALIKE * 2, "%252e%252e", "\\..", "é", "in "]
)
KEYS = st.lists(PARTS, min_size=1, max_size=6).map("/".join)


def places(key: str) -> list[str]:
    """Folders of a key for readers that decode it several times and normalise its path."""
    found = []
    for _ in range(4):
        walked: list[str] = []
        for part in key.replace("\\", "/").split("/"):
            if part.strip() == "..":
                del walked[-1:]
            elif part.strip() not in {"", "."}:
                walked.append(part)
        found.append("/".join(walked))
        key = unicodedata.normalize("NFKC", unquote(key))
    return found


class TestMethods:
    def test_a_named_method_is_allowed_by_name(self) -> None:
        """The rule names the method."""
        assert RIGHTS.of_method("GetPreviewJob") == (True, "callers.shop.methods", "names GetPreviewJob")

    @pytest.mark.parametrize("name", ["ListPreviewJobs", REFLECTION, "", "getpreviewjob", ANY_METHOD])
    def test_a_method_that_is_not_named_is_denied(self, name: str) -> None:
        """The rule does not name it."""
        assert not RIGHTS.of_method(name).allowed

    def test_the_star_allows_the_contracts_methods_and_no_operators_services(self) -> None:
        """Reflection has to be named."""
        rights = Rights("callers.all", frozenset({ANY_METHOD}), {})
        assert rights.of_method("GetUsage").allowed
        assert not rights.of_method(REFLECTION).allowed


class TestKeys:
    @pytest.mark.parametrize(
        "key", ["in/a.pdf", "in/a b/ü中.pdf", "a/b/c/d.pdf", "in/100%.pdf", "in/a%20b.pdf", "in/..pdf"]
    )
    def test_an_ordinary_key_under_a_prefix_is_allowed(self, key: str) -> None:
        """With spaces, percent signs, dots in names, and letters of other scripts."""
        decision = RIGHTS.of_input(MINE, key)
        assert decision.allowed
        assert decision.rule == "callers.shop.buckets[mine].input_prefixes"

    @pytest.mark.parametrize(
        "key",
        [
            "",
            "in",
            "inside/a.pdf",
            "/in/a.pdf",
            "IN/a.pdf",
            "a/c.pdf",
            "in/../x.pdf",
            "in/./../x.pdf",
            "in/./x.pdf",
            "in/.",
            "in//../x.pdf",
            "in//a.pdf",
            "in/..",
            "in/a/../../x.pdf",
            "in/%2e%2e/x.pdf",
            "in/%2E%2E%2Fx.pdf",
            "in/..%2fx.pdf",
            "in/%252e%252e/x.pdf",
            "in/%25252e%25252e/x.pdf",
            "in/%2525252525252e%2525252525252e/x.pdf",
            "in/..\\x.pdf",
            "in\\..\\x.pdf",
            "in/%5c..%5cx.pdf",
            "in/\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}/x.pdf",
            "in/\N{TWO DOT LEADER}/x.pdf",
            "in/..\N{FULLWIDTH SOLIDUS}x.pdf",
            "in/.. /x.pdf",
            "in/\t../x.pdf",
            "%69n/a.pdf",
            "in/" + "x" * 900,
        ],
    )
    def test_a_key_that_leaves_its_prefix_in_any_encoding_is_denied(self, key: str) -> None:
        """By dots, slashes, percent signs and look-alikes."""
        assert not RIGHTS.of_input(MINE, key).allowed

    @given(KEYS)
    @example("in/%2e%2e/x")
    def test_an_allowed_key_stays_in_its_folder_however_it_is_read(self, key: str) -> None:
        """For any text as a key."""
        if RIGHTS.of_input(MINE, key).allowed:
            assert all((place + "/").startswith(("in/", "a/b/")) for place in places(key))

    @given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs"], exclude_characters="%/\\"), min_size=1))
    def test_ordinary_names_in_any_script_are_allowed(self, name: str) -> None:
        """Percent-encoded, too."""
        if set(unicodedata.normalize("NFKC", name)) & set("./%\\ "):
            return
        assert RIGHTS.of_input(MINE, f"in/{name}.pdf").allowed or len(name) > 800
        assert RIGHTS.of_input(MINE, f"in/{quote(name)}.pdf").allowed or len(quote(name)) > 800

    def test_the_empty_prefix_allows_every_key_of_the_bucket(self) -> None:
        """Whether it is a valid key is not decided here."""
        assert RIGHTS.of_input("whole-1250000000", "in/../x").allowed


class TestBuckets:
    @pytest.mark.parametrize("bucket", [THEIRS, "", "mine-1250000000 ", "MINE-1250000000", OUT])
    def test_everything_in_a_bucket_that_is_not_named_is_denied(self, bucket: str) -> None:
        """An output bucket is not a source bucket either."""
        assert not RIGHTS.of_bucket(bucket).allowed
        assert not RIGHTS.of_input(bucket, "in/a.pdf").allowed
        assert not RIGHTS.of_output(bucket, OUT, "p/${Number}").allowed
        assert not RIGHTS.sees(PreviewJob(input=ObjectLocation(bucket=bucket, object="in/a.pdf")), bucket)
        assert not RIGHTS.sees_all(bucket)

    @pytest.mark.parametrize(
        ("output", "key", "allowed"),
        [
            (OUT, "p/${Number}.jpg", True),
            (OUT, "${Number}.jpg", False),
            (OUT, "p/../q/${Number}.jpg", False),
            (MINE, "p/${Number}.jpg", False),
            (THEIRS, "p/${Number}.jpg", False),
            ("", "p/${Number}.jpg", False),
        ],
    )
    def test_results_go_only_where_the_policy_says(self, output: str, key: str, *, allowed: bool) -> None:
        """Otherwise any caller could write anywhere with the gateway's keys."""
        assert RIGHTS.of_output(MINE, output, key).allowed is allowed


class TestPages:
    @pytest.mark.parametrize(
        ("bucket", "output", "key", "decision"),
        [
            (MINE, OUT, "p/1.jpg", (True, "callers.shop.buckets[mine].outputs[out-1250000000].prefixes")),
            (MINE, OUT, "q/1.jpg", (False, "callers.shop.buckets[mine].outputs[out-1250000000].prefixes")),
            (MINE, OUT, "p/../q/1.jpg", (False, "callers.shop.buckets[mine].outputs[out-1250000000].prefixes")),
            (MINE, THEIRS, "t/1.jpg", (True, "callers.shop.buckets[mine].pages[theirs-1250000000].prefixes")),
            (MINE, THEIRS, "t/%2e%2e/1", (False, "callers.shop.buckets[mine].pages[theirs-1250000000].prefixes")),
            (MINE, MINE, "p/1.jpg", (False, "callers.shop.buckets[mine].pages")),
            (THEIRS, OUT, "p/1.jpg", (False, "callers.shop.buckets")),
        ],
    )
    def test_a_page_is_given_under_outputs_and_pages_of_its_source_bucket(
        self, bucket: str, output: str, key: str, decision: tuple[bool, str]
    ) -> None:
        """The decision has the rule."""
        pages = BucketRights("callers.shop.buckets[mine]", ("in/",), {OUT: ("p/",)}, {THEIRS: ("t/",)})
        rights = replace(RIGHTS, buckets={MINE: pages})
        assert rights.of_page(bucket, output, key)[:2] == decision
        assert rights.page_places(MINE) == (f"{OUT}/p/", f"{THEIRS}/t/")
        assert rights.page_places(THEIRS) == ()

    def test_a_caller_without_page_urls_gets_no_page_of_its_own_either(self) -> None:
        """The right is for all of its buckets."""
        rights = replace(RIGHTS, page_urls=False)
        assert rights.of_page(MINE, OUT, "p/1.jpg") == (False, "callers.shop.page_urls", "is false")
        assert rights.page_places(MINE) == ()

    def test_results_are_not_written_where_only_pages_are_given(self) -> None:
        """`pages` are for reading."""
        rights = replace(RIGHTS, buckets={MINE: BucketRights("b", ("",), {}, {OUT: ("",)})})
        assert rights.of_page(MINE, OUT, "p/1.jpg").allowed
        assert not rights.of_output(MINE, OUT, "p/${Number}.jpg").allowed


class TestJobs:
    @pytest.mark.parametrize(
        ("bucket", "key", "seen"),
        [
            (MINE, "in/a.pdf", True),
            ("", "in/a.pdf", True),
            (MINE, "x/a.pdf", False),
            (MINE, "", False),
            (THEIRS, "in/a.pdf", False),
            ("whole-1250000000", "in/a.pdf", False),
        ],
    )
    def test_a_job_is_visible_only_where_its_input_may_be_used(self, bucket: str, key: str, *, seen: bool) -> None:
        """Visibility follows the prefixes of inputs."""
        assert RIGHTS.sees(PreviewJob(input=ObjectLocation(bucket=bucket, object=key)), MINE) is seen


NAMES = st.sampled_from(["a-12345", "b-12345", "c-12345"])
PREFIXES = st.lists(st.sampled_from(["", "in/", "a/", "a/b/"]), min_size=1, max_size=2).map(tuple)
POLICIES = st.dictionaries(NAMES, st.tuples(PREFIXES, st.dictionaries(NAMES, PREFIXES, max_size=2)), max_size=2)
CALLS = st.tuples(
    st.sampled_from(["GetPreviewJob", "CreatePreviewJob", "ListPreviewJobs"]),
    NAMES,
    st.sampled_from(["in/x", "a/x", "a/b/x", "x", "a/../x"]),
    NAMES,
    st.sampled_from(["in/${Number}", "a/${Number}", "a/b/${Number}", "${Number}"]),
)


@given(st.sets(st.sampled_from(["GetPreviewJob", "CreatePreviewJob"])), POLICIES, CALLS)
def test_decisions_and_explanations_agree_for_any_policy_and_call(
    methods: set[str], buckets: dict[str, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]], call: tuple[str, ...]
) -> None:
    """Both equal a plain reading of the policy."""
    method, bucket, key, output, template = call
    rights = Rights(
        "callers.x",
        frozenset(methods),
        {name: BucketRights(name, inputs, outputs) for name, (inputs, outputs) in buckets.items()},
    )
    inputs, outputs = buckets.get(bucket, ((), {}))
    expected = (
        method in methods
        and any(key.startswith(prefix) and (not prefix or "/../" not in key) for prefix in inputs)
        and any(template.startswith(prefix) for prefix in outputs.get(output, ()))
    )
    decisions = explain(rights, Question(method, bucket, key, output, template, None))
    assert all(decision.allowed for decision in decisions) is expected
    for decision in decisions:
        if decision.allowed:
            require(decision)
        else:
            with pytest.raises(GatewayError) as caught:
                require(decision)
            assert caught.value.reason == r.ERROR_REASON_NOT_PERMITTED


def test_explaining_a_create_without_results_checks_the_output_bucket() -> None:
    """It is denied when the policy has no output for the source bucket."""
    rights = Rights("callers.x", frozenset({"CreatePreviewJob"}), {MINE: BucketRights("b", ("",))})
    assert [found.allowed for found in explain(rights, Question("CreatePreviewJob", MINE, None, MINE, None, None))] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(("name", "allowed"), [("thumbnail", True), ("other", False)])
def test_a_preset_is_allowed_only_to_its_own_caller(name: str, *, allowed: bool) -> None:
    """The caller's policy entry must name it."""
    decision: Decision = explain(RIGHTS, Question("GetPreviewJob", MINE, None, MINE, None, name))[-1]
    assert decision.allowed is allowed


def test_without_a_policy_every_call_is_allowed() -> None:
    """The one decision says that there is no policy."""
    (decision,) = explain(None, Question("GetPreviewJob", MINE, None, MINE, None, None))
    assert decision.allowed


def test_only_the_method_decides_on_a_call_without_a_bucket() -> None:
    """GetUsage and reflection have none."""
    (decision,) = explain(RIGHTS, Question("GetUsage", None, None, None, None, None))
    assert decision == (False, "callers.shop.methods", "does not name GetUsage")
