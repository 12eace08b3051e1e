"""Keys of creates: record keys, markers and their checks, digests of requests, MACs."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewOptions, Watermark
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.creates.keys import (
    BODY_BYTES,
    MAC_BYTES,
    NONCE_BYTES,
    CreateKeys,
    new_nonce,
    of_marker,
    random_key,
    same_body,
)
from docpreview_gateway.upstream.wire.user_data import (
    KEY_LENGTH,
    TOKEN_PLACEHOLDER,
    Marker,
    marked,
    read_marker,
    split_user_data,
)

OLD, NEW, OTHER = (bytes([number]) * 32 for number in range(3))
KEYS = CreateKeys("production", [NEW])
ROTATED = CreateKeys("production", [NEW, OLD])
BEFORE = CreateKeys("production", [OLD])
BUCKET = "docs-1250000000"
BASE32 = st.text("abcdefghijklmnopqrstuvwxyz234567", min_size=1, max_size=1)
TEXTS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=960)
"""What `model/validation.py` accepts as user data."""


def a_request(**fields: Any) -> CreatePreviewJobRequest:
    return CreatePreviewJobRequest(**{"bucket": BUCKET, "input_object": "a.docx", **fields})


def a_marker(keys: CreateKeys = KEYS) -> Marker:
    return keys.marker(random_key(), bytes(range(16)), "caller", new_nonce())


@given(text=TEXTS, nonce=st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES))
def test_any_text_of_a_caller_comes_back_with_the_marker_that_was_sent(text: str, nonce: bytes) -> None:
    """The text alone is the caller's again, character by character; all of it fits into the vendor's 1,024."""
    marker = KEYS.marker(KEYS.record_keys("a", BUCKET, "r")[0], bytes(16), "a", nonce)
    sent = marked(a_request(user_data=text), marker, "token").user_data
    assert len(sent) <= 1024
    back, found = split_user_data(sent)
    assert back == text
    assert read_marker(found) == marker
    assert KEYS.is_ours(marker)


def test_the_longest_text_fits_with_its_marker() -> None:
    assert len(marked(a_request(user_data="a" * 960), a_marker(), "token").user_data) == 960 + 58


@given(text=TEXTS)
def test_a_text_of_a_caller_is_no_marker_of_ours(text: str) -> None:
    """Whatever stands at its end."""
    found = read_marker(split_user_data(text)[1])
    assert found is None or not KEYS.is_ours(found)


def test_a_marker_in_the_caller_s_text_stays_the_caller_s() -> None:
    """A text that ends with the marker of another job is followed by the right one."""
    other, own = a_marker(), a_marker()
    sent = marked(a_request(user_data=f"text {other}"), own, "token").user_data
    assert split_user_data(sent) == (f"text {other}", str(own))


@given(position=st.integers(0, 56 - len("dg2-")), letter=BASE32)
def test_a_marker_with_one_other_character_is_forged(position: int, letter: str) -> None:
    """In its key, body, caller, nonce or check."""
    whole = str(a_marker()).removeprefix("dg2-")
    changed = read_marker("dg2-" + whole[:position] + letter + whole[position + 1 :])
    assert changed is not None
    assert KEYS.is_ours(changed) == (letter == whole[position])


def test_a_marker_of_parts_of_two_is_forged() -> None:
    one, other = a_marker(), a_marker()
    for field in ("key", "nonce", "check"):
        assert not KEYS.is_ours(one._replace(**{field: getattr(other, field)}))


def test_markers_of_other_deployments_are_not_ours() -> None:
    """Of another secret, and of another namespace with the same one."""
    assert not KEYS.is_ours(a_marker(CreateKeys("production", [OTHER])))
    assert not KEYS.is_ours(a_marker(CreateKeys("staging", [NEW])))


def test_markers_of_a_replaced_secret_are_ours_while_it_is_configured() -> None:
    """New ones are made with the current secret alone."""
    assert ROTATED.is_ours(a_marker(BEFORE))
    assert not KEYS.is_ours(a_marker(BEFORE))
    assert KEYS.is_ours(a_marker(ROTATED))
    assert not BEFORE.is_ours(a_marker(ROTATED))


def test_no_two_attempts_have_the_same_marker() -> None:
    key = random_key()
    assert len({KEYS.marker(key, bytes(16), "a", new_nonce()) for _ in range(100)}) == 100


def test_the_token_of_a_path_is_the_same_for_all_attempts() -> None:
    """It is of the key and of the secret, and is put wherever the placeholder stands."""
    key = random_key()
    token = KEYS.path_token(key)
    assert token == ROTATED.path_token(key)
    assert len({token, KEYS.path_token(random_key()), BEFORE.path_token(key)}) == 3
    template = a_request(output=ObjectLocation(object=f"out/{TOKEN_PLACEHOLDER}/${{Number}}"))
    assert marked(template, a_marker(), token).output.object == f"out/{token}/${{Number}}"


@given(st.lists(st.tuples(st.text("ab:|", max_size=3), st.text("ab-", max_size=3), st.text("ab:", max_size=3))))
def test_record_keys_differ_when_caller_bucket_or_id_differ(scopes: list[tuple[str, str, str]]) -> None:
    keys = [KEYS.record_keys(*scope)[0] for scope in scopes]
    assert len(set(keys)) == len(set(scopes))
    assert all(len(key) == KEY_LENGTH for key in keys)


def test_a_record_key_takes_no_notice_of_the_case_of_the_id() -> None:
    """A UUID is the same in capitals."""
    assert KEYS.record_keys("a", BUCKET, "AB-12") == KEYS.record_keys("a", BUCKET, "ab-12")


def test_record_keys_under_all_secrets_begin_with_the_current_one() -> None:
    (old,), (new,) = (keys.record_keys("a", BUCKET, "r") for keys in (BEFORE, KEYS))
    assert ROTATED.record_keys("a", BUCKET, "r") == [new, old]
    assert ROTATED.id == KEYS.id != BEFORE.id


def test_random_keys_look_like_others_and_do_not_repeat() -> None:
    keys = {random_key() for _ in range(100)}
    assert len(keys) == 100
    assert {len(key) for key in keys} == {KEY_LENGTH}


EQUAL = [
    (a_request(), a_request(request_id="9b2c")),
    (a_request(), a_request(options=PreviewOptions())),
    (a_request(output={"object": "o"}), a_request(output={"object": "o", "bucket": BUCKET})),
    (a_request(output={"object": "o"}), a_request(output={"object": "o"}, options={})),
]
"""Pairs of requests that ask for the same."""

DIFFERENT = [
    a_request(),
    a_request(bucket="other-1250000000"),
    a_request(input_object="b.docx"),
    a_request(user_data="x"),
    a_request(queue_id="q"),
    a_request(preset="p"),
    a_request(output={"object": "o"}),
    a_request(output={"object": "o", "bucket": "other-1250000000"}),
    a_request(options={"page_ranges": "1-2"}),
    a_request(options={"sheet_id": 0}),
    a_request(options={"password": "secret"}),
    a_request(options={"password": "other secret"}),
    a_request(options={"single_image": True}),
]
"""Requests no two of which ask for the same."""


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_requests_that_ask_for_the_same_have_one_digest(
    one: CreatePreviewJobRequest, other: CreatePreviewJobRequest
) -> None:
    assert KEYS.body(one) == KEYS.body(other)
    assert len(KEYS.body(one)) == BODY_BYTES


def test_requests_that_ask_for_something_else_have_other_digests() -> None:
    """The password of the document too."""
    for one, other in combinations(DIFFERENT, 2):
        assert KEYS.body(one) != KEYS.body(other)


@given(number=st.integers(1000, 2000), value=st.integers(0, 2**32))
def test_fields_of_newer_versions_do_not_change_the_digest(number: int, value: int) -> None:
    """In the request and in its options: this version does not know them, and does not ask for what they say."""
    unknown = _varint(number << 3) + _varint(value)
    known = a_request(options={"page_ranges": "1-2"})
    newer = CreatePreviewJobRequest.FromString(known.SerializeToString() + unknown)
    newer.options.MergeFromString(unknown)
    assert newer.SerializeToString() != known.SerializeToString()
    assert KEYS.body(newer) == KEYS.body(known)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def test_a_digest_leaves_the_request_as_it_is() -> None:
    request = a_request(request_id="r", output={"object": "o", "bucket": BUCKET}, options={"password": "secret"})
    before = request.SerializeToString(deterministic=True)
    KEYS.body(request)
    assert request.SerializeToString(deterministic=True) == before


def test_digests_are_those_of_the_secret_that_made_them() -> None:
    """Who has not got the secret cannot try passwords; a repeat is compared under the record's own secret."""
    request = a_request()
    assert BEFORE.body(request) != KEYS.body(request)
    assert ROTATED.body(request, BEFORE.id) == BEFORE.body(request)
    with pytest.raises(KeyError):
        KEYS.body(request, BEFORE.id)


