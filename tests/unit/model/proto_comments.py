"""Comments of the contract's fields, parsed from the .proto files."""

import re
from pathlib import Path

FOLDER = Path(__file__).parents[3] / "protos" / "docpreview" / "v1"
_MESSAGE = re.compile(r"^message (\w+) \{$")
_FIELD = re.compile(r"^  (?:repeated |optional )?[\w.]+ (\w+) = \d+.*;$")


def of_fields() -> dict[str, str]:
    """Comments in one line each, by `Message.field`."""
    found: dict[str, str] = {}
    for path in sorted(FOLDER.glob("*.proto")):
        message, comment = "", ""
        for line in path.read_text().splitlines():
            if match := _MESSAGE.match(line):
                message = match[1]
            if (match := _FIELD.match(line)) and message:
                found[f"{message}.{match[1]}"] = comment.strip()
            comment = f"{comment} {line.strip()[2:].strip()}" if line.strip().startswith("//") else ""
    return found
