"""Starts the `docpreview` command."""

import os
import sys
from typing import Final

_OF_THE_EXTRA: Final = {"rich", "typer"}
_MISSING: Final = 2


def main() -> None:
    """Runs the command and ends the process with its exit code."""
    # gRPC's own log lines would stand between those of the command.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        from docpreview_client.cli.app import app  # noqa: PLC0415 - after gRPC's environment is set
        from docpreview_client.cli.exit_codes import ExitCode  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in _OF_THE_EXTRA:
            raise
        sys.stderr.write(
            f"Error: the command needs {error.name}, which the client alone does not: "
            'pip install "docpreview-client[cli]", or from a checkout pip install ./protos "./clients/python[cli]"\n'
        )
        sys.exit(_MISSING)

    try:
        app()
    except Exception as error:  # noqa: BLE001 - the last resort, with the exit code for it
        sys.stderr.write(f"Error: {type(error).__name__}: {error}\n")
        sys.exit(ExitCode.INTERNAL)


if __name__ == "__main__":
    main()
