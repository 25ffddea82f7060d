"""benchmarks/results/faults.json: one entry a part of the campaign, and the sums over all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "faults.json"
SUMMED = ("faults", "orphan_changes", "double_changes", "unproven", "lost_records", "over_rollback_time", "broken")


def stored(to: Path = RESULTS) -> dict[str, Any]:
    """The parts by name; empty before the first run."""
    return dict(json.loads(to.read_text()).get("parts", {})) if to.exists() else {}


def keep(name: str, part: Mapping[str, Any], to: Path = RESULTS) -> dict[str, Any]:
    """Replace one part and write the sums; shares of the same campaign that were cut otherwise are dropped."""
    parts = stored(to)
    kind, _, share = name.partition(" ")
    of = share.partition("/")[2]
    parts = {n: p for n, p in parts.items() if n.partition(" ")[0] != kind or n.partition("/")[2] == of}
    parts[name] = dict(part)
    body = {key: sum(int(p.get(key, 0)) for p in parts.values()) for key in SUMMED}
    # A kill of Airflow's processes is counted when it has struck; elsewhere a story may end before its fault begins.
    body["struck"] = sum(int(p.get("struck", p.get("faults", 0))) for p in parts.values())
    body["parts"] = dict(sorted(parts.items()))
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(json.dumps(body, indent=1) + "\n")
    return body
