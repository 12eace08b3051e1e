"""Mutants: what is changed, how it is told, and that the table and the list of accepted ones fit the sources."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.mutants import statements
from tests.mutants.accepted import accepted
from tests.mutants.points import mutant, points
from tests.mutants.sample import candidates, sample
from tests.mutants.table import TABLE

SOURCE = '''
"""A module."""
LIMIT = 5

class Box:
    def add(self, pages: int, limit: int | None = None) -> int:
        """Add pages."""
        if limit is not None and pages > limit:
            log.warning("too many", pages=pages)
            raise ValueError("too many")
        self.pages += pages
        return max(pages, 0)
'''


def changes(source: str) -> list[str]:
    return [point.text for point in points(source)]


def test_operators_branches_constants_and_statements_are_changed_one_at_a_time() -> None:
    assert changes(SOURCE) == [
        "module: 5 -> 6 in `LIMIT = 5`",
        "module: 5 -> 4 in `LIMIT = 5`",
        "Box.add: negate `limit is not None and pages > limit` in `if limit is not None and pages > limit:`",
        *(
            f"Box.add: `limit is not None and pages > limit` -> `{new}` in `if limit is not None and pages > limit:`"
            for new in (
                "limit is not None or pages > limit",
                "pages > limit and pages > limit",
                "limit is not None and limit is not None",
            )
        ),
        "Box.add: `limit is not None` -> `limit is None` in `if limit is not None and pages > limit:`",
        "Box.add: `pages > limit` -> `pages >= limit` in `if limit is not None and pages > limit:`",
        "Box.add: `pages > limit` -> `pages <= limit` in `if limit is not None and pages > limit:`",
        "Box.add: drop `raise ValueError('too many')`",
        "Box.add: drop `self.pages += pages`",
        "Box.add: return None, not `max(pages, 0)` in `return max(pages, 0)`",
        "Box.add: `max(pages, 0)` -> `min(pages, 0)` in `return max(pages, 0)`",
        "Box.add: 0 -> 1 in `return max(pages, 0)`",
    ]


def test_each_mutant_differs_from_the_module_and_is_python() -> None:
    for number in range(len(points(SOURCE))):
        tree = mutant(SOURCE, number)
        compile(tree, "mutant", "exec")
        assert ast.unparse(tree) != ast.unparse(ast.parse(SOURCE))


@pytest.mark.parametrize(
    ("text", "new"),
    [
        ("UPDATE a SET b = ? WHERE c = 0", "UPDATE a SET b = ? WHERE c != 0"),
        ("SELECT a FROM b WHERE c <= ?", "SELECT a FROM b WHERE c < ?"),
        ("SELECT a FROM b WHERE c = ? AND d != ''", "SELECT a FROM b WHERE c = ?"),
        (" DO UPDATE SET a = a + excluded.a", " DO UPDATE SET a = a - excluded.a"),
        ("UPDATE a SET b = max(b, ?)", "UPDATE a SET b = min(b, ?)"),
        ("INSERT OR IGNORE INTO a VALUES (?)", "INSERT OR REPLACE INTO a VALUES (?)"),
    ],
)
def test_conditions_and_sums_of_sql_are_changed(text: str, new: str) -> None:
    assert new in [mutated for _, mutated in statements.sql(text)]


def test_a_condition_with_a_variable_is_made_true_so_that_the_number_of_variables_stays() -> None:
    ((_, new),) = [each for each in statements.sql("SELECT a FROM b WHERE c = ? AND d >= ?") if "1 OR" in each[1]]
    assert new == "SELECT a FROM b WHERE c = ? AND (1 OR d >= ?)"


def test_lines_and_operators_of_lua_are_changed_and_comments_are_not() -> None:
    script = "\nlocal a = 0\n-- 1 > 0\nif a >= 5 then return end\nredis.call('SET', a, a + 1)\n"
    told = [description for description, _ in statements.lua(script)]
    assert told == [
        "`local a = 0` -> `local a = 1`",
        "`if a >= 5 then return end` -> `if a > 5 then return end`",
        "`if a >= 5 then return end` -> `if a < 5 then return end`",
        "drop `if a >= 5 then return end`",
        "`redis.call('SET', a, a + 1)` -> `redis.call('SET', a, a - 1)`",
        "drop `redis.call('SET', a, a + 1)`",
    ]


def test_other_texts_are_no_statements() -> None:
    assert [*statements.sql("a caller = ?"), *statements.lua("held > used")] == []


def test_a_sample_is_the_same_for_a_seed_and_has_all_modules() -> None:
    drawn = sample(TABLE, 100, 1)
    assert drawn == sample(TABLE, 100, 1) != sample(TABLE, 100, 2)
    assert {each.module for each in drawn} == set(TABLE)


def test_the_tests_of_the_table_are_there() -> None:
    named = {test for judged in TABLE.values() for test in judged.tests}
    assert [test for test in named if not Path(test).exists()] == []


def test_an_accepted_mutant_is_one_that_can_be_made() -> None:
    there = {(module, each.text) for module in TABLE for each in candidates(module)}
    assert accepted().keys() - there == set()


def test_an_acceptance_without_a_reason_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "accepted.yaml"
    file.write_text("a.py:\n  - {change: x, kind: cosmetic}\n")
    with pytest.raises(ValueError, match=re.escape("a.py: x")):
        accepted(file)
