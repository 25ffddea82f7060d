"""`python -m benchmarks.learning --cases PATH`: prints the table and writes benchmarks/results/learning.json."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.detection import cases
from benchmarks.learning.heard import Heard, examples, heard
from detection.model import Anomaly
from detection.ranker import Judge
from detection.ranker_fitting import learn
from detection.ranking import tier_of
from detection.settings import DetectionSettings

RESULTS = Path(__file__).resolve().parents[1] / "results" / "learning.json"
TIERS = {"ops": "operations series", "multi": "multivariate servers"}
POINTS, FEWER = 0.05, 0.40
"""What has to be reached: so much more recall at the same false alarms, or so many fewer at the same recall."""
Acts = Callable[[Heard], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", help="The folder of the labelled cases (with score.py).")
    parser.add_argument("--tier", choices=sorted(TIERS), action="append", help="Only this part of them.")
    given = parser.parse_args()
    root = cases.find(given.cases)
    if root is None:
        raise SystemExit("The labelled cases are not there: give their folder with --cases.")
    found = {tier: measured(root, tier) for tier in given.tier or TIERS}
    _print(found)
    RESULTS.write_text(json.dumps({"command": "python -m benchmarks.learning --cases PATH", **found}, indent=1) + "\n")


def measured(root: Path, tier: str) -> dict[str, Any]:
    """The detectors alone and the re-ranker, leaving out each family, and each group of families."""
    start = time.process_time()
    series = [one for one in heard(root, tier) if one.stamps.size]
    labels = {e.incident_id: e.real for one in series for e in examples(one)}
    alone = {one.name: _acts(one, lambda a, _c: a.tier == "act", None) for one in series}
    told: dict[str, Any] = {
        "series": len(series),
        "labelled_alarms": len(labels),
        "real": sum(labels.values()),
        "alone": cases.score(root, tier, _flags(series, alone)),
    }
    for way in ("family", "group"):
        told[f"left_out_by_{way}"] = _left_out(root, tier, series, way) | {}
    told["cpu_s"] = round(time.process_time() - start, 1)
    return told


def _left_out(root: Path, tier: str, series: Sequence[Heard], way: str) -> dict[str, Any]:
    flags, used, names = {}, 0, sorted({one.families[way] for one in series})
    chances: list[tuple[float, bool]] = []
    for name in names:
        train = [e for one in series if one.families[way] != name for e in examples(one)]
        judge = Judge(learn(train, 0.0))
        used += judge.ranker.used
        for one in series:
            if one.families[way] == name:
                flags[one.name] = _acts(one, lambda a, c, judge=judge: _tier(a, c, judge) == "act", judge)  # type: ignore[misc]
                own = examples(one)
                seen = judge.probabilities([e.evidence for e in own]) if own else np.empty(0)
                chances += [(float(chance), e.real) for chance, e in zip(seen, own, strict=True)]
    return {
        "families": len(names),
        "used_in": used,
        "reranked": cases.score(root, tier, _flags(series, flags)),
        "calibration": _calibration(chances),
    }


def _tier(anomaly: Anomaly, chance: float, judge: Judge) -> str:
    if not judge.ranker.used or not anomaly.evidence:
        return anomaly.tier
    # in a replay only what was voted for at that judgement is fresh
    return tier_of(anomaly, chance, anomaly.at_s, DetectionSettings(), judge)


def _acts(one: Heard, act: Callable[[Anomaly, float], bool], judge: Judge | None) -> np.ndarray:
    """At which timestamps something is called act."""
    chance = np.ones(len(one.said))
    asked = [i for i, (_, anomaly) in enumerate(one.said) if anomaly.evidence]
    if judge is not None and asked:
        chance[asked] = judge.probabilities([one.said[i][1].evidence for i in asked])
    on = {at for (at, anomaly), c in zip(one.said, chance, strict=True) if act(anomaly, float(c))}
    return np.isin(one.stamps, np.rint(sorted(on)))


def _flags(series: Sequence[Heard], on: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {one.name: (one.stamps, on[one.name]) for one in series}


def _calibration(chances: Sequence[tuple[float, bool]]) -> list[dict[str, float]]:
    """In fifths of the range: what was said and how many were real."""
    rows = []
    for low in np.arange(0, 1, 0.2):
        mine = [(c, real) for c, real in chances if low <= c < low + 0.2 or (c == 1.0 and low > 0.7)]
        if mine:
            said, real = (float(np.mean(part)) for part in zip(*mine, strict=True))
            rows.append({"said": round(said, 3), "real": round(real, 3), "of": len(mine)})
    return rows


def _print(found: dict[str, dict[str, Any]]) -> None:
    print("| cases | way | recall | by chance | precision | false alarms/series-day | median delay, min |")
    print("|---|---|---|---|---|---|---|")
    for tier, told in found.items():
        rows = {"act, the detectors alone": told["alone"]}
        rows |= {f"act, re-ranked, {w} left out": told[f"left_out_by_{w}"]["reranked"] for w in ("family", "group")}
        for name, row in rows.items():
            keys = ("recall", "chance", "precision", "false_alarms_per_day", "delay_min_median")
            print(f"| {TIERS[tier]} | {name} | " + " | ".join(str(row[key]) for key in keys) + " |")
        print(f"{TIERS[tier]}: {told['labelled_alarms']} labelled alarms, {told['real']} real; {_reached(told)}")


def _reached(told: dict[str, Any]) -> str:
    before, after = told["alone"], told["left_out_by_family"]["reranked"]
    more = after["recall"] - before["recall"]
    fewer = 1 - after["false_alarms_per_day"] / before["false_alarms_per_day"]
    recall = more >= POINTS and fewer >= 0
    quiet = fewer >= FEWER and more >= 0
    said = f"recall {100 * more:+.1f} points, false alarms {-100 * fewer:+.0f} %"
    return f"{said}: {'reached' if recall or quiet else 'MISSED'} ({100 * POINTS:.0f} points, or {100 * FEWER:.0f} %)"


if __name__ == "__main__":
    main()
