"""The policy file: the documented example, and every mistake named."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewOptions, Watermark
from docpreview_gateway.access import tokens
from docpreview_gateway.access.directory import Claim
from docpreview_gateway.model.callers import PageBudget, Rate
from docpreview_gateway.model.policy import UploadRights
from docpreview_gateway.settings.policy_file import PolicyError, Surroundings, load_policy

EXAMPLE = Path(__file__).parents[3] / "examples" / "policy.yaml"
BUCKET = "examplebucket-1250000000"
SURROUNDINGS = Surroundings(frozenset({BUCKET}), frozenset({"https://idp.corp.example"}), client_certificates=True)
HASH = "dpt1:hqe6mb2gefs6wmc2:0049eb535311764ce11b7e6228df7261:" + "0" * 64
CALLER = f"""
version: 1
callers:
  shop:
    identities: [{{token: "{HASH}"}}]
    methods: [GetPreviewJob]
    buckets:
      - {{bucket: {BUCKET}, input_prefixes: [in/]}}
"""


def problems(folder: Path, text: str | bytes) -> str:
    path = folder / "policy.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(PolicyError) as caught:
        load_policy(path, SURROUNDINGS)
    return "\n".join(caught.value.problems)


def test_a_policy_may_force_a_watermark(tmp_path: Path) -> None:
    """Its image is in a configured bucket, by default the document's."""
    path = tmp_path / "policy.yaml"
    path.write_text(
        CALLER + "    options: {force: {watermark: {image: {object: brand/logo.png}, dx: 5, tiled: true}}}\n"
    )
    rights = load_policy(path, SURROUNDINGS).callers["shop"].rights
    assert rights is not None
    image = ObjectLocation(object="brand/logo.png")
    assert rights.options.force == PreviewOptions(watermark=Watermark(image=image, dx=5, tiled=True))


@pytest.mark.parametrize(
    ("watermark", "problem"),
    [
        ("{dx: 5}", "watermark.image.object: is required"),
        ("{image: {object: a.png}, vertical_spacing: 5}", "watermark.vertical_spacing: applies to tiled"),
        (
            "{image: {bucket: other-1250000000, object: a.png}}",
            "callers.shop.options.default.watermark.image: other-1250000000 is not among the buckets",
        ),
    ],
)
def test_a_watermark_that_no_create_can_have_is_a_mistake_of_the_policy(
    tmp_path: Path, watermark: str, problem: str
) -> None:
    assert problem in problems(tmp_path, f"{CALLER}    options: {{default: {{watermark: {watermark}}}}}\n")


def test_a_callers_budget_may_count_asked_pages_only(tmp_path: Path) -> None:
    """As in the configuration."""
    path = tmp_path / "policy.yaml"
    path.write_text(CALLER + "    budget: {per_month: 9, count: asked, outage_pages: 2}\n")
    budget = load_policy(path, SURROUNDINGS).callers["shop"].budget
    assert budget == PageBudget(per_month=9, count="asked", outage_pages=2)


def test_the_example_policy_gives_its_callers_what_the_docs_explain() -> None:
    """Three callers, as in docs/security.md."""
    found = load_policy(EXAMPLE, SURROUNDINGS)
    shop, archive, support = (found.callers[name] for name in ("shop", "archive", "support"))
    assert shop.rate == Rate(20, 40)
    assert shop.method_rates == {"CreatePreviewJob": Rate(2, 5)}
    assert (shop.concurrency, shop.budget) == (50, PageBudget(20_000, 200_000))
    assert shop.rights is not None
    assert shop.rights.presets["thumbnail"] == PreviewOptions(
        target_format=PreviewOptions.TARGET_FORMAT_JPG,
        start_page=1,
        end_page=1,
        image_params="imageMogr2/thumbnail/320x",
    )
    assert shop.rights.options.max_pages == 200
    assert shop.rights.uploads[BUCKET].prefixes == ("shop/",)
    assert shop.rights.uploads[BUCKET].max_bytes == 50 * 1024 * 1024
    assert not shop.rights.uploads[BUCKET].overwrite
    assert (archive.weight, archive.dedupe_seconds) == (0.2, 86400)
    assert found.names == {"spiffe://corp.example/ns/archive/sa/nightly": archive, "dns:archive.corp.example": archive}
    assert found.claims == {Claim("https://idp.corp.example", "groups_role", "docpreview-support"): support}
    assert list(found.tokens) == ["hqe6mb2gefs6wmc2"]
    assert support.rights is not None
    assert archive.rights is not None
    assert support.rights.page_places(BUCKET) == (f"{BUCKET}/previews/shop/",)
    assert shop.rights.page_places(BUCKET) == (f"{BUCKET}/previews/shop/",)
    assert archive.rights.page_places(BUCKET) == ()


