"""False and true verdicts of the before/after test, by autocorrelation, noise, history and effect.

    python -m benchmarks.verdicts [--pairs 2000] [--quick]

Prints tables; writes benchmarks/results/verdicts.json and docs/img/verdicts-power.svg.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.verdicts.simulate import Case, judge_many

RESULTS = Path(__file__).parents[1] / "results" / "verdicts.json"
PLOT = Path(__file__).parents[2] / "docs" / "img" / "verdicts-power.svg"
DOCS = Path(__file__).parents[2] / "docs" / "verification.md"
PHIS = (0.0, 0.3, 0.5, 0.7, 0.9)
EFFECTS = (0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
LIMITS = {phi: 0.06 if phi > 0.7 else 0.03 for phi in PHIS}
POWER_CASE = Case(phi=0.5, sigma=0.1, effect=0.7)
POWER_LIMIT = 0.95


def main_cases() -> list[Case]:
    return [Case(phi=phi, history=history) for history in (True, False) for phi in PHIS]


def other_cases() -> list[Case]:
    """Other noise levels, heavy tails, and the moving average that rate() makes."""
    noise = [Case(phi=phi, sigma=s, history=h) for h in (True, False) for s in (0.03, 0.3) for phi in (0.0, 0.7, 0.9)]
    tails = [Case(phi=phi, tail="t4", history=h) for h in (True, False) for phi in (0.0, 0.7, 0.9)]
    rolled = [Case(noise="rolling", window=w, history=h) for h in (True, False) for w in (4, 8)]
    return noise + tails + rolled


def power_cases() -> list[Case]:
    curves = [Case(phi=p, effect=e, history=h) for h in (True, False) for p in (0.0, 0.5, 0.7, 0.9) for e in EFFECTS]
    longer = [Case(phi=p, effect=0.7, history=h, points=45) for h in (True, False) for p in (0.5, 0.7, 0.9)]
    return curves + longer


def run(cases: list[Case], pairs: int, title: str, jobs: int) -> list[dict[str, object]]:
    print(f"\n{title} ({pairs} pairs each)")
    print("phi   noise  kind      n  history  effect | improved worse unchanged inconcl. | plain test calls")
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        many = pool.imap(functools.partial(judge_many, pairs=pairs, seed=20), cases)
        return [_row(case, pairs, found) for case, found in zip(cases, many, strict=True)]


def _row(case: Case, pairs: int, found: dict[str, float]) -> dict[str, object]:
    kind = f"roll{case.window}" if case.noise == "rolling" else "ar1" if case.tail == "normal" else "ar1/t4"
    print(
        f"{case.phi:<5} {case.sigma:<6} {kind:<8} {case.points:>3}  {'yes' if case.history else 'no':<7}  "
        f"{case.effect:<6} | {found['improved']:8.3f} {found['worse']:5.3f} {found['unchanged']:9.3f} "
        f"{found['inconclusive']:8.3f} | {found['plain_mann_whitney_called']:.3f}",
        flush=True,
    )
    return {**asdict(case), "pairs": pairs, **found}


def plot(rows: list[dict[str, object]], to: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "slotune"
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for axis, history in zip(axes, (True, False), strict=True):
        for phi in (0.0, 0.5, 0.7, 0.9):
            curve = [r for r in rows if r["phi"] == phi and r["history"] is history and r["points"] == 15]
            curve.sort(key=lambda r: -float(str(r["effect"])))
            drops = [100 * (1 - float(str(r["effect"]))) for r in curve]
            axis.plot(drops, [r["improved"] for r in curve], marker="o", markersize=3, label=f"phi {phi:g}")
        axis.set_title("with four hours of history" if history else "without history")
        axis.set_xlabel("true fall of P95 (%)")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel('called "improved"')
    axes[0].legend()
    figure.suptitle("15 points a side, 10 % noise")
    figure.tight_layout()
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, metadata={"Date": None})


def write_table(rows: list[dict[str, object]], to: Path) -> None:
    """The main figures into the documentation, between its markers."""
    lines = [
        "| autocorrelation | history | true effect | called improved | called worse | plain Mann-Whitney calls |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        effect = "none" if row["effect"] == 1.0 else f"{100 * (float(str(row['effect'])) - 1):+.0f} %"
        shares = [f"{100 * float(str(row[name])):.1f} %" for name in ("improved", "worse", "plain_mann_whitney_called")]
        history = "4 h" if row["history"] else "none"
        lines.append(f"| {row['phi']} | {history} | {effect} | {' | '.join(shares)} |")
    text = to.read_text()
    begin, end = "<!-- verdicts:begin -->", "<!-- verdicts:end -->"
    head, rest = text.split(begin)
    to.write_text("\n".join([head + begin, "", *lines, "", end + rest.split(end)[1]]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000, help="simulated pairs per row")
    parser.add_argument("--jobs", type=int, default=2, help="how many rows at once")
    parser.add_argument("--quick", action="store_true", help="the rows with a limit only, and no files")
    arguments = parser.parse_args()
    jobs = arguments.jobs
    started = time.perf_counter()
    if arguments.quick:
        false = run([Case(phi=phi) for phi in PHIS], arguments.pairs, "No real effect", jobs)
        power = run([POWER_CASE], arguments.pairs, "A real effect", jobs)
    else:
        few = max(200, arguments.pairs // 5)
        false = run(main_cases(), arguments.pairs, "No real effect", jobs)
        false += run(other_cases(), few, "No real effect, other noise", jobs)
        power = run(power_cases(), few, "A real effect", jobs)
        power += run([POWER_CASE, replace(POWER_CASE, history=False)], arguments.pairs, "The promised effect", jobs)
    reached = _reached(false, power)
    print(
        "\nlimits:", "all kept" if all(reached.values()) else f"NOT kept: {[k for k, ok in reached.items() if not ok]}"
    )
    if not arguments.quick:
        took_s = round(time.perf_counter() - started, 1)
        body = {
            "command": f"python -m benchmarks.verdicts --pairs {arguments.pairs}",
            "took_s": took_s,
            "limits_kept": reached,
            "false": false,
            "true": power,
        }
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(json.dumps(body, indent=1) + "\n")
        plot(power, PLOT)
        write_table([*false[: len(main_cases())], *power[-2:]], DOCS)
        print(f"written: {RESULTS.relative_to(Path.cwd()) if RESULTS.is_relative_to(Path.cwd()) else RESULTS}")
    return 0 if all(reached.values()) else 1


def _reached(false: list[dict[str, object]], power: list[dict[str, object]]) -> dict[str, bool]:
    """The promises: for plain AR(1) noise of 10 %, with history."""
    plain = {"sigma": 0.1, "history": True, "noise": "ar1", "tail": "normal", "points": 15}
    kept = {}
    for row in false:
        if all(row[name] == value for name, value in plain.items()):
            phi = float(str(row["phi"]))
            kept[f"false verdicts at phi {phi:g} <= {LIMITS[phi]:g}"] = float(str(row["called"])) <= LIMITS[phi]
    for row in power:
        wanted = {**plain, "phi": POWER_CASE.phi, "effect": POWER_CASE.effect}
        if all(row[name] == value for name, value in wanted.items()):
            kept[f"a 30 % fall is improved >= {POWER_LIMIT:g}"] = float(str(row["improved"])) >= POWER_LIMIT
    return kept


if __name__ == "__main__":
    sys.exit(main())
