"""The emulator's exceptions.

    EmulatorError
    ├── CloudError         answered over HTTP as the cloud's `Error` document
    ├── JobFailure         the end of one job: `State` Failed with this `Code` and `Message`
    ├── StorageError       the disk or the database does not take or give what was asked
    └── ControlError       a request to `/_emulator/`, or a knob of the library, makes no sense

The text of every one of them may be shown to a client, so none of them ever carries a password, a key or a signature.
"""


class EmulatorError(Exception):
    """Base of everything that the emulator raises on purpose."""


class CloudError(EmulatorError):
    """A refusal in the cloud's words: HTTP `status`, error `code` and `message`."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message


class JobFailure(EmulatorError):  # noqa: N818 - the cloud's word; nothing is wrong with the emulator
    """A job ends as Failed, with the `Code` and `Message` that its owner will read."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class StorageError(EmulatorError):
    """The data directory cannot be used: full disk, corrupt database, or another emulator has it open."""


class ControlError(EmulatorError):
    """A knob was turned the wrong way; the message says what is accepted."""


def invalid_argument(message: str) -> CloudError:
    """The cloud's answer to a parameter that it cannot read (HTTP 400)."""
    return CloudError(400, "InvalidArgument", message)
