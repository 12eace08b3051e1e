"""The emulator's exceptions.

    EmulatorError
    ├── CloudError         answered over HTTP as the cloud's `Error` document
    ├── JobFailure         the end of one job: `State` Failed with this `Code` and `Message`
    ├── MissingExtraError  the libraries that render are not installed
    ├── StorageError       the disk or the database cannot be written or read
    └── ControlError       a request to `/_emulator/`, or a call of the library, is invalid

Their texts may be shown to clients, so they never contain a password, a key or a signature.
"""


class EmulatorError(Exception):
    """Base class of the emulator's exceptions."""


class CloudError(EmulatorError):
    """An error answer of the cloud: HTTP `status`, error `code` and `message`."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message


class JobFailure(EmulatorError):  # noqa: N818 - the cloud's word; nothing is wrong with the emulator
    """The failure of a job, with the `Code` and `Message` of its state Failed."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class MissingExtraError(EmulatorError):
    """The libraries that render documents are not installed; the message says how to get them."""


class StorageError(EmulatorError):
    """The data directory cannot be used: full disk, corrupt database, or another emulator has it open."""


class ControlError(EmulatorError):
    """An invalid control request; the message lists what is accepted."""


def encrypted(password: str) -> JobFailure:
    """The failure of a document that opens with another password only."""
    why = "DocPassword does not open it" if password else "there is no DocPassword"
    return JobFailure("-3006", f"The document is encrypted and {why}.")


def invalid_argument(message: str) -> CloudError:
    """The cloud's answer to a parameter that it cannot read (HTTP 400)."""
    return CloudError(400, "InvalidArgument", message)
