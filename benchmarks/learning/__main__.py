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
from benchmarks.learning.curve import Count, counted, curve
from benchmarks.learning.heard import Heard, examples, heard
from detection.model import Anomaly
from detection.ranker import Judge
from detection.ranker_fitting import learn, out_of_fold, threshold_at
from detection.ranking import tier_of
from detection.settings import DetectionSettings

RESULTS = Path(__file__).resolve().parents[1] / "results" / "learning.json"
TIERS = {"ops": "operations series", "multi": "multivariate servers"}
POINTS, FEWER = 0.05, 0.40
"""What has to be reached: so much more recall at the same false alarms, or so many fewer at the same recall."""
SHARES = (0.6, 1.0, 1.5, 2.0, 3.0, 4.0)
"""At how many times the false alarms of the act tier a threshold is chosen on the other families."""
OWN = {"act_reach": "the detectors' score of the act tier", "top": "the detectors' highest score"}
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
        "labelled_incidents": len(labels),
        "real": sum(labels.values()),
        "alone": cases.score(root, tier, _flags(series, alone)),
    }
    for way in ("family", "group"):
        # one group alone leaves nothing to learn from
        if len({one.families[way] for one in series}) > 1:
            told[f"left_out_by_{way}"] = _left_out(root, tier, series, way)
    told["detectors"] = {name: _own_curve(series, name) for name in OWN}
    told["cpu_s"] = round(time.process_time() - start, 1)
    return told


def _left_out(root: Path, tier: str, series: Sequence[Heard], way: str) -> dict[str, Any]:
    """used: as live with move_tiers, where the rule of use lets it. chosen: with the threshold that was chosen on the
    other families at no more false alarms than without it, whether or not it may be used. curve: the same at a multiple
    of those false alarms. Everything is judged on the family that is left out."""
    names = sorted({one.families[way] for one in series})
    used, chosen = {}, {}
    at_share: dict[float, dict[str, np.ndarray]] = {share: {} for share in SHARES}
    said: list[tuple[float, bool]] = []
    count = 0
    for name in names:
        train = [e for one in series if one.families[way] != name for e in examples(one)]
        unseen = out_of_fold(train)
        judge = Judge(learn(train, 0.0, unseen))
        count += judge.ranker.used
        real, usual = unseen.incidents.real, unseen.incidents.act & ~unseen.incidents.real
        limits = {share: threshold_at(real, unseen.chance, round(share * int(usual.sum()))) for share in SHARES}
        for one in (one for one in series if one.families[way] == name):
            chosen[one.name] = _acts(one, lambda a, c, judge=judge: _tier(a, c, judge) == "act", judge)  # type: ignore[misc]
            used[one.name] = chosen[one.name] if judge.ranker.used else _acts(one, lambda a, _c: a.tier == "act", None)
            at_s, chance = _fresh(one, judge)
            for share, limit in limits.items():
                at_share[share][one.name] = at_s[chance >= limit]
            own = examples(one)
            seen = judge.probabilities([e.evidence for e in own]) if own else np.empty(0)
            said += [(float(chance), e.real) for chance, e in zip(seen, own, strict=True)]
    return {
        "families": len(names),
        "used_in": count,
        "used": cases.score(root, tier, _flags(series, used)),
        "chosen": cases.score(root, tier, _flags(series, chosen)),
        "curve": [{"share": share, **_row(counted(series, flags))} for share, flags in at_share.items()],
        "calibration": _calibration(said),
    }


def _row(point: Count) -> dict[str, float]:
    return {"recall": round(point.recall, 3), "false_alarms_per_day": round(point.false_alarms_per_day, 3)}


def _fresh(one: Heard, judge: Judge | None, name: str = "") -> tuple[np.ndarray, np.ndarray]:
    """(epoch seconds, score) of what was voted for at each judgement: the probability, or without a judge the evidence
    of that name."""
    asked = [(at, anomaly.evidence) for at, anomaly in one.said if anomaly.evidence and anomaly.at_s == at]
    at_s = np.array([at for at, _ in asked])
    if judge is not None and asked:
        return at_s, judge.probabilities([known for _, known in asked])
    return at_s, np.array([known.get(name, 0.0) for _, known in asked])


def _own_curve(series: Sequence[Heard], name: str) -> list[dict[str, float]]:
    """The detectors' own score at every threshold, few alarms first; only points that find more than all before."""
    found: list[Count] = []
    for point in curve(series, {one.name: _fresh(one, None, name) for one in series}):
        if not found or point.recall > found[-1].recall:
            found.append(point)
    return [_row(point) for point in found]


def _tier(anomaly: Anomaly, chance: float, judge: Judge) -> str:
    if not anomaly.evidence:
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
        for way in ("family", "group"):
            for kind in ("used", "chosen") if f"left_out_by_{way}" in told else ():
                rows[f"act, re-ranked as {kind}, {way} left out"] = told[f"left_out_by_{way}"][kind]
        for name, row in rows.items():
            keys = ("recall", "chance", "precision", "false_alarms_per_day", "delay_min_median")
            print(f"| {TIERS[tier]} | {name} | " + " | ".join(str(row[key]) for key in keys) + " |")
    for tier, told in found.items():
        print(f"\n{TIERS[tier]}: {told['labelled_incidents']} labelled incidents, {told['real']} real")
        for kind in ("used", "chosen"):
            print(f"as {kind}: {_reached(told['alone'], told['left_out_by_family'][kind])}")
        own = {said: told["detectors"][name] for name, said in OWN.items()}
        print("| false alarms/series-day, family left out | recall | " + " | ".join(own) + " |")
        print("|---" * (2 + len(own)) + "|")
        for point in told["left_out_by_family"]["curve"]:
            rate = point["false_alarms_per_day"]
            beside = " | ".join(str(_recall_at(points, rate)) for points in own.values())
            print(f"| {rate} | {point['recall']} | {beside} |")


def _recall_at(points: Sequence[dict[str, float]], rate: float) -> float:
    return max((p["recall"] for p in points if p["false_alarms_per_day"] <= rate), default=0.0)


def _reached(before: dict[str, Any], after: dict[str, Any]) -> str:
    more = after["recall"] - before["recall"]
    fewer = 1 - after["false_alarms_per_day"] / before["false_alarms_per_day"]
    recall = more >= POINTS and fewer >= 0
    quiet = fewer >= FEWER and more >= 0
    said = f"recall {100 * more:+.1f} points, false alarms {-100 * fewer:+.0f} %"
    return f"{said}: {'reached' if recall or quiet else 'MISSED'} ({100 * POINTS:.0f} points, or {100 * FEWER:.0f} %)"


if __name__ == "__main__":
    main()
