"""Page tokens: positions in a list, encrypted, and bound to one list, its filters and one caller."""

from __future__ import annotations

import base64
import hmac
import random
import secrets
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import ListPreviewJobsRequest
from docpreview.v1.preview_queue_service_pb2 import ListPreviewQueuesRequest, PreviewQueue
from docpreview_gateway.jobs.page_tokens import MAX_TOKEN, PageTokens
from docpreview_gateway.model.callers import ANONYMOUS, Caller
from docpreview_gateway.model.errors import InvalidRequest, UpstreamError
from docpreview_gateway.upstream.wire.signing import Credentials
from tests.fakes.credentials import SECRET_KEY, FakeCredentials
from tests.unit.conftest import BUCKET

if TYPE_CHECKING:
    from docpreview_gateway.jobs.page_tokens import Listing

SHOP, OTHER = Caller("shop"), Caller("other")
TOKENS = PageTokens(FakeCredentials(), secrets.token_bytes)
POSITION = "1700000000\nd0123456789abcdef0123456789abcdef\n75789"
FIRST = ListPreviewJobsRequest(bucket=BUCKET.name, queue_id="p1", states=[PreviewJob.STATE_FAILED], page_size=10)


def refusal(request: Listing, caller: Caller = SHOP, tokens: PageTokens = TOKENS) -> str:
    with pytest.raises(InvalidRequest) as caught:
        tokens.decode(request, BUCKET, caller)
    [violation] = caught.value.violations
    assert violation.field == "page_token"
    return violation.description


def following(
    request: ListPreviewJobsRequest, position: str = POSITION, caller: Caller = SHOP
) -> ListPreviewJobsRequest:
    """The request of the next page."""
    result = ListPreviewJobsRequest()
    result.CopyFrom(request)
    result.page_token = TOKENS.encode(request, BUCKET, caller, position)
    return result


def with_secret(secret: str, *replaced: str) -> PageTokens:
    """The tokens of a replica with this secret key, and those that it replaced."""
    credentials = FakeCredentials(main=Credentials("id", secret))
    credentials.replaced = replaced
    return PageTokens(credentials, secrets.token_bytes)


def test_the_first_page_needs_no_token_and_the_last_gives_none() -> None:
    """An empty token is the first page; an empty position gives an empty token."""
    assert TOKENS.decode(FIRST, BUCKET, SHOP) == ""
    assert TOKENS.encode(FIRST, BUCKET, SHOP, "") == ""


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=500))
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_any_position_comes_back_from_a_token_within_the_contracts_limit(position: str) -> None:
    """The token needs no escaping. A position that does not fit is an error of the cloud's reply."""
    if len(position.encode()) > 512:
        with pytest.raises(UpstreamError) as caught:
            following(FIRST, position)
        assert caught.value.reason == r.ERROR_REASON_UPSTREAM_BAD_RESPONSE
        return
    request = following(FIRST, position)
    assert TOKENS.decode(request, BUCKET, SHOP) == position
    assert request.page_token.replace("-", "").replace("_", "").isalnum()
    assert len(request.page_token) <= MAX_TOKEN


def test_all_tokens_have_one_length_and_no_two_are_alike() -> None:
    """Neither tells anything about the position."""
    tokens = [TOKENS.encode(FIRST, BUCKET, SHOP, "9" * length) for length in (1, 1, 20, 100, 256)]
    assert {len(token) for token in tokens} == {380}
    assert len(set(tokens)) == len(tokens)


def test_a_token_does_not_contain_its_position() -> None:
    """It is encrypted."""
    raw = base64.urlsafe_b64decode(following(FIRST).page_token)
    assert not any(part.encode() in raw for part in POSITION.split("\n"))


def test_page_size_and_include_pages_may_change_between_pages() -> None:
    """They are not filters: the list is the same."""
    request = following(FIRST)
    request.page_size, request.include_pages = 50, True
    assert TOKENS.decode(request, BUCKET, SHOP) == POSITION


@pytest.mark.parametrize(
    "change",
    [
        ListPreviewJobsRequest(bucket="other-1250000000"),
        ListPreviewJobsRequest(queue_id="p2"),
        ListPreviewJobsRequest(states=[PreviewJob.STATE_SUCCESS]),
        ListPreviewJobsRequest(order=ListPreviewJobsRequest.ORDER_OLDEST_FIRST),
        ListPreviewJobsRequest(created_after=Timestamp(seconds=1)),
        ListPreviewJobsRequest(created_before=Timestamp(seconds=1)),
    ],
    ids=lambda change: change.ListFields()[0][0].name,
)
def test_a_token_with_other_filters_is_rejected(change: ListPreviewJobsRequest) -> None:
    """With other filters the cursor would be a position in another list."""
    request = following(FIRST)
    request.MergeFrom(change)
    assert "same filters" in refusal(request)


def test_a_token_of_the_other_service_is_rejected() -> None:
    """A token of a list of jobs is not valid for a list of queues."""
    jobs, queues = ListPreviewJobsRequest(bucket=BUCKET.name), ListPreviewQueuesRequest(bucket=BUCKET.name)
    queues.page_token = TOKENS.encode(jobs, BUCKET, SHOP, "2:10")
    refusal(queues)
    queues.page_token = TOKENS.encode(queues, BUCKET, SHOP, "2:10")
    assert TOKENS.decode(queues, BUCKET, SHOP) == "2:10"
    queues.state = PreviewQueue.STATE_ACTIVE
    refusal(queues)


