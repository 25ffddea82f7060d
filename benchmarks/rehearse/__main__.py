"""`python -m benchmarks.rehearse`: rehearsals against what the live loop then achieves on the same arrivals.

Every drawn incident of benchmarks.control runs twice: undisturbed, which is recorded and rehearsed, and under the live
loop, which is the truth. The report's incidents are numbers of their stream that no other benchmark uses and that
nothing was chosen on. Finished cases are kept in `--keep FOLDER`, and a run goes on from them. A whole report writes
benchmarks/results/rehearse.json. `--days 30 --services 50`: what a rehearsal of so much costs, instead (written to
benchmarks/results/rehearse-cost.json).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.control.cases import Case
from benchmarks.control.runs import STEP_S
from benchmarks.rehearse import cost
from benchmarks.rehearse.live import SETTLED_S, Recorded, live, settings_of, undisturbed
from slotune.rehearsal.study import minutes_over, study

RESULTS = Path(__file__).parent.parent / "results" / "rehearse.json"
COST = RESULTS.with_name("rehearse-cost.json")
COUNT, FIRST = 20, 1000
WHOLE = 30.0, 50
_LEAST_MIN = 1.0
"""Below so many minutes a relative error says nothing."""


@dataclass(frozen=True)
class Row:
    """One incident. Minutes over the SLO: as recorded, of the live loop, and forecast with its interval. changed: the
    live loop, or the rehearsal, changed something. same_first: both began with the same change, or with none."""

    case: str
    recorded_min: float
    live_min: float
    forecast_min: float
    low_min: float
    high_min: float
    changed: bool
    same_first: bool
    how: tuple[str, ...]
    off: float | None
    seconds: float


def one(case: Case) -> Row | None:
    """None where the history is no ground for a rehearsal (nothing is scraped, for example)."""
    scenario = case.scenario()
    idle, truth = undisturbed(scenario, case.seed), live(scenario, case.seed)
    began = time.process_time()
    try:
        found = study(settings_of(scenario), {"simulated": idle.history}, case.name, lambda _share: None, rivals=False)
    except Exception as error:  # a case that breaks is counted, not hidden
        if "nothing can be rehearsed" in str(error):
            return None
        raise
    service = found.rehearsal.services[0]
    skip = int(SETTLED_S / STEP_S)
    offs = [i.off for i in service.incidents if i.off is not None]
    mine, theirs = _changes(found.rehearsed.records), _changes(truth.ledger)
    return Row(
        case=f"{case.stream} {case.number}" if hasattr(case, "number") else case.name,
        recorded_min=service.recorded_min,
        live_min=minutes_over(truth.history.window.values["p95_ms"][skip:], scenario.slo_ms, STEP_S),
        forecast_min=service.minutes.value,
        low_min=service.minutes.low,
        high_min=service.minutes.high,
        changed=bool(mine or theirs),
        same_first=mine[:1] == theirs[:1],
        how=tuple(i.how for i in service.incidents),
        off=max(offs) if offs else None,
        seconds=time.process_time() - began,
    )


def _changes(records: Recorded | object) -> list[str]:
    """The plans that changed something, as texts, in their order."""
    from slotune.rehearsal.episodes import episodes

    made = [
        (attempt.first_made_s, attempt.plan.chosen.text())
        for episode in episodes(records)  # type: ignore[arg-type]
        for attempt in episode.attempts
        if attempt.first_made_s is not None
    ]
    return [text for _, text in sorted(made)]


def figures(rows: list[Row], dropped: int) -> dict[str, object]:
    """What the report says. Only incidents that can be told count; where nothing was changed nothing is modelled."""
    told = [r for r in rows if "cannot tell" not in r.how]
    changed = [r for r in told if r.changed]
    large = [r for r in told if r.live_min >= _LEAST_MIN]
    both = [r for r in changed if r.live_min >= _LEAST_MIN]
    return {
        "incidents": len(rows),
        "no_ground": dropped,
        "cannot_tell": len(rows) - len(told),
        "changed": len(changed),
        "median_error": _error(large),
        "median_error_changed": _error(both),
        "over_20_percent_changed": _share([abs(r.forecast_min / r.live_min - 1) > 0.2 for r in both]),
        "coverage_changed": _share([r.low_min - 1e-9 <= r.live_min <= r.high_min + 1e-9 for r in changed]),
        "same_first_change": _share([r.same_first for r in changed]),
        "forecast_min": sum(r.forecast_min for r in changed),
        "live_min": sum(r.live_min for r in changed),
        "recorded_min": sum(r.recorded_min for r in changed),
        "cpu_s_each": float(np.median([r.seconds for r in rows])) if rows else None,
    }


def _error(rows: list[Row]) -> float | None:
    return float(np.median([abs(r.forecast_min / r.live_min - 1) for r in rows])) if rows else None


def _share(values: list[bool]) -> float | None:
    return float(np.mean(values)) if values else None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rehearse", description=__doc__)
    parser.add_argument("--stream", choices=("dev", "report"), default="report")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--first", type=int, default=None, help="number of the first incident of the stream")
    parser.add_argument("--keep", type=Path, default=None, help="folder of finished cases")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no further case after so long")
    parser.add_argument("--json", type=Path, default=None, help="where the figures go (default: benchmarks/results)")
    parser.add_argument("--days", type=float, default=None, help="what a rehearsal of so many days costs, instead")
    parser.add_argument("--services", type=int, default=1, help="with --days: how many services")
    parser.add_argument("--jobs", type=int, default=2, help="with --days: how many at once")
    args = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if args.days is not None:
        return _cost(args.days, args.services, args.jobs, args.keep)
    first = args.first if args.first is not None else (FIRST if args.stream == "report" else 0)
    rows, dropped, began = [], 0, time.monotonic()
    for number in range(first, first + args.count):
        if time.monotonic() - began > 60 * args.minutes:
            print(f"{number - first} of {args.count} cases are done; run the same command again for the rest")
            break
        row = _kept(args.keep, Case(args.stream, number), number)
        if row is None:
            dropped += 1
        else:
            rows.append(row)
            if args.stream == "dev":
                print(f"{number}: {row}", flush=True)
        if sys.stderr.isatty():
            print(f"\r{number - first + 1}/{args.count} cases", end="", file=sys.stderr)
    found = figures(rows, dropped)
    print(json.dumps(found, indent=1))
    whole = args.stream == "report" and len(rows) + dropped == COUNT and first == FIRST
    if (path := args.json or (RESULTS if whole else None)) is not None:
        command = f"python -m benchmarks.rehearse --stream {args.stream} --first {first} --count {len(rows) + dropped}"
        body = {"command": command, "simulated": True, **found, "rows": [asdict(row) for row in rows]}
        path.write_text(json.dumps(body, indent=1) + "\n")
    return 0


def _cost(days: float, services: int, jobs: int, keep: Path | None) -> int:
    """Prints what a rehearsal costs; the whole (WHOLE, nothing kept from before) is written down."""
    with tempfile.TemporaryDirectory(prefix="slotune-cost-") as own:
        found = cost.measure(days, services, jobs, keep or Path(own))
    print(json.dumps(asdict(found), indent=1))
    if (days, services) == WHOLE and not found.kept:
        command = f"python -m benchmarks.rehearse --days {days:g} --services {services} --jobs {jobs}"
        COST.write_text(json.dumps({"command": command, **asdict(found)}, indent=1) + "\n")
    return 0


def _kept(folder: Path | None, case: Case, number: int) -> Row | None:
    """The row of a case, from an earlier run where there is one."""
    file = folder / f"{case.stream}-{number}.json" if folder is not None else None
    if file is not None and file.is_file():
        body = json.loads(file.read_text())
        return None if body is None else Row(**{**body, "how": tuple(body["how"])})
    row = one(case)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(None if row is None else asdict(row)))
    return row


if __name__ == "__main__":
    raise SystemExit(main())
