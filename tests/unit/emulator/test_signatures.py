"""Who may call: the vendor's vectors, and every way for a signature to be wrong."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from docpreview_emulator import Credential, Emulator
from docpreview_emulator.errors import CloudError
from docpreview_emulator.signatures import Policy, Signable, verify

from .cloud_client import BUCKET, CI_HOST, COS_HOST, REGION, SECRET_ID, SECRET_KEY, Cloud, Signer

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "signing.json").read_text(encoding="utf-8"))["cases"]
TOKEN_HEADERS = ("x-ci-security-token", "x-cos-security-token")


def check(case: Mapping[str, Any], *, now: float = 1700000000, **changes: Any) -> Credential:
    """Verify a vector, perhaps changed."""
    case = {**case, **changes}
    headers = list(case["headers"].items())
    params = list(case["params"].items())
    token = next((value for name, value in headers if name in TOKEN_HEADERS), None)
    credentials = {case["secret_id"]: Credential(case["secret_id"], case["secret_key"], token)}
    signed = Signable(case["method"], case["path"], params, headers, case["authorization"])
    return verify(signed, Policy(credentials, now, 900, TOKEN_HEADERS))


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
class TestVendorVector:
    def test_a_signature_of_the_vendors_sdk_is_accepted(self, case: Mapping[str, Any]) -> None:
        assert check(case).secret_id == case["secret_id"]

    def test_a_signature_of_another_path_does_not_match(self, case: Mapping[str, Any]) -> None:
        with pytest.raises(CloudError, match="SignatureDoesNotMatch"):
            check(case, path=case["path"] + "x")

    def test_a_signature_of_another_secret_key_does_not_match(self, case: Mapping[str, Any]) -> None:
        with pytest.raises(CloudError, match="SignatureDoesNotMatch"):
            check(case, secret_key="another")

    def test_a_signature_without_a_header_that_it_lists_does_not_match(self, case: Mapping[str, Any]) -> None:
        headers = {name: value for name, value in case["headers"].items() if name != "host"}
        with pytest.raises(CloudError, match="SignatureDoesNotMatch"):
            check(case, headers=headers)

    def test_a_signature_does_not_cover_an_unlisted_header(self, case: Mapping[str, Any]) -> None:
        check(case, headers={**case["headers"], "x-anything": "1"})

    def test_a_signature_of_the_bare_host_name_is_accepted_with_a_port(self, case: Mapping[str, Any]) -> None:
        """The vendor's SDK signs the bare host name; HTTP adds the port."""
        check(case, headers={**case["headers"], "host": case["headers"]["host"] + ":8089"})

    def test_a_signature_expires_at_the_end_of_its_window_to_the_second(self, case: Mapping[str, Any]) -> None:
        check(case, now=case["valid_until"])
        with pytest.raises(CloudError, match="Request has expired"):
            check(case, now=case["valid_until"] + 1)

    def test_a_signature_from_far_ahead_of_the_cloud_is_too_skewed(self, case: Mapping[str, Any]) -> None:
        """A client whose clock is far ahead is told so."""
        with pytest.raises(CloudError, match="RequestTimeTooSkewed"):
            check(case, now=case["valid_from"] - 901)


async def test_an_unsigned_request_is_403_and_names_no_resource_on_a_ci_host(cloud: Cloud) -> None:
    reply = await cloud.raw("GET", "/doc_jobs", headers={"host": f"{BUCKET}.ci.{REGION}.myqcloud.com"})
    assert (reply.status, reply.text("Code")) == (403, "MissingAuthorization")
    assert reply.xml.find("Resource") is None


async def test_a_refusal_on_an_object_host_names_the_resource(cloud: Cloud) -> None:
    reply = await cloud.send("GET", "/missing.jpg", host=COS_HOST)
    assert (reply.status, reply.text("Code")) == (404, "NoSuchKey")
    assert reply.text("Resource") == f"{COS_HOST}/missing.jpg"


async def test_half_a_signature_is_an_invalid_authorization(cloud: Cloud) -> None:
    headers = {"host": COS_HOST, "Authorization": "q-sign-algorithm=sha1&q-ak=x"}
    reply = await cloud.raw("GET", "/x", headers=headers)
    assert reply.text("Code") == "InvalidAuthorization"


@pytest.mark.parametrize("window", ["1;" + "9" * 5000, "NaN;NaN", "1;1e18", "-1;5", "1;", "٣;٤"])
async def test_a_window_that_is_no_time_is_an_invalid_authorization(cloud: Cloud, window: str) -> None:
    fields = {**Signer().sign("GET", "/docqueue", {}, {"host": CI_HOST}), "q-sign-time": window}
    headers = {"host": CI_HOST, "Authorization": "&".join(f"{name}={value}" for name, value in fields.items())}
    reply = await cloud.raw("GET", "/docqueue", headers=headers)
    assert (reply.status, reply.text("Code")) == (403, "InvalidAuthorization")


async def test_an_unknown_key_is_an_invalid_access_key_id(cloud: Cloud) -> None:
    cloud.signer = Signer(secret_id="nobody")
    assert (await cloud.list()).text("Code") == "InvalidAccessKeyId"