def test_what_a_caller_may_upload_is_read_with_its_defaults(tmp_path: Path) -> None:
    """All that the cloud converts, of any type, and nothing in the place of another object."""
    path = tmp_path / "policy.yaml"
    path.write_text(CALLER + f"    uploads: [{{bucket: {BUCKET}, prefixes: [in/]}}]\n")
    rights = load_policy(path, SURROUNDINGS).callers["shop"].rights
    assert rights is not None
    assert rights.uploads[BUCKET] == UploadRights(f"callers.shop.uploads[{BUCKET}]", ("in/",), 209_715_200)
    more = "max_bytes: 5, types: [application/pdf], overwrite: true"
    path.write_text(CALLER + f"    uploads: [{{bucket: {BUCKET}, prefixes: [in/], {more}}}]\n")
    rights = load_policy(path, SURROUNDINGS).callers["shop"].rights
    assert rights is not None
    types = frozenset({"application/pdf"})
    rule = f"callers.shop.uploads[{BUCKET}]"
    assert rights.uploads[BUCKET] == UploadRights(rule, ("in/",), 5, types, overwrite=True)


@pytest.mark.parametrize(
    ("uploads", "problem"),
    [
        ("[{bucket: other-1250000000, prefixes: [in/]}]", "callers.shop.uploads: other-1250000000 is not among the"),
        (f"[{{bucket: {BUCKET}}}]", "callers.shop.uploads.0.prefixes"),
        (f"[{{bucket: {BUCKET}, prefixes: []}}]", "callers.shop.uploads.0.prefixes"),
        (f"[{{bucket: {BUCKET}, prefixes: [in]}}]", "must end with /"),
        (f"[{{bucket: {BUCKET}, prefixes: [in/], max_bytes: 0}}]", "callers.shop.uploads.0.max_bytes"),
        (f"[{{bucket: {BUCKET}, prefixes: [in/], max_bytes: 209715201}}]", "callers.shop.uploads.0.max_bytes"),
        (f"[{{bucket: {BUCKET}, prefixes: [in/], types: []}}]", "callers.shop.uploads.0.types"),
        (f"[{{bucket: {BUCKET}, prefixes: [in/], types: [pdf]}}]", "callers.shop.uploads.0.types"),
        (f"[{{bucket: {BUCKET}, prefixes: [in/], overwrite: 1.5}}]", "callers.shop.uploads.0.overwrite"),
        (f"[{{bucket: {BUCKET}, prefixes: [in/], size: 1}}]", "unknown key"),
        (
            f"[{{bucket: {BUCKET}, prefixes: [a/]}}, {{bucket: {BUCKET}, prefixes: [b/]}}]",
            f"callers.shop.uploads: {BUCKET} is listed more than once; give one entry all of its prefixes",
        ),
    ],
)
def test_every_mistake_in_uploads_is_named_with_its_path(tmp_path: Path, uploads: str, problem: str) -> None:
    """As elsewhere in the policy."""
    assert problem in problems(tmp_path, CALLER + f"    uploads: {uploads}\n")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("version: 1", "version: 2", "version: "),
        ("methods: [GetPreviewJob]", "methods: [GetJob]", "callers.shop.methods: GetJob is not a method"),
        ("methods: [GetPreviewJob]", "methods: []", "callers.shop.methods: "),
        ("methods: [GetPreviewJob]", "methods: [GetPreviewJob]\n    rates: 1", "callers.shop.rates: unknown key"),
        (
            "methods: [GetPreviewJob]",
            "methods: [GetPreviewJob]\n    rate: {per_second: 0, burst: 1}",
            "a number above 0",
        ),
        ("methods: [GetPreviewJob]", "methods: [GetPreviewJob]\n    presets: [x]", "callers.shop.presets: there is no"),
        ("methods: [GetPreviewJob]", "methods: [GetPreviewJob]\n    options: {force: {dpi: 1}}", "PreviewOptions"),
        (
            "methods: [GetPreviewJob]",
            "methods: [GetPreviewJob]\n    options: {force: {quality: 0}}",
            "between 1 and 100",
        ),
        ("methods: [GetPreviewJob]", "methods: [GetPreviewJob]\n    options: {force: {password: x}}", "password"),
        ("methods: [GetPreviewJob]", "methods: [GetPreviewJob]\n    options: {at_most: {image_dpi: 10}}", "between 96"),
        (BUCKET, "other-1250000000", "other-1250000000 is not among the buckets"),
        ("[in/]}", "[in/], pages: [{bucket: other-1250000000, prefixes: [p/]}]}", "other-1250000000 is not among"),
        ("[in/]}", f"[in/], pages: [{{bucket: {BUCKET}, prefixes: [/p]}}]}}", "pages.0.prefixes.0: must end with /"),
        ("[in/]}", f"[in/], pages: [{{bucket: {BUCKET}, prefixes: []}}]}}", "pages.0.prefixes"),
        ("[in/]}", f"[in/], pages: [{{bucket: {BUCKET}}}]}}", "pages.0.prefixes"),
        (
            "[in/]}",
            f"[in/], pages: [{{bucket: {BUCKET}, prefixes: [p/]}}, {{bucket: {BUCKET}, prefixes: [q/]}}]}}",
            f"callers.shop.buckets.{BUCKET}.pages: {BUCKET} is listed more than once",
        ),
        (
            "[in/]}",
            f"[in/], outputs: [{{bucket: {BUCKET}, prefixes: [p/]}}, {{bucket: {BUCKET}, prefixes: [q/]}}]}}",
            f"callers.shop.buckets.{BUCKET}.outputs: {BUCKET} is listed more than once",
        ),
        (
            "[in/]}",
            f"[in/], pages: [{{bucket: {BUCKET}, prefixes: [p/]}}]}}\n    page_urls: false",
            "callers.shop: page_urls: false leaves nothing to buckets[].pages; take one of them away",
        ),
        ("methods: [GetPreviewJob]", "methods: [GetPreviewJob]\n    page_urls: perhaps", "callers.shop.page_urls: "),
        ("methods: [GetPreviewJob]", "methods: [Reflection]", "Reflection is not a method; there are"),
        ("methods: [GetPreviewJob]", "methods: [GetPreviewJob, ServerReflectionInfo]", "ServerReflectionInfo is not"),
        ("methods: [GetPreviewJob]", "methods: ['Get*']", "Get* is not a method"),
        ("[in/]", "[in]", "must end with /"),
        ("[in/]", "[/in/]", "must end with /"),
        ("[in/]", "[]", "input_prefixes"),
        (HASH, "dpt_aaaaaaaaaaaaaaaa_canary", "must be a hash"),
        (f'{{token: "{HASH}"}}', "{dns: a.example, spiffe: spiffe://x/y}", "exactly one"),
        (f'{{token: "{HASH}"}}', "{}", "exactly one"),
        (f'{{token: "{HASH}"}}', "{jwt: {issuer: https://evil, value: x}}", "https://evil is not among auth.jwt"),
        (f'{{token: "{HASH}"}}', "{spiffe: https://x/y}", "callers.shop.identities.0.spiffe"),
        ("  shop:", "  Shop X:", "callers.Shop X"),
        ("  shop:", "  anonymous:", "callers.anonymous: the name is reserved"),
        ("  shop:", "  gateway:", "callers.gateway: the name is reserved for the gateway's own reads; choose another"),
        ("callers:", "callers: {}\nothers:", "callers: "),
        ("    methods:", "    methods: [GetPreviewJob]\n    methods:", "duplicate key methods"),
        (
            "      - {bucket",
            f"      - {{bucket: {BUCKET}, input_prefixes: [x/]}}\n      - {{bucket",
            "is listed more than once; give one entry",
        ),
    ],
)
def test_a_mistake_is_named_with_its_path_and_without_a_secret(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    """One mistake in a valid policy."""
    assert old in CALLER
    found = problems(tmp_path, CALLER.replace(old, new))
    assert problem in found
    assert "canary" not in found
    assert HASH not in found


@pytest.mark.parametrize(
    ("old", "new", "form"),
    [
        ("    methods:", "    rates: 1\n    methods:", "callers.shop.rates: unknown key"),
        ("    methods:", "    weight: heavy\n    methods:", "callers.shop.weight: "),
        ("version: 1", "version: 2", "version: "),
        ("version: 1", "version: 1\ncaller: {}", "caller: unknown key"),
        ("version: 1", "version: 1\npresets: {small: {dpi: 1}}", "presets.small: unknown option dpi"),
        ("  shop:", "  other: [wrong]\n  Wrong Name: 3\n  shop:", "callers.other: "),
        ("  shop:", "  other: {identities: [], methods: [GetJob], rates: 1}\n  shop:", "callers.other.identities: "),
    ],
)
def test_a_mistake_of_form_hides_no_unknown_bucket_method_or_preset(
    tmp_path: Path, old: str, new: str, form: str
) -> None:
    """All are named in one run."""
    text = CALLER.replace(BUCKET, "other-1250000000").replace(
        "[GetPreviewJob]", "[GetJobs]\n    presets: [small, tiny]"
    )
    found = problems(tmp_path, text.replace(old, new, 1))
    assert form in found
    assert "callers.shop.buckets: other-1250000000 is not among" in found
    assert "callers.shop.methods: GetJobs is not a method" in found
    assert "callers.shop.presets: there is no preset tiny" in found
    assert ("there is no preset small" in found) == ("small" not in new)


@pytest.mark.parametrize("more", ["presets: [a]", "presets: 3", "callers: {shop: {}}"])
def test_a_form_that_leaves_no_policy_is_named_alone(tmp_path: Path, more: str) -> None:
    assert "not a method" not in problems(tmp_path, "version: 1\n" + more)


def test_an_identity_of_two_callers_is_a_mistake(tmp_path: Path) -> None:
    """An identity identifies one caller."""
    second = CALLER.split("callers:\n")[1].replace("  shop:", "  shop2:").replace("0" * 64, "1" * 64)
    assert "callers.shop, shop2: an identity is listed more than once" in problems(tmp_path, CALLER + second)


@pytest.mark.parametrize("text", ["", "[]", "a: b: c", "\tx", b"\xff\xfe\xff", "!!python/object:os.system x"])
def test_a_file_that_is_not_a_policy_is_rejected(tmp_path: Path, text: str | bytes) -> None:
    """Other documents, bytes that are not text, unsafe YAML tags."""
    assert problems(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file must be a YAML mapping, with the keys version and callers"),
        ("version: 1\n\tcallers: {}", "line 2, column 1: a tab: YAML wants spaces"),
        ("version: 1", "callers: is missing"),
        (CALLER.replace("[in/]", "in/"), "callers.shop.buckets.0.input_prefixes: must be a list, such as [in/]"),
        (CALLER.replace("[GetPreviewJob]", "GetPreviewJob"), "callers.shop.methods: must be a list, such as"),
        (CALLER + "    budgt: {}\n", "callers.shop.budgt: unknown key; did you mean `budget`?"),
        (CALLER + "    budget: {per_dy: 1}\n", "callers.shop.budget.per_dy: unknown key; did you mean `per_day`?"),
        (
            CALLER.replace("input_prefixes", "prefixes"),
            "prefixes: unknown key; did you mean `input_prefixes`?",
        ),
        (CALLER + "    x: {}\n", "callers.shop.x: unknown key"),
    ],
)
def test_a_mistake_of_form_is_told_in_words_of_yaml_with_the_nearest_key(
    tmp_path: Path, text: str, problem: str
) -> None:
    """And not in those of Python."""
    assert problem in problems(tmp_path, text)


