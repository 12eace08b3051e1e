"""Starts the `docpreview` command."""

import os
import sys


def main() -> None:
    """Runs the command and ends the process with its exit code."""
    # gRPC's own log lines would stand between those of the command.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from docpreview_client.cli.app import app  # noqa: PLC0415 - after gRPC's environment is set
    from docpreview_client.cli.exit_codes import ExitCode  # noqa: PLC0415

    try:
        app()
    except Exception as error:  # noqa: BLE001 - the last resort, with the exit code for it
        sys.stderr.write(f"Error: {type(error).__name__}: {error}\n")
        sys.exit(ExitCode.INTERNAL)


if __name__ == "__main__":
    main()
