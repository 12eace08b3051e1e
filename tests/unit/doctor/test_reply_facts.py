"""What a report says of a reply: its form and the vendor's words, and nothing of the user."""

from __future__ import annotations

import json

from docpreview_gateway.doctor.reply_facts import creation_offset, facts_of
from docpreview_gateway.upstream.wire.http import HttpReply

SECRET = "examplebucket-1250000000"
NOW = 1_700_000_000.0
JOB = f"""<Response><JobsDetail><Code>Success</Code><JobId>{SECRET}</JobId><State>Running</State>
<CreationTime>2026-11-29T10:00:00+0800</CreationTime><QueueId>{SECRET}</QueueId>
<Input><Object>{SECRET}</Object></Input><Operation><UserData>{SECRET}</UserData></Operation></JobsDetail>
<NextToken>{SECRET}</NextToken></Response>""".encode()


def reply(body: bytes, **headers: str) -> HttpReply:
    return HttpReply(200, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def test_form_and_the_vendors_words_of_a_reply_are_told() -> None:
    facts = facts_of(reply(JOB, date="Tue, 14 Nov 2023 22:13:25 GMT", x_ci_request_id=SECRET), NOW)
    assert (facts["status"], facts["from_ci"], facts["xml"]) == (200, True, True)
    assert facts["date_minus_local_seconds"] == 5.0
    assert facts["words"] == {"Code": ["Success"], "State": ["Running"]}
    assert "/Response/JobsDetail/Operation/UserData" in facts["elements"]
    assert "/Response/NextToken" in facts["elements"]


def test_no_text_of_the_user_is_told_wherever_it_stands() -> None:
    """Ids, keys, names and user data; nor values of headers."""
    odd = JOB.replace(b"<Code>Success</Code>", f"<Code>{SECRET} is not there</Code>".encode())
    for answer in (
        *(reply(body, x_ci_request_id=SECRET, location=f"https://{SECRET}/") for body in (JOB, odd, b"")),
        *(reply(body, server="nginx") for body in (f"<{SECRET}/>".encode(), SECRET.encode())),
    ):
        assert "1250000000" not in json.dumps(facts_of(answer, NOW))


def test_a_reply_without_date_or_xml_is_told_as_that() -> None:
    facts = facts_of(reply(b"<html>"), NOW)
    assert (facts["date_minus_local_seconds"], facts["xml"], facts["from_ci"]) == (None, False, False)


def test_the_offset_of_the_clouds_times_is_read_from_a_job() -> None:
    assert creation_offset(reply(JOB)) == "+0800"
    assert creation_offset(reply(JOB.replace(b"+0800", b"Z"))) == "Z"
    assert creation_offset(reply(b"<Response/>")) is None
    assert creation_offset(reply(b"")) is None
