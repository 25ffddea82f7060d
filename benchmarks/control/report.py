"""What a run of the proving ground shows and keeps: tables, the failures line by line, and the document of figures."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.control import figures, headline, minutes
from benchmarks.control.score import Result


def show(title: str, results: Sequence[Result], *, failures: bool) -> None:
    """Tables of one part, and (failures) each incident in which slotune did not do what it should."""
    kinds = _kinds(results)
    print(f"\n{title}: {sum(kinds.values())} cases, {', '.join(f'{count} {kind}' for kind, count in kinds.items())}")
    print(figures.table(_policies(results)))
    mine = [r for r in results if r.policy == "slotune"]
    if not mine:
        return
    print("\n" + headline.text(headline.headline(results)))
    for phase, by_policy in _minutes(results).items():
        print(f"{phase:36s}", " ".join(f"{policy} {value:6.1f}" for policy, value in by_policy.items()))
    if not failures:
        return
    best = {(r.scenario, r.seed): r for r in results if r.policy == "oracle"}
    for r in mine:
        missed = [p for p in r.observed if not p[1] <= p[3] <= p[2]]
        bad = (r.kind == "curable" and not r.first) or (r.kind == "incurable" and not r.held_right) or r.wrong
        if bad or missed:
            print(_line(r, best.get((r.scenario, r.seed)), "interval" if not bad else "failed"))


def _line(r: Result, oracle: Result | None, mark: str) -> str:
    """One incident that went wrong: what was true, what was named and done, and what would have been right."""
    marks = f"{r.kind}{', WRONG' if r.wrong else ''}, {'/'.join(r.causes)}, named {r.cause or '-'}"
    seen = [tuple(round(x, 1) for x in pair) for pair in r.observed]
    right = f" | oracle: {'; '.join(oracle.texts) or 'nothing'}" if oracle is not None else ""
    return f"  {mark}: {r.scenario} #{r.seed} [{r.kinds}] {marks}: {'; '.join(r.texts) or 'nothing done'} {seen}{right}"


def document(results: Sequence[Result]) -> dict[str, object]:
    """The figures of one part, as they are kept."""
    cases: dict[str, dict[str, object]] = {}
    for r in results:
        entry = cases.setdefault(f"{r.scenario}", {"kind": [], "slotune_causes": [], "slo_violation_min": {}})
        if r.policy == "slotune":
            entry["drawn"] = r.kinds
            entry["kind"].append(r.kind)  # type: ignore[attr-defined]
            entry["slotune_causes"].append(r.cause)  # type: ignore[attr-defined]
        minutes = entry["slo_violation_min"]
        assert isinstance(minutes, dict)
        minutes[r.policy] = round(minutes.get(r.policy, 0.0) + r.violation_min, 1)
    return {
        "cases": len(headline.by_incident(results)),
        "seeds": len({r.seed for r in results}),
        "kinds": _kinds(results),
        "headline": headline.headline(results),
        "policies": _policies(results),
        "minutes": _minutes(results),
        "by_trouble": _by_trouble(results),
        "by_case": cases,
    }


def _minutes(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Minutes over the SLO of the curable incidents, by phase and policy."""
    curable = [r for r in results if r.kind == "curable"]
    names = list(dict.fromkeys(r.policy for r in curable))
    sums = {name: minutes.total([r.spent for r in curable if r.policy == name]) for name in names}
    return {phase: {name: sums[name][phase] for name in names} for phase in minutes.PHASES}


def _by_trouble(results: Sequence[Result]) -> dict[str, dict[str, object]]:
    """How slotune did with each thing that can go wrong, alone or in a pair."""
    found: dict[str, list[Result]] = {}
    for r in results:
        if r.policy == "slotune":
            for trouble in r.kinds.split(" + "):
                found.setdefault(trouble, []).append(r)
    return {trouble: _short(rows) for trouble, rows in sorted(found.items())}


def _short(rows: Sequence[Result]) -> dict[str, object]:
    curable = [r for r in rows if r.kind == "curable"]
    return {
        "cases": len(rows),
        "curable": len(curable),
        "first_change": sum(r.first for r in curable),
        "within_two": sum(r.second for r in curable),
        "wrong": sum(r.wrong for r in rows),
    }


def _policies(results: Sequence[Result]) -> dict[str, dict[str, object]]:
    names = list(dict.fromkeys(r.policy for r in results))
    return {name: figures.figures([r for r in results if r.policy == name]) for name in names}


def _kinds(results: Sequence[Result]) -> dict[str, int]:
    kinds = [rows[next(iter(rows))].kind for rows in headline.by_incident(results)]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}
