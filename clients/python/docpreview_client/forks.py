"""Refusal to use gRPC in a process that was forked while a client was open: its threads and locks are not there.

Such a child would wait for ever. One that was forked before a client was used, or after all were closed, is sound.
"""

import os

_open_here = 0
_forked_with = 0


def opened() -> None:
    """Records that a client was opened.

    Raises:
        RuntimeError: This process was forked while a client was open.
    """
    global _open_here  # noqa: PLW0603 - a fork is an event of the process
    refuse_in_child()
    _open_here += 1


def closed() -> None:
    """Records that a client was closed."""
    global _open_here  # noqa: PLW0603 - as above
    _open_here -= 1


def refuse_in_child() -> None:
    """Raises RuntimeError in a process that was forked while a client was open."""
    if _forked_with:
        raise RuntimeError(
            "This process was forked while a client of its parent was in use. gRPC does not survive that, so a new "
            "client does not work here either. Close every client before the fork, or make the first call only in "
            "the workers (Celery: worker_process_init, gunicorn: post_fork): a client connects with its first call."
        )


def _in_child() -> None:
    global _open_here, _forked_with
    _forked_with, _open_here = _forked_with or _open_here, 0


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_in_child)