@given(one=st.binary(min_size=BODY_BYTES, max_size=BODY_BYTES), other=st.binary(min_size=16, max_size=16))
def test_a_digest_of_a_marker_is_equal_to_the_whole_one_only(one: bytes, other: bytes) -> None:
    """A record that was rebuilt from a list knows the first 12 characters."""
    marker = KEYS.marker(random_key(), one, "a", new_nonce())
    assert same_body(of_marker(marker), one)
    assert same_body(one, one)
    assert same_body(of_marker(marker), other) == same_body(one, other) == (one == other)


def test_macs_are_of_the_secret_and_of_all_bytes() -> None:
    mac = KEYS.mac(b"text", KEYS.id)
    assert len(mac) == MAC_BYTES
    assert mac == ROTATED.mac(b"text", KEYS.id)
    assert len({mac, KEYS.mac(b"Text", KEYS.id), ROTATED.mac(b"text", BEFORE.id)}) == 3
    with pytest.raises(KeyError):
        KEYS.mac(b"text", BEFORE.id)


def test_what_is_derived_for_one_purpose_is_of_no_use_for_another() -> None:
    """The place and the content of one text differ, as do the tags of callers."""
    assert len({KEYS.place("x"), KEYS.render(b"x"), KEYS.record_keys("x", "", "")[0]}) == 3
    assert len({KEYS.caller_tag(name) for name in ("a", "b", "c")}) == 3
    assert KEYS.caller_tag("a") == a_marker_of("a").caller


