"""YAML, JSON and drawings of the documents, read by what reads them."""

from __future__ import annotations

import pytest

from tests.documents.blocks import Block, blocks
from tests.documents.loading import READERS, reader

LOADED = [block for block in blocks() if not block.marked and reader(block)]


@pytest.mark.parametrize("block", LOADED, ids=str)
def test_every_block_that_is_read_is_understood_by_what_reads_it(block: Block) -> None:
    """Settings by the gateway, values by helm, rules by promtool."""
    READERS[reader(block) or ""][1](block.text)


def broken(language: str, text: str) -> Block:
    return Block("a.md", 1, language, text)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (broken("yaml", "listen: here\n"), "listen"),
        (broken("yaml", "image: {repo: registry.example}\n"), "repo"),
        (broken("yaml", "version: 1\ncallers: {shop: {bucket: []}}\n"), "bucket"),
        (broken("yaml", "groups: [{name: one, rules: [{alert: A, expr: 'sum('}]}]\n"), "parse"),
        (broken("json", "{"), "Expecting"),
        (broken("text", "  $ make demo\n"), "make demo"),
    ],
    ids=lambda value: value.text if isinstance(value, Block) else "",
)
def test_a_block_that_its_reader_does_not_understand_is_found(block: Block, message: str) -> None:
    """The error says where."""
    with pytest.raises(Exception, match=message):
        READERS[reader(block) or ""][1](block.text)
