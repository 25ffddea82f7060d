"""Rounds of the Airflow campaign, one after the other, until every point was struck; each goes on where it was left."""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demo.processes import adopt_orphans, sweep
from tests.faults import results
from tests.faults.airflow_campaign import Point, Round, play_round, points

PART = "airflow"


def play_rounds(rounds: int, minutes: float, *, fresh: bool, keep: Path | None) -> int:
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    adopt_orphans()
    before = {} if fresh else results.stored().get(PART, {})
    for _ in range(rounds):
        seed = len(before.get("rounds", []))
        left = [point for point in points() if point.text() not in before.get("struck_points", [])]
        if not left:
            break
        random.Random(seed).shuffle(left)
        with tempfile.TemporaryDirectory(prefix="slotune-airflow-faults-") as temporary:
            folder = (keep or Path(temporary)) / f"round-{seed}"
            folder.mkdir(parents=True)
            try:
                played = play_round(folder, left, seed=seed, minutes=minutes, say=_say)
            finally:
                sweep()
        before = added(before, played)
        results.keep(PART, before)
        _say(f"round {seed}: {before['rounds'][-1]}")
        _say(f"{len(before['struck_points'])} of {len(points())} points struck so far")
    return 1 if before.get("wrong") else 0


def _say(text: str) -> None:
    print(text, flush=True)


def added(before: dict[str, Any], played: Round) -> dict[str, Any]:
    """The part with one more round in it."""
    wrong = [text for finding in played.findings for text in finding.wrong()]
    wrong += [f"round {played.seed}: {text}" for text in (*played.unfinished, *played.leaked)]
    row = {
        "seed": played.seed,
        "kills": len(played.strikes),
        "stories": played.stories,
        "stories_struck": sum(len(strike.hit) for strike in played.strikes),
        "took_s": round(played.took_s),
        "wrong": wrong,
    }
    counted = {
        "orphan_changes": sum(len(f.orphan) for f in played.findings),
        "double_changes": sum(len(f.double) for f in played.findings),
        "unproven": sum(len(f.unproven) for f in played.findings) + len(played.unfinished),
        "lost_records": sum(len(f.lost) for f in played.findings),
        "over_rollback_time": sum(len(f.over_time) for f in played.findings),
        "changes_made": sum(f.landings for f in played.findings),
        "broken": len(played.leaked),
        "faults": len(played.strikes),
    }
    kills = Counter(before.get("kills_by_target", {})) + Counter(s.point.target for s in played.strikes)
    ends = Counter(before.get("ends", {})) + Counter(f.end for f in played.findings)
    harmful = [f.harmful_s for f in played.findings if f.harmful_s is not None]
    return {
        "command": " ".join(["python -m tests.faults", *sys.argv[1:]]),
        "what": "kill -9 of Airflow's own processes (LocalExecutor, PostgreSQL for Airflow and the ledger), many "
        "stories at once; a kill of a shared part strikes every story under way",
        **{key: int(before.get(key, 0)) + value for key, value in counted.items()},
        "points": len(points()),
        "kills_by_target": dict(sorted(kills.items())),
        "stories_struck": int(before.get("stories_struck", 0)) + row["stories_struck"],
        "steps_struck": _steps(before.get("steps_struck", {}), played),
        "ends": dict(sorted(ends.items())),
        "longest_harm_s": round(max([*harmful, float(before.get("longest_harm_s", 0.0))]), 1),
        "rollback_limit_s": played.rollback_limit_s,
        "wrong": [*before.get("wrong", []), *wrong],
        "rounds": [*before.get("rounds", []), row],
        "struck_points": sorted({*before.get("struck_points", []), *_texts([s.point for s in played.strikes])}),
    }


def _texts(struck: Sequence[Point]) -> list[str]:
    return [point.text() for point in struck]


def _steps(before: dict[str, int], played: Round) -> dict[str, int]:
    """How often each target struck a story in each body: "scheduler in pull_lever": 7."""
    found = Counter(before)
    for strike in played.strikes:
        found.update(f"{strike.point.target} in {body}" for _, body, _ in strike.hit)
    return dict(sorted(found.items()))
