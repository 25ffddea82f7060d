"""`python -m benchmarks.detection [--cases DIR] [--quick]`: all in one run, to benchmarks/results/detection.json."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.detection import cases, cost, injected, weeks
from detection.backtest.recorded import VALUE, to_grid
from detection.settings import DetectionSettings

RESULTS = Path(__file__).resolve().parents[1] / "results" / "detection.json"
PICTURE = Path(__file__).resolve().parents[2] / "docs" / "img" / "detection-curve.png"


def controls() -> dict[str, Any]:
    """Noise for a day, a constant, and the constant with one unit more for an hour: shares of flagged judgements."""
    rng = np.random.default_rng(0)
    at = 1_700_006_400.0 + np.arange(0.0, 8 * 86400.0, 300.0)
    blip = np.full(at.size, 50.0)
    blip[-100:-88] += 1
    day = 1_700_006_400.0 + np.arange(0.0, 86400.0, 60.0)
    made = {
        "noise, a week before": to_grid("a", at, {VALUE: rng.normal(10, 1, at.size)}),
        "noise, one day in all": to_grid("b", day, {VALUE: rng.normal(10, 1, day.size)}),
        "constant": to_grid("c", at, {VALUE: np.full(at.size, 50.0)}),
        "constant, then +1": to_grid("d", at, {VALUE: blip}),
    }
    outcomes, _ = cases.ours(list(made.values()))
    return {
        name: {tier: round(float(o.frame[tier].mean()), 5) for tier in ("act", "warn")}
        for name, o in zip(made, outcomes, strict=True)
    }


def labelled(root: Path, quick: bool) -> dict[str, Any]:
    """Ours on ops and on the multivariate servers, and the usual ways on ops."""
    recordings = cases.series(root, "ops")
    outcomes, cpu_s = cases.ours(recordings)
    table = {
        f"slotune, {tier}": cases.score(root, "ops", cases.flags_of(outcomes, tier)) | {"cpu_s": round(cpu_s, 1)}
        for tier in ("act", "warn")
    }
    multi: dict[str, Any] = {}
    # a backtest learns every six hours, a live installation every hour
    for every_h in (6,) if quick else (6, 1):
        servers, seconds = cases.ours(cases.series(root, "multi"), 3600.0 * every_h)
        for tier in ("act", "warn"):
            line = cases.score(root, "multi", cases.flags_of(servers, tier))
            multi[f"{tier}, learned every {every_h} h"] = line | {"cpu_s": round(seconds, 1)}
            for half, names in (("developed on", cases.DEVELOPED_ON), ("only reported", cases.ONLY_REPORTED)):
                flags = {n: f for n, f in cases.flags_of(servers, tier).items() if n in names}
                multi[f"{tier}, learned every {every_h} h, servers {half}"] = cases.score(root, "multi", flags)
    if not quick:
        table |= cases.compare(root, recordings)
    curve = {} if quick else cases.curve(root, recordings, outcomes)
    if curve:
        cases.plot(curve, PICTURE)
    return {"ops": table, "ops_curve": curve, "asd": multi}


def markdown(found: dict[str, Any]) -> str:
    """The tables of docs/detection.md."""
    lines = [
        "| method | recall | by chance | precision | false alarms/day | quiet time flagged | delay, min | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found.get("labelled", {}).get("ops", {}).items():
        before = (row["recall"], row["chance"], row["precision"], row["false_alarms_per_day"])
        cells = [*map(str, before), f"{row['point_fpr']:.2%}", str(row["delay_min_median"]), str(row["cpu_s"])]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", help="folder with score.py and cases/dev")
    parser.add_argument("--quick", action="store_true", help="without the comparison and the fleet of 10,000")
    options = parser.parse_args()
    found: dict[str, Any] = {"command": "python -m benchmarks.detection" + (" --quick" if options.quick else "")}
    found["controls_flagged_share"] = controls()
    print(json.dumps(found["controls_flagged_share"], indent=1), flush=True)
    found["injected_faults"] = injected.run()
    print(json.dumps(found["injected_faults"], indent=1), flush=True)
    found["weeks"] = {
        "developed on": weeks.measure(weeks.DEV_SEEDS, DetectionSettings()),
        "only reported": weeks.measure(weeks.REPORT_SEEDS, DetectionSettings()),
        "weekends not modelled": weeks.measure(
            weeks.REPORT_SEEDS, DetectionSettings(weekly_history_s=0), kinds=("load",)
        ),
    }
    print(json.dumps(found["weeks"], indent=1), flush=True)
    found["cost"] = [cost.sweep_and_learn(1000), cost.sweep_memory(1000), cost.parsing()]
    if not options.quick:
        found["cost"].append(cost.sweep_and_learn(10_000))
    print(json.dumps(found["cost"], indent=1), flush=True)
    root = cases.find(options.cases)
    if root is None:
        print("the labelled cases are not here (give --cases DIR): their part is left out")
    else:
        found["labelled"] = labelled(root, options.quick)
        print(markdown(found))
        print(json.dumps(found["labelled"]["asd"], indent=1))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written to {RESULTS.relative_to(RESULTS.parents[2])}")


if __name__ == "__main__":
    main()
