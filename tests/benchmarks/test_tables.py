"""The figures reach the page through the markers, and only what was measured is shown."""

from __future__ import annotations

import pytest

from benchmarks.control import minutes, report, tables
from benchmarks.control.score import Result


def row(policy: str, scenario: str = "report 1", **change) -> Result:
    values: dict[str, object] = {
        "scenario": scenario, "seed": 1, "policy": policy, "kind": "curable", "first": True, "second": True,
        "held_right": False, "actions": 1, "wrong": 0, "violation_min": 2.0, "replica_hours": 1.0, "resolve_s": 60.0,
        "cause": "load_surge", "cause_right": True, "observed": [], "measured": [], "texts": [],
        "causes": ["load_surge"], "price": 0, "kinds": "surge step",
    }  # fmt: skip
    return Result(**(values | change))  # type: ignore[arg-type]


def test_the_page_shows_what_was_measured(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{tables.BEGIN}\nold figures\n{tables.END}\nafter\n")
    rows = [row("slotune", spent={minutes.FIRST: 1.5}), row("hpa", violation_min=8.0), row("ladder", violation_min=4.0), row("oracle"),
            row("nothing", replica_hours=0.5)]  # fmt: skip
    tables.write({"drawn": report.document(rows)}, page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old figures" not in text
    assert "| minutes over the SLO (curable), against HPA | 0.25 | 0.25 to 0.25 | 8 |" in text
    assert "| surge step | 1 | 1 | 1 | 1 | 0 |" in text
    assert "| until the first change takes effect | 1.5 | 0.0 | 0.0 | 0.0 | 0.0 |" in text
    assert "regression table" not in text


def test_a_page_without_markers_is_named(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="nowhere to put the figures"):
        tables.write({}, page)
