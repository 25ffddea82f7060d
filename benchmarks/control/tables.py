"""The figures as tables in docs/planning.md, between their markers: nobody copies a number by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.control.cells import ROOT
from benchmarks.control.headline import RATIOS

DOCS = ROOT / "docs" / "planning.md"
BEGIN, END = "<!-- control:begin -->", "<!-- control:end -->"

HEADLINE = {
    "first_change": "curable incidents that end with the first change",
    "within_two": "... within two changes",
    "hold_right": "incurable ones held, with the true cause named",
    "cause_right": "true cause named, of all that were incidents",
    "wrong": "wrong changes, of all changes",
    "left_alone_where_needless": "left alone where nothing was needed",
    "paid_where_free_cures": "paid where a free option cures",
    "violation_min_of_hpa": "minutes over the SLO (curable), against HPA",
    "violation_min_of_ladder": "... against the ladder",
    "violation_min_of_oracle": "... against the oracle",
    "replica_hours_of_hpa": "replica-hours, against HPA",
    "replica_hours_added_of_hpa": "replica-hours on top of the service's own, against HPA",
    "interval_covers": "observed P95 inside the 90 % interval",
    "within_20_percent": "observed P95 within 20 % of the predicted",
}


def write(document: Mapping[str, Any], path: Path = DOCS) -> None:
    """Replaces what stands between the markers.

    Raises ValueError where the page has no markers.
    """
    text = path.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{path} has no {BEGIN} and {END}: nowhere to put the figures")
    head, rest = text.split(BEGIN)
    path.write_text("\n".join([head + BEGIN, *_lines(document), END + rest.split(END)[1]]), encoding="utf-8")


def _lines(document: Mapping[str, Any]) -> list[str]:
    """Only of the parts that were measured."""
    lines: list[str] = []
    if drawn := document.get("drawn"):
        lines += _drawn(drawn)
    if named := document.get("named"):
        count = len(named["by_case"])
        lines += [f"The regression table: {count} named scenarios x {named['seeds']} seeds ({_kinds(named)}):", ""]
        lines += [*_policies(named["policies"]), ""]
    if planning := document.get("planning"):
        lines += [
            f"One `slotune plan` costs {planning['slotune_plan_cpu_s']} CPU seconds with the start of Python, "
            f"{planning['incidents']} incidents in one process {planning['incidents_cpu_s']}."
        ]
    return lines


def _drawn(drawn: Mapping[str, Any]) -> list[str]:
    return [
        f"{drawn['cases']} drawn incidents on which nothing was chosen ({_kinds(drawn)}), with 95 % bootstrap",
        "intervals over incidents (benchmarks/results/control.json):",
        "",
        "| figure | value | interval | of |",
        "|---|---|---|---|",
        # A figure that needs a policy that was left out is left out as well.
        *(_figure(n, title, drawn["headline"][n]) for n, title in HEADLINE.items() if n in drawn["headline"]),
        "",
        *_policies(drawn["policies"]),
        "",
        *_spent(drawn.get("minutes", {})),
        "By what went wrong, alone or in a pair (changes of slotune):",
        "",
        "| trouble | incidents | curable | first change | within two | wrong |",
        "|---|---|---|---|---|---|",
        *(_trouble(name, found) for name, found in drawn["by_trouble"].items()),
        "",
    ]


def _kinds(part: Mapping[str, Any]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in part["kinds"].items())


def _figure(name: str, title: str, found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return f"| {title} | - | - | 0 |"
    shown = _ratio if name in RATIOS else _percent
    return f"| {title} | {shown(found['value'])} | {shown(found['low'])} to {shown(found['high'])} | {found['of']:g} |"


def _policies(policies: Mapping[str, Any]) -> list[str]:
    return [
        "| policy | first change | within two | resolved | wrong | SLO-violation min (curable) | replica-hours | "
        "resolved after, p50 / p90 s |",
        "|---|---|---|---|---|---|---|---|",
        *(_policy(name, f) for name, f in policies.items()),
    ]


def _policy(name: str, f: Mapping[str, Any]) -> str:
    times = f["time_to_resolve_s"]
    shares = " | ".join(_percent(f[key]) for key in ("first_change_resolved", "within_two_resolved", "resolved"))
    after = " / ".join("-" if times[key] is None else f"{times[key]:.0f}" for key in ("p50", "p90"))
    minutes = f"{f['slo_violation_min']:.0f} ({f['slo_violation_min_curable']:.0f})"
    return f"| {name} | {shares} | {_percent(f['wrong_actions'])} | {minutes} | {f['replica_hours']:.1f} | {after} |"


def _spent(minutes: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Nothing where no incident was curable."""
    names = list(next(iter(minutes.values()), {}))
    if not names:
        return []
    return [
        "Where the minutes over the SLO of the curable incidents go:",
        "",
        f"| minutes | {' | '.join(names)} |",
        f"|---|{'---|' * len(names)}",
        *(f"| {phase} | {' | '.join(f'{found[n]:.1f}' for n in names)} |" for phase, found in minutes.items()),
        "",
    ]


def _trouble(name: str, found: Mapping[str, Any]) -> str:
    of = found["curable"]
    return f"| {name} | {found['cases']} | {of} | {found['first_change']} | {found['within_two']} | {found['wrong']} |"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
