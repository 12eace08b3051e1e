"""The list of all code blocks of the documents and how each is run: `python -m tests.documents`.

Ends with status 1 when one is neither run nor marked.
"""

from __future__ import annotations

import sys
from collections import Counter

from tests.documents.blocks import blocks
from tests.documents.ways import NotRunError, way


def main() -> int:
    """Print the list, then what is wrong."""
    ways, mistakes = Counter[str](), []
    for block in blocks():
        try:
            found = way(block)
        except NotRunError as error:
            mistakes.append(f"{block} ({block.language or 'no language'}) {error}")
        else:
            ways["not run" if block.not_run else "run or loaded"] += 1
            sys.stdout.write(f"{block!s:48} {block.language:11} {found}\n")
    counted = ", ".join(f"{count} {kind}" for kind, count in ways.items())
    sys.stdout.write(f"{len(blocks())} blocks: {counted}, {len(mistakes)} neither run nor marked\n")
    sys.stderr.writelines(f"{mistake}\n" for mistake in mistakes)
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
