"""Why there is no connection, in words that name no address."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

import pytest

from docpreview_gateway.upstream import causes

SEVERAL = "Multiple exceptions: [Errno 101] Connect call failed ('2001:db8::1', 443), [Errno 111] ('192.0.2.1', 443)"


def late(note: str | None) -> TimeoutError:
    """A timeout, as `asyncio.timeout` makes it of the cancellation of a step."""
    error = TimeoutError()
    error.__cause__ = asyncio.CancelledError()
    if note is not None:
        error.__cause__.add_note(note)
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(SEVERAL), "network is unreachable and connection refused"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('192.0.2.1', 443)"), "connection refused"),
        (OSError(errno.EHOSTUNREACH, "('192.0.2.1', 443)"), "no route to host"),
        (OSError(errno.EMFILE, "x"), "too many open files"),
        (TimeoutError(errno.ETIMEDOUT, "('192.0.2.1', 443)"), "connection timed out"),
        (OSError("something with 192.0.2.1"), "it failed"),
        (socket.gaierror(socket.EAI_NONAME, "secret.example"), "name not found"),
        (socket.gaierror(socket.EAI_AGAIN, "secret.example"), "no answer of the name server"),
        (socket.gaierror(socket.EAI_FAIL, "secret.example"), "name cannot be resolved"),
        (ssl.SSLError(1, "[SSL] tlsv1 alert no application protocol (_ssl.c:1006)"),
         "TLS failed: tlsv1 alert no application protocol"),
        (late("no TLS handshake in time"), "no TLS handshake in time"),
        (late(None), "not in time"),
    ],
)  # fmt: skip
def test_each_error_has_words_without_an_address(error: BaseException, words: str) -> None:
    """Those of several addresses of a host are told together."""
    assert causes.of_connecting(error) == words


def test_a_refused_certificate_that_has_no_words_is_told_by_its_number() -> None:
    """OpenSSL's own text may name the host."""
    error = ssl.SSLCertVerificationError(1, "not valid for 'secret.example'")
    error.verify_code = 66
    assert causes.of_connecting(error) == "the certificate is refused (OpenSSL's error 66)"


@pytest.mark.parametrize(
    ("of_parser", "words"),
    [
        ("Duplicate Content-Length", "two lengths"),
        ("Content-Length overflow", "Content-Length overflow"),
        ("Invalid header token", "invalid header token"),
    ],
)
def test_a_broken_rule_of_http_is_named(of_parser: str, words: str) -> None:
    assert causes.not_http(of_parser).message == f"the reply is not HTTP: {words}"