async def test_with_the_cloud_an_hour_ahead_a_signature_is_expired(emulator: Emulator, cloud: Cloud) -> None:
    """Until the client signs by the cloud's clock."""
    emulator.clock.offset_seconds = 3600
    reply = await cloud.list()
    assert (reply.status, reply.text("Code"), reply.text("Message")) == (403, "AccessDenied", "Request has expired")
    cloud.signer.ahead = 3600
    assert (await cloud.list()).status == 200


async def test_with_the_cloud_an_hour_behind_a_signature_is_too_skewed(emulator: Emulator, cloud: Cloud) -> None:
    emulator.clock.offset_seconds = -3600
    assert (await cloud.list()).text("Code") == "RequestTimeTooSkewed"


async def test_a_temporary_key_needs_its_token_until_it_expires(emulator: Emulator, cloud: Cloud) -> None:
    """Signed or not."""
    emulator.credentials["temporary"] = Credential("temporary", SECRET_KEY, "TOKEN+/=abc")
    cloud.signer = Signer(secret_id="temporary")
    token = {"x-ci-security-token": "TOKEN+/=abc"}
    assert (await cloud.list()).text("Code") == "InvalidAccessKeyId"
    assert (await cloud.send("GET", "/docqueue", headers=token)).status == 200
    assert (await cloud.send("GET", "/x", host=COS_HOST, headers=token)).text("Code") == "InvalidAccessKeyId"
    emulator.credentials["temporary"] = Credential("temporary", SECRET_KEY, "TOKEN+/=abc", expires_at=1.0)
    reply = await cloud.send("GET", "/docqueue", headers=token)
    assert (reply.status, reply.text("Code")) == (400, "ExpiredToken")


async def test_a_presigned_address_serves_a_page_to_a_browser_and_a_forged_one_none(
    emulator: Emulator, cloud: Cloud
) -> None:
    """The path form, whose host is a part of the path."""
    emulator.put_object(BUCKET, REGION, "a b/中.jpg", b"page")
    query = Signer().sign("GET", "/a b/中.jpg", {}, {"host": COS_HOST})
    reply = await cloud.raw("GET", f"/_emulator/objects/{COS_HOST}/a b/中.jpg", params=query)
    assert (reply.status, reply.body) == (200, b"page")
    query["q-ak"] = SECRET_ID[::-1]
    reply = await cloud.raw("GET", f"/_emulator/objects/{COS_HOST}/a b/中.jpg", params=query)
    assert reply.status == 403


async def test_a_presigned_address_may_have_its_token_in_the_query(emulator: Emulator, cloud: Cloud) -> None:
    emulator.credentials["temporary"] = Credential("temporary", SECRET_KEY, "TOKEN+/=abc")
    emulator.put_object(BUCKET, REGION, "p.jpg", b"page")
    token = {"x-cos-security-token": "TOKEN+/=abc"}
    query = Signer(secret_id="temporary").sign("GET", "/p.jpg", token, {"host": COS_HOST})
    reply = await cloud.raw("GET", "/p.jpg", params={**query, **token}, headers={"host": COS_HOST})
    assert (reply.status, reply.body) == (200, b"page")


@pytest.mark.parametrize("form", ["host", "path"])
async def test_an_address_signed_in_one_parameter_serves_its_page_and_no_other(
    emulator: Emulator, cloud: Cloud, form: str
) -> None:
    """The SDKs for Java and PHP put the whole authorization into `sign`, the one of Java with an empty version."""
    emulator.put_object(BUCKET, REGION, "p.jpg", b"page")
    emulator.put_object(BUCKET, REGION, "other.jpg", b"other")
    signed = Signer().sign("GET", "/p.jpg", {}, {"host": COS_HOST})
    params = {"versionId": "", "sign": "&".join(f"{name}={value}" for name, value in signed.items())}
    before, headers = (f"/_emulator/objects/{COS_HOST}", {}) if form == "path" else ("", {"host": COS_HOST})
    reply = await cloud.raw("GET", f"{before}/p.jpg", params=params, headers=headers)
    assert (reply.status, reply.body) == (200, b"page")
    other = await cloud.raw("GET", f"{before}/other.jpg", params=params, headers=headers)
    assert (other.status, other.text("Code")) == (403, "SignatureDoesNotMatch")
    cut = await cloud.raw("GET", f"{before}/p.jpg", params={"sign": "q-ak=x"}, headers=headers)
    assert cut.text("Code") == "InvalidAuthorization"


async def test_a_signature_in_one_parameter_is_recorded_nowhere(emulator: Emulator, cloud: Cloud) -> None:
    signed = Signer().sign("GET", "/p.jpg", {}, {"host": COS_HOST})
    sign = "&".join(f"{name}={value}" for name, value in signed.items())
    await cloud.raw("GET", "/p.jpg", params={"a": "1", "sign": sign, "design": "2"}, headers={"host": COS_HOST})
    assert emulator.requests[-1].query == "a=1&sign=***&design=2"
