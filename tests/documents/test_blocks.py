"""Every code block of every document is run, loaded, or marked with where it is run or why it is not."""

from __future__ import annotations

import pytest

from tests.documents.blocks import Block, blocks, documents, parse
from tests.documents.session import commands
from tests.documents.ways import NotRunError, way
from tests.packaging.project import ROOT

TEST = "tests/documents/test_blocks.py::test_every_block_is_run_or_marked"

OTHER = "tests/packaging/test_links.py::test_documents_name_tests_that_exist"


@pytest.mark.parametrize("block", blocks(), ids=str)
def test_every_block_is_run_or_marked(block: Block) -> None:
    """`make check-docs` prints how each is run."""
    assert way(block)


def test_the_documents_are_those_that_readers_get() -> None:
    """READMEs of the packages and of the chart, and all of docs/."""
    found = {str(path.relative_to(ROOT)) for path in documents()}
    packages = {f"clients/{name}/README.md" for name in ("go", "java", "python", "rust", "typescript")}
    folders = {"README.md", "protos/README.md", "server/docpreview_emulator/README.md"}
    assert packages | folders | {"helm/docpreview-gateway/README.md", "docs/deploy.md"} <= found


def only(text: str) -> Block:
    (block,) = parse("a.md", text)
    return block


def test_a_block_has_its_line_its_language_and_its_text_in_lists_too() -> None:
    block = only("# A\n\n1. do\n\n   ```console\n   $ make demo\n   ```\n")
    assert (block.line, block.language, block.text, block.marked) == (5, "console", "$ make demo\n", False)


def test_a_mark_is_a_comment_directly_before_its_block() -> None:
    """Another comment, or a mark with a paragraph between, is none."""
    assert only(f"<!-- run by {TEST}, make demo -->\n```go\n```\n").run_by == (TEST, "make demo")
    assert only("<!-- not run: needs a cluster\nof yours -->\n```go\n```\n").not_run == "needs a cluster\nof yours"
    assert not only("<!-- a note -->\n```go\n```\n").marked
    assert not only("<!-- not run: needs a cluster -->\n\ntext\n\n```go\n```\n").marked


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```go\npackage main\n```\n", "no test runs go"),
        ("```yaml\nunknown: 1\n```\n", "no test runs yaml"),
        ("    make demo\n", "fence it"),
        ("```\nmake demo\n```\n", "no language"),
        ("<!-- not run: -->\n```console\n$ make\n```\n", "no reason"),
        ("<!-- not run: later -->\n```console\n$ make\n```\n", "no reason"),
        ("<!-- run by make coffee -->\n```console\n$ make\n```\n", "neither a test nor a target"),
        ("<!-- run by tests/documents/test_blocks.py::test_gone -->\n```go\n```\n", "does not exist"),
        ("<!-- run by tests/documents/test_gone.py::test_gone -->\n```go\n```\n", "does not exist"),
        ("<!-- run by tests/packaging/test_sizes.py::SOME -->\n```go\n```\n", "does not exist"),
        (f"<!-- run by {OTHER} -->\n```go\n```\n", "does not get its block"),
    ],
)
def test_a_block_that_is_neither_run_nor_soundly_marked_is_refused(text: str, message: str) -> None:
    """With what to do."""
    with pytest.raises(NotRunError, match=message):
        way(only(text))


def test_a_console_block_is_commands_with_what_they_print() -> None:
    """A command goes on to the end of its quotation, of its here-document, and after a backslash."""
    text = "$ make demo  # don't\ndone\n$ curl \\\n  -d '{\n}'\n$ cat > a <<'EOF'\nx: ...\nEOF\n$ true\n"
    assert commands(text) == [
        ("make demo  # don't", ["done"]),
        ("curl \\\n  -d '{\n}'", []),
        ("cat > a <<'EOF'\nx: ...\nEOF", []),
        ("true", []),
    ]


def test_the_program_of_the_readme_is_the_file_that_it_names() -> None:
    (block,) = (block for block in blocks() if block.document == "README.md" and block.language == "python")
    docstring, _, program = (ROOT / "examples" / "first_preview.py").read_text().partition("\n\n")
    assert docstring.startswith('"""')
    assert block.text == program