def test_a_missing_policy_file_is_rejected(tmp_path: Path) -> None:
    """With the operating system's reason."""
    with pytest.raises(PolicyError, match="No such file"):
        load_policy(tmp_path / "policy.yaml", SURROUNDINGS)


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ("[in/]", "[in]", "callers.shop.buckets.0.input_prefixes.0"),
        (
            "[in/]}",
            f"[in/], outputs: [{{bucket: {BUCKET}, prefixes: [/p]}}]}}",
            "callers.shop.buckets.0.outputs.0.prefixes.0",
        ),
        (f'{{token: "{HASH}"}}', "{}", "callers.shop.identities.0"),
    ],
)
def test_a_wrong_item_of_a_list_is_one_mistake(tmp_path: Path, old: str, new: str, path: str) -> None:
    """Not also a list without items."""
    (mistake,) = problems(tmp_path, CALLER.replace(old, new)).split("\n")
    assert mistake.startswith(f"{path}: ")


@pytest.mark.parametrize("rule", ["force", "default"])
def test_an_unknown_option_is_answered_with_the_names_that_policies_use(tmp_path: Path, rule: str) -> None:
    """As the contract and the documents spell them."""
    more = f"methods: [GetPreviewJob]\n    options: {{{rule}: {{image_parms: x}}}}"
    found = problems(tmp_path, CALLER.replace("methods: [GetPreviewJob]", more))
    assert f"callers.shop.options.{rule}: unknown option image_parms; PreviewOptions has source_format, " in found
    assert "image_params" in found
    assert "imageParams" not in found