def a_marker_of(caller: str) -> Marker:
    return KEYS.marker(random_key(), bytes(16), caller, new_nonce())


@pytest.mark.parametrize("secret", [b"", b"x" * 31])
def test_a_short_secret_is_refused(secret: bytes) -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        CreateKeys("production", [NEW, secret])


def test_a_secret_that_was_wrapped_is_read_with_any_secret_of_its_deployment_only() -> None:
    """What stands in the store tells nothing without them, and is not taken when it was changed."""
    hidden, old, new = b"h" * 32, b"o" * 32, b"n" * 32
    wrapped = CreateKeys("a", [old]).wrap(hidden)
    assert hidden not in wrapped
    assert wrapped != CreateKeys("a", [old]).wrap(hidden)
    assert CreateKeys("a", [old]).unwrap(wrapped) == hidden
    assert CreateKeys("a", [new, old]).unwrap(wrapped) == hidden
    for others in (CreateKeys("b", [old]), CreateKeys("a", [new])):
        assert others.unwrap(wrapped) is None
    for at in (0, 20, len(wrapped) - 1):
        changed = wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :]
        assert CreateKeys("a", [old]).unwrap(changed) is None


def test_keys_bodies_macs_and_nonces_have_the_bits_that_the_protocol_says() -> None:
    """Collisions would mix up creates; a marker has room for no more."""
    assert (len(new_nonce()), len(KEYS.body(a_request())), len(random_key())) == (8, 16, 24)
    assert len(KEYS.marker(random_key(), bytes(16), "caller", new_nonce()).nonce) == 6
    assert new_nonce() != new_nonce()


def test_places_and_contents_stay_the_same_from_version_to_version() -> None:
    """Else equal creates before and after an upgrade would not find each other."""
    assert (KEYS.place("p"), KEYS.render(b"r")) == ("fdbtbwigigsgo64fe75vbl7s", "jvikca4cyzvjqhc2nzqmlaah")


def test_the_marker_of_a_create_stays_the_same_from_version_to_version() -> None:
    """Jobs that an earlier one has sent are found by theirs."""
    marker = KEYS.marker("k" * 24, bytes(range(16)), "caller", bytes(range(NONCE_BYTES)))
    assert str(marker) == "dg2-kkkkkkkkkkkkkkkkkkkkkkkkaaaqeayeauda5xudsaaaqeacsdzzj"


def test_the_watermark_is_part_of_a_requests_digest() -> None:
    """Its image, its place and its tiles; not how the default bucket is spelled."""

    def digest(bucket: str = "", region: str = "", **fields: Any) -> bytes:
        image = ObjectLocation(bucket=bucket, region=region, object=fields.pop("image", "logo.png"))
        return KEYS.body(a_request(options=PreviewOptions(watermark=Watermark(image=image, **fields))))

    others = [
        KEYS.body(a_request()),
        digest("brand-1250000000"),
        digest(image="b.png"),
        digest(dx=1),
        digest(tiled=True),
    ]
    assert len({digest(), *others}) == len(others) + 1
    assert digest() == digest(BUCKET, "ap-chongqing")
