"""The receivers of docs/webhooks.md, in three languages, with requests that the gateway's own code has signed."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from docpreview_gateway.model.webhooks import parse_secrets, signature_headers
from tests.documents.blocks import Block, run_by
from tests.packaging.project import run
from tests.programs import need

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HERE = "tests/documents/test_webhook_receivers.py"
RECEIVERS = f"{HERE}::test_a_receiver_of_the_document_takes_what_is_signed_and_nothing_else"
REQUEST = f"{HERE}::test_the_request_of_the_document_has_the_signature_of_its_secret"
SECRET, OTHER = (f"whsec_{base64.b64encode(bytes([each]) * 32).decode()}" for each in (1, 2))
BODY = b'{"specversion":"1.0","id":"evt_1","type":"dev.docpreview.job.ended.v1","subject":"d1","data":{"n":"\xc3\xbc"}}'
JS = """
import { readFileSync } from "node:fs";
import { eventOf } from "./receiver.mjs";
for (const { headers, body, secret } of JSON.parse(readFileSync(0))) {
  try { console.log(eventOf(headers, Buffer.from(body, "base64"), secret).id); } catch (error) { console.log("no"); }
}
"""
GO = """package receiver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"testing"
)

func TestReceiver(t *testing.T) {
	var requests []struct {
		Headers map[string]string
		Body    []byte
		Secret  string
	}
	given, _ := os.ReadFile("requests.json")
	if err := json.Unmarshal(given, &requests); err != nil {
		t.Fatal(err)
	}
	for _, each := range requests {
		request, _ := http.NewRequest("POST", "/", bytes.NewReader(each.Body))
		for name, value := range each.Headers {
			request.Header.Set(name, value)
		}
		if event, err := EventOf(request, each.Secret); err == nil {
			fmt.Println("answer", event.ID)
		} else {
			fmt.Println("answer no")
		}
	}
}
"""


def requests() -> list[tuple[dict[str, str], bytes, str]]:
    """Headers, body and the receiver's secret: three requests to take, then some to refuse."""
    now = int(time.time())  # noqa: TID251 - receivers have clocks of their own

    def headers(at: int, *names: str, **changes: str) -> dict[str, str]:
        signed = signature_headers("evt_1", at, BODY, parse_secrets("\n".join(names)))
        return signed | {name.replace("_", "-"): value for name, value in changes.items()}

    good = headers(now, SECRET)
    return [
        (good, BODY, SECRET),
        (headers(now, SECRET, OTHER), BODY, OTHER),
        (headers(now - 240, OTHER, SECRET), BODY, OTHER),
        (good, BODY, OTHER),
        (good, BODY + b" ", SECRET),
        (headers(now - 400, SECRET), BODY, SECRET),
        (headers(now + 400, SECRET), BODY, SECRET),
        (headers(now, SECRET, webhook_id="evt_2"), BODY, SECRET),
        (headers(now, SECRET, webhook_timestamp=str(now - 1)), BODY, SECRET),
        (headers(now, SECRET, webhook_timestamp="soon"), BODY, SECRET),
        (headers(now, SECRET, webhook_signature=""), BODY, SECRET),
        ({}, BODY, SECRET),
    ]


def in_python(block: Block, _folder: Path, given: str) -> list[str]:
    names: dict[str, Any] = {}
    exec(block.text, names)  # noqa: S102 - a program of our documents
    answers = []
    for each in json.loads(given):
        try:
            answers.append(names["event_of"](each["headers"], base64.b64decode(each["body"]), each["secret"])["id"])
        except PermissionError:
            answers.append("no")
    return answers


def in_js(block: Block, folder: Path, given: str) -> list[str]:
    (folder / "receiver.mjs").write_text(block.text)
    (folder / "main.mjs").write_text(JS)
    done = run(need("node"), "main.mjs", cwd=folder, input=given)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def in_go(block: Block, folder: Path, given: str) -> list[str]:
    (folder / "receiver.go").write_text(block.text)
    (folder / "receiver_test.go").write_text(GO)
    (folder / "go.mod").write_text("module receiver\n\ngo 1.21\n")
    (folder / "requests.json").write_text(given)
    done = run(need("go"), "test", "-count=1", "-v", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.removeprefix("answer ") for line in done.stdout.splitlines() if line.startswith("answer ")]


@pytest.mark.parametrize(("language", "answers"), [("python", in_python), ("js", in_js), ("go", in_go)])
def test_a_receiver_of_the_document_takes_what_is_signed_and_nothing_else(
    language: str, answers: Callable[[Block, Path, str], list[str]], tmp_path: Path
) -> None:
    """With one of two signatures too; not what is altered, old, or of another secret."""
    (block,) = [each for each in run_by(RECEIVERS) if each.language == language]
    given = [
        {"headers": headers, "body": base64.b64encode(body).decode(), "secret": secret}
        for headers, body, secret in requests()
    ]
    found = answers(block, tmp_path, json.dumps(given))
    assert found == ["evt_1"] * 3 + ["no"] * (len(given) - 3)


def test_the_request_of_the_document_has_the_signature_of_its_secret() -> None:
    """So that readers can try their verification with it."""
    (block,) = run_by(REQUEST)
    head, _, body = block.text.rstrip("\n").partition("\n\n")
    _, *lines = head.splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    secret = "whsec_ZXhhbXBsZS1zZWNyZXQtb2YtdGhlLWRvY3VtZW50cyE="
    signed = signature_headers(
        headers["webhook-id"], int(headers["webhook-timestamp"]), body.encode(), parse_secrets(secret)
    )
    assert headers == {"content-type": "application/cloudevents+json; charset=utf-8", **signed}
    assert json.loads(body)["id"] == headers["webhook-id"]