@pytest.mark.parametrize(
    "change",
    [
        ("version: 1", "version: true"),
        ("quality: 50", "quality: true"),
        ("concurrency: 5", "concurrency: true"),
        ("per_second: 20", "per_second: true"),
        ("weight: 2", "weight: false"),
    ],
)
def test_true_and_false_are_no_numbers(tmp_path: Path, change: tuple[str, str]) -> None:
    """Python takes them for 1 and 0."""
    text = f"""
version: 1
callers:
  one:
    identities: [{{token: "{tokens.new(secrets.token_bytes)[1]}"}}]
    methods: ["*"]
    options: {{at_most: {{quality: 50}}}}
    concurrency: 5
    rate: {{per_second: 20}}
    weight: 2
    shadow: true
"""
    path = tmp_path / "policy.yaml"
    surroundings = Surroundings(frozenset(), frozenset(), client_certificates=False)
    path.write_text(text)
    load_policy(path, surroundings)
    path.write_text(text.replace(*change))
    with pytest.raises(PolicyError) as caught:
        load_policy(path, surroundings)
    assert len(caught.value.problems) == 1


SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def with_webhook(folder: Path, url: str = "https://orders.example.com/hook", secret: str = SECRET) -> str:
    """A policy whose caller may name the target `orders`."""
    (folder / "orders.secret").write_text(secret)
    target = f"webhooks: {{orders: {{url: '{url}', secret_file: {folder / 'orders.secret'}}}}}"
    return f"{CALLER}    webhooks: [orders]\n{target}\n"


