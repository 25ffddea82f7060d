"""`python -m benchmarks.policies.page`: the learned policies beside the others, from benchmarks/results/policies.json
into docs/learning.md, between its markers.

That file is written by `python -m benchmarks.control --generated report --first 0 --count 20 --policies
slotune,playbook,ppo,evolved,hpa,ladder,nothing,oracle --json benchmarks/results/policies.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tuning.planning.weights_file import FOLDER

ROOT = Path(__file__).parents[2]
RESULTS, DOCS = ROOT / "benchmarks" / "results" / "policies.json", ROOT / "docs" / "learning.md"
BEGIN, END = "<!-- policies:begin -->", "<!-- policies:end -->"
NEAR = 0.2
"""Minutes within which two policies did equally well."""
LEARNED = ("ppo", "evolved")


def main() -> int:
    drawn = json.loads(RESULTS.read_text(encoding="utf-8"))["drawn"]
    trained = {name: json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["trained"] for name in LEARNED}
    between(DOCS, lines(drawn, trained))
    return 0


def between(path: Path, text: Sequence[str]) -> None:
    """Replaces what stands between the markers. Raises ValueError where the page has none."""
    page = path.read_text(encoding="utf-8")
    if BEGIN not in page or END not in page:
        raise ValueError(f"{path} has no {BEGIN} and {END}: nowhere to put the figures")
    head, rest = page.split(BEGIN)
    path.write_text("\n".join([head + BEGIN, *text, END + rest.split(END)[1]]), encoding="utf-8")


def lines(drawn: Mapping[str, Any], trained: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The page's part, line by line."""
    kinds, won = drawn["kinds"], wins(drawn)
    names = list(drawn["policies"])
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return [
        f"{drawn['cases']} drawn incidents of the report's stream ({counted}), on which nothing was chosen",
        "(benchmarks/results/policies.json):",
        "",
        "| policy | cured by its first change | within two | wrong changes | minutes over the SLO, all (curable) | "
        "replica-hours | fewest minutes, of the curable |",
        "|---|---|---|---|---|---|---|",
        *(_policy(name, drawn["policies"][name], won[name], kinds.get("curable", 0)) for name in names),
        "",
        "Minutes over the SLO of the curable incidents by what went wrong, alone or in a pair:",
        "",
        f"| trouble | incidents | {' | '.join(names)} |",
        f"|---|---|{'---|' * len(names)}",
        *(_trouble(name, *found, names) for name, found in by_trouble(drawn).items()),
        "",
        *(_compared(name, *against(drawn, name, "slotune")) for name in LEARNED),
        "",
        *(_trained(name, found) for name, found in trained.items()),
    ]


def wins(drawn: Mapping[str, Any]) -> dict[str, int]:
    """In how many curable incidents a policy had the fewest minutes, to NEAR: several may. The oracle is no rival."""
    curable = [case for case in drawn["by_case"].values() if "curable" in case["kind"]]
    names = next(iter(drawn["by_case"].values()))["slo_violation_min"]
    counts = dict.fromkeys(names, 0)
    for case in curable:
        minutes = case["slo_violation_min"]
        least = min(value for name, value in minutes.items() if name != "oracle")
        for name, value in minutes.items():
            counts[name] += value <= least + NEAR
    return counts


def against(drawn: Mapping[str, Any], name: str, other: str, seed: int = 1) -> tuple[float, float, float]:
    """Minutes over the SLO of one policy over those of another, on the curable incidents: (ratio, low, high), with the
    95 % bootstrap interval over incidents."""
    cases = [case["slo_violation_min"] for case in drawn["by_case"].values() if "curable" in case["kind"]]
    both = np.array([[case[name], case[other]] for case in cases])
    picks = np.random.default_rng(seed).integers(len(both), size=(4000, len(both)))
    again = both[picks].sum(axis=1)
    ratios = again[again[:, 1] > 0]
    low, high = np.quantile(ratios[:, 0] / ratios[:, 1], [0.025, 0.975])
    return float(both[:, 0].sum() / both[:, 1].sum()), float(low), float(high)


def by_trouble(drawn: Mapping[str, Any]) -> dict[str, tuple[int, dict[str, float]]]:
    """(curable incidents, minutes by policy) of each thing that went wrong."""
    found: dict[str, tuple[int, dict[str, float]]] = {}
    for case in drawn["by_case"].values():
        if "curable" not in case["kind"]:
            continue
        for trouble in case["drawn"].split(" + "):
            count, sums = found.get(trouble, (0, {}))
            minutes = case["slo_violation_min"]
            found[trouble] = count + 1, {name: round(sums.get(name, 0.0) + minutes[name], 1) for name in minutes}
    return dict(sorted(found.items()))


def _policy(name: str, figures: Mapping[str, Any], won: int, curable: int) -> str:
    shares = " | ".join(_percent(figures[k]) for k in ("first_change_resolved", "within_two_resolved", "wrong_actions"))
    minutes = f"{figures['slo_violation_min']:.0f} ({figures['slo_violation_min_curable']:.0f})"
    return f"| {name} | {shares} | {minutes} | {figures['replica_hours']:.1f} | {won} of {curable} |"


def _trouble(name: str, count: int, minutes: Mapping[str, float], names: Sequence[str]) -> str:
    return f"| {name} | {count} | {' | '.join(f'{minutes[n]:.1f}' for n in names)} |"


def _compared(name: str, ratio: float, low: float, high: float) -> str:
    told = "more" if low > 1 else "less" if high < 1 else "no difference that so few incidents could show"
    return (
        f"`{name}` against slotune, minutes over the SLO on the curable ones: {ratio:.2f} times as many (95 % "
        f"bootstrap interval {low:.2f} to {high:.2f}): {told}."
    )


def _trained(name: str, found: Mapping[str, Any]) -> str:
    check = found["check"]
    return (
        f"`{name}`: {found['told']}; in the fluid service, on {found['check_incidents']} others of that stream, "
        f"{check['minutes']:.1f} minutes over the SLO, {check['changes']:.1f} changes and {100 * check['cured']:.0f} % "
        "cured an incident."
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


if __name__ == "__main__":
    raise SystemExit(main())
