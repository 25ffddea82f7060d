"""What a mutation changes, what it leaves alone, and that a mutant's tests see the mutant."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutants import runner
from tests.mutants.__main__ import Found, _document
from tests.mutants.mutations import mutated, mutations
from tests.mutants.reach import reach_of
from tests.mutants.targets import modules, suite_of


def every(source: str) -> list[tuple[str, str]]:
    """(kind, the mutated source) of each mutation."""
    return [(m.kind, ast.unparse(mutated(source, m.number))) for m in mutations(source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("LIMIT = 0.5", [("threshold", "LIMIT = 0.65"), ("threshold", f"LIMIT = {0.5 / 1.3}")]),
        ("COUNT = 8", [("threshold", "COUNT = 9"), ("threshold", "COUNT = 7")]),
        ("y = a and b", [("boolean", "y = a or b")]),
        ("y = not a", [("boolean", "y = a")]),
        ("y = a == b", [("comparison", "y = a != b")]),
        ("y = a < b", [("comparison", "y = a >= b"), ("boundary", "y = a <= b")]),
        ("if a:\n    b()", [("branch", "if not a:\n    b()")]),
        ("y = [b for b in c if b]", [("branch", "y = [b for b in c if not b]")]),
        ("def f():\n    return True", [("constant", "def f():\n    return False")]),
        ("def f():\n    return g(3)", [("constant", "def f():\n    return g(4)")]),
    ],
)
def test_each_kind_of_mistake(source, expected):
    assert every(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "y = f'{x * 100:.1f} of {2}'",
        "x: float = Field(ge=0, le=1)",
        "y = zip(a, b, strict=True)",
        "y = max(a, 1e-09)",
        "@dataclass(frozen=True)\nclass A:\n    b: int",
        "def f():\n    raise E(3)",
    ],
)
def test_what_decides_nothing_is_left_alone(source):
    assert mutations(source) == []


def test_a_single_comparison_of_a_branch_is_not_turned_round_twice():
    assert [m.kind for m in mutations("if a < b:\n    c()")] == ["branch", "boundary"]


def test_lines_stay_where_they_are():
    source = "a = 1\n\nif a < 2:\n    b = 3\n"
    assert [m.line for m in mutations(source) if m.kind == "branch"] == [3]


def test_every_mutated_module_has_tests_and_its_own_come_first():
    for module in modules():
        assert suite_of(module), module
    assert suite_of(Path("tuning/planning/whatif.py"))[0] == "tests/tuning/planning/test_whatif.py"


BLIND = "import tuning.guards.freeze\ndef test_it(): pass\n"
LOOKS = """from datetime import datetime
from tuning.guards.freeze import Freeze

def test_the_second_hour_is_outside():
    assert Freeze("", ((110, 120),)).holds(datetime(2024, 1, 1, 1, 50))
"""


CANNOT_BE_COLLECTED = "import tuning.guards.freeze\nimport no_such_module_anywhere\ndef test_it(): pass\n"


@pytest.mark.parametrize(("test", "verdict"), [(BLIND, "survived"), (LOOKS, "killed")], ids=["blind", "looks"])
def test_a_mutant_is_killed_by_the_test_that_looks_and_by_no_other(tmp_path, test, verdict):
    """The mutant's hour has 78 minutes."""
    module, file = Path("tuning/guards/freeze.py"), tmp_path / "test_it.py"
    source = (runner.ROOT / module).read_text(encoding="utf-8")
    number = next(m.number for m in mutations(source) if (m.kind, m.text) == ("constant", "60 -> 78"))
    file.write_text(test)
    assert _verdict(module, None, file) == "survived"
    assert _verdict(module, number, file) == verdict
    assert (runner.ROOT / module).read_text(encoding="utf-8") == source


def test_tests_that_cannot_be_collected_have_noticed_nothing(tmp_path):
    file = tmp_path / "test_it.py"
    file.write_text(CANNOT_BE_COLLECTED)
    assert _verdict(Path("tuning/guards/freeze.py"), 0, file) == "unimportable"


def test_a_mutant_without_an_end_is_ended_and_counts_as_one_that_nobody_noticed(tmp_path):
    file = tmp_path / "test_it.py"
    file.write_text("def test_it():\n    while True:\n        pass\n")
    assert _verdict(Path("tuning/guards/freeze.py"), 0, file, limit_s=1.0) == "endless"
    found = [
        Found("a.py", k, "branch", "", verdict, 0.0) for k, verdict in enumerate(("killed", "endless", "survived"))
    ]
    body = _document([*found, Found("a.py", 9, "branch", "", "unimportable", 0.0)], "", 0.0)
    assert (body["killed"], body["mutants"], body["not_counted"]) == (1, 3, 1)


def test_a_mutants_tests_are_those_that_come_to_its_line_in_the_likeliest_file_first(tmp_path):
    """Both tests ask the guard; one alone comes to the look at the hours of a day."""
    module, file = Path("tuning/guards/freeze.py"), tmp_path / "test_it.py"
    file.write_text(LOOKS + "\ndef test_no_hours():\n    assert not Freeze('', ()).holds(datetime(2024, 1, 1))\n")
    reach = reach_of([module], runner.OPTIONS, [str(file)])
    assert {test.rpartition("::")[2] for test in reach.took_s} == {"test_the_second_hour_is_outside", "test_no_hours"}
    source = (runner.ROOT / module).read_text(encoding="utf-8")
    hour = next(m for m in mutations(source) if (m.kind, m.text) == ("constant", "60 -> 78"))
    assert len(reach.of(module, hour.lines, "it")) == 2
    assert len(reach.of(module, (1, 1), "it")) == 0
    assert len(reach.of(module, (0, 0), "it")) == 2


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("LIMIT = 0.5", (0, 0)),
        ("class A:\n    limit: float = 0.5", (0, 0)),
        ("def f():\n    return g(\n        3\n    )", (2, 4)),
        ("def f(a):\n    if (\n        a\n    ):\n        b()", (2, 4)),
    ],
)
def test_a_mutation_knows_the_lines_of_its_statement(source, lines):
    assert {m.lines for m in mutations(source)} == {lines}


def _verdict(module: Path, number: int | None, test: Path, limit_s: float = 60.0) -> str:
    started, verdict = runner.start(module, number, [str(test)], limit_s), ""
    while not verdict:
        verdict = started.verdict()
    return verdict