def test_a_token_of_another_caller_is_rejected_like_any_other_text() -> None:
    """The error does not reveal that the token is valid for somebody."""
    request = following(FIRST)
    garbage = ListPreviewJobsRequest()
    garbage.CopyFrom(FIRST)
    garbage.page_token = "x"
    errors = {refusal(request, OTHER), refusal(request, ANONYMOUS), refusal(garbage)}
    assert len(errors) == 1


@pytest.mark.parametrize(("one", "other"), [("ab", "a"), ("a", "ab"), ("a\0", "a"), ("", "a")])
def test_no_name_of_a_caller_runs_into_the_filters(one: str, other: str) -> None:
    """Names and filters are told apart whatever they contain."""
    request = following(ListPreviewJobsRequest(bucket=BUCKET.name), caller=Caller(one))
    assert TOKENS.decode(request, BUCKET, Caller(one)) == POSITION
    refusal(request, Caller(other))


def test_a_token_with_any_bit_changed_is_rejected() -> None:
    """Version, nonce, content and tag; and any other spelling of the same bytes."""
    request = following(FIRST)
    raw = bytearray(base64.urlsafe_b64decode(request.page_token))
    for position in range(len(raw)):
        changed = raw.copy()
        changed[position] ^= 1 << (position % 8)
        request.page_token = base64.urlsafe_b64encode(changed).decode()
        refusal(request)


@pytest.mark.parametrize("position", [POSITION, "9" * 300])
def test_a_token_with_any_character_changed_added_or_removed_is_rejected(position: str) -> None:
    """Also where base64 has unused bits."""
    request = following(FIRST, position)
    token = request.page_token
    dice = random.Random(11)  # noqa: S311 - the same in every run
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for place in range(len(token)):
        other = dice.choice(alphabet.replace(token[place], ""))
        for forged in (token[:place] + other + token[place + 1 :], token[:place] + token[place + 1 :]):
            request.page_token = forged
            refusal(request)
    for last in alphabet.replace(token[-1], ""):
        request.page_token = token[:-1] + last
        refusal(request)
    for forged in (token + "A", token + "=", token + "\n", " " + token, token * 2):
        request.page_token = forged
        refusal(request)


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "75789",
        "====",
        "ü",
        "\0",
        "a b",
        "AQ",
        base64.urlsafe_b64encode(b"\x01" + b"d" * 12 + b"75789").decode().rstrip("="),
        base64.urlsafe_b64encode(b"\x02" + b"d" * 28).decode().rstrip("="),
        base64.urlsafe_b64encode(b"\x02" + b"d" * 284).decode(),
        base64.urlsafe_b64encode(bytes(285)).decode(),
    ],
)
def test_a_forged_token_is_rejected(token: str) -> None:
    """Forged, truncated and foreign tokens, and those of earlier versions."""
    refusal(ListPreviewJobsRequest(bucket=BUCKET.name, page_token=token))


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_any_text_that_is_not_a_token_is_rejected(text: str) -> None:
    """Any text raises InvalidRequest and no other exception."""
    refusal(ListPreviewJobsRequest(bucket=BUCKET.name, page_token="x" + text.encode(errors="replace").decode()))


def test_replicas_with_the_same_cloud_key_read_each_others_tokens() -> None:
    """They share nothing else."""
    request = following(FIRST)
    assert PageTokens(FakeCredentials(), secrets.token_bytes).decode(request, BUCKET, SHOP) == POSITION
    refusal(request, tokens=with_secret("EXAMPLEotherKEY000000000000000000"))


def test_a_token_stays_valid_after_a_rotation_of_the_cloud_key() -> None:
    """While the gateway knows the replaced key. New tokens are made with the new one."""
    request = ListPreviewJobsRequest(bucket=BUCKET.name)
    request.page_token = with_secret("old").encode(request, BUCKET, SHOP, POSITION)
    assert with_secret("new", "old").decode(request, BUCKET, SHOP) == POSITION
    assert with_secret("newest", "new", "old").decode(request, BUCKET, SHOP) == POSITION
    refusal(request, tokens=with_secret("new"))
    request.page_token = with_secret("new", "old").encode(request, BUCKET, SHOP, POSITION)
    assert with_secret("new").decode(request, BUCKET, SHOP) == POSITION
    refusal(request, tokens=with_secret("old"))


def test_a_token_is_what_the_named_constructions_give() -> None:
    """AES-256-GCM-SIV under HKDF-SHA256 of the secret key: a change of either would break lists during an update."""
    request = ListPreviewJobsRequest(bucket=BUCKET.name)
    nonce = bytes(range(12))
    extracted = hmac.digest(bytes(32), SECRET_KEY.encode(), "sha256")
    key = hmac.digest(extracted, b"docpreview page tokens v1\x01", "sha256")
    bound = b"\x02docpreview.v1.ListPreviewJobsRequest\x004\x00shop" + request.SerializeToString()
    sealed = AESGCMSIV(key).encrypt(nonce, b"0\n\n75789".ljust(256, b"\0"), bound)
    token = PageTokens(FakeCredentials(), lambda _count: nonce).encode(request, BUCKET, SHOP, "0\n\n75789")
    assert base64.urlsafe_b64decode(token) == b"\x02" + nonce + sealed


@pytest.mark.parametrize("length", [1, 255, 256, 257, 300, 450])
def test_a_position_of_any_length_comes_back(length: int) -> None:
    """Tokens grow by blocks, whose text may need padding that the token leaves out."""
    position = "7" * length
    assert TOKENS.decode(following(FIRST, position), BUCKET, SHOP) == position
