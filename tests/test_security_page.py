"""SECURITY.md names the test of every promise: each of them is there, and holds tests."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_promise_names_tests_that_exist() -> None:
    page = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| (.*`tests/.*) \|$", page, flags=re.MULTILINE)
    named = {row[0]: re.findall(r"`(tests/[^`]+\.py)`", row[1]) for row in rows}
    assert len(named) > 10 and all(named.values())
    files = sorted({file for found in named.values() for file in found})
    assert [f for f in files if not (ROOT / f).is_file() or "def test_" not in (ROOT / f).read_text()] == []


def test_the_readme_leads_to_it() -> None:
    assert "(SECURITY.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
