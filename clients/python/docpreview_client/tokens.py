"""The bearer token of a call."""

import inspect
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import grpc

from docpreview_client.errors import Unauthenticated

TokenSource: TypeAlias = Callable[[], str | Awaitable[str]]
Token: TypeAlias = str | TokenSource | None


def checked(token: object) -> str:
    """The token, if it can be sent.

    Raises:
        ValueError: It is not one line of visible ASCII characters. The text does not show it.
    """
    if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token or " " in token:
        raise ValueError("A token is one line of visible ASCII characters without spaces.")
    return token


async def asked(source: TokenSource) -> str:
    """The token that the source gives now.

    Raises:
        Unauthenticated: The source failed; the error's cause is what it raised.
    """
    try:
        token = source()
        return checked(await token if inspect.isawaitable(token) else token)
    except Exception as error:
        raise Unauthenticated(
            f"The token source failed: {type(error).__name__}.", code=grpc.StatusCode.UNAUTHENTICATED
        ) from error