def test_a_caller_may_name_the_webhooks_that_its_entry_names(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(with_webhook(tmp_path))
    found = load_policy(path, SURROUNDINGS)
    (shop,) = found.callers.values()
    assert shop.rights is not None
    assert shop.rights.of_webhook("orders").allowed
    assert not shop.rights.of_webhook("mail").allowed
    assert found.webhooks["orders"].url == "https://orders.example.com/hook"


@pytest.mark.parametrize(
    "url",
    [
        "http://orders.example.com/",
        "https://user:password@orders.example.com/",
        "https://orders.example.com/#here",
        "ftp://orders.example.com/",
        "orders.example.com",
        "https://",
        "https://orders.example.com:99999/",
        f"https://{'x' * 64}.example.com/",
        "https://[::1/",
        "https://orders.example.com/a b",
        "https://orders.example.com/\u00fc",
    ],
)
def test_an_address_that_is_unsafe_or_none_is_a_mistake(tmp_path: Path, url: str) -> None:
    found = problems(tmp_path, with_webhook(tmp_path, url))
    assert "there is no webhook" not in found
    assert found.startswith("webhooks.orders.url: must ")
    assert "password" not in found


def test_a_policy_is_loaded_while_the_secret_of_a_webhook_is_missing(tmp_path: Path) -> None:
    """A revoked caller must not be admitted because somebody else's file is late."""
    path = tmp_path / "policy.yaml"
    path.write_text(with_webhook(tmp_path))
    (tmp_path / "orders.secret").unlink()
    assert list(load_policy(path, SURROUNDINGS).webhooks) == ["orders"]


def test_a_webhook_that_the_file_does_not_have_is_a_mistake(tmp_path: Path) -> None:
    assert "callers.shop.webhooks: there is no webhook mail" in problems(tmp_path, f"{CALLER}    webhooks: [mail]\n")
