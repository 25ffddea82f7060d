"""The fault campaign in full; writes benchmarks/results/faults.json.

python -m tests.faults [--share 1/3]            the loop's functions in killed processes (--run: under `slotune run`)
python -m tests.faults --borders                real clients, and what HTTP, SMTP and a database do wrong
python -m tests.faults --airflow [--rounds 4]   kill -9 of Airflow's own processes (goes on where it was left)
python -m tests.faults --hostile [--minutes 60] a fleet of fifty services of which ten are hostile, on a simulated clock
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults import results
from tests.faults.campaign import SCENARIOS, Fault, Result, faults, play, steps_of, warm_up

if TYPE_CHECKING:
    from tests.faults.borders import BorderFault


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="only each so-many-th step")
    parser.add_argument("--only", default="", help="only faults whose text contains this")
    parser.add_argument("--share", default="1/1", help="only the i-th of n shares: i/n")
    parser.add_argument("--run", action="store_true", help="the loop is driven by `slotune run`")
    parser.add_argument("--jobs", type=int, default=2, help="how many faults at once")
    parser.add_argument("--keep", type=Path, help="keep every fault's files in this folder")
    parser.add_argument("--borders", action="store_true", help="faults of real sockets at the borders")
    parser.add_argument("--airflow", action="store_true", help="kill Airflow's own processes")
    parser.add_argument("--hostile", action="store_true", help="a fleet with hostile services")
    parser.add_argument("--rounds", type=int, default=4, help="--airflow: at most so many Airflows one after the other")
    parser.add_argument(
        "--minutes", type=float, help="--airflow: how long stories begin in one round (5.5); --hostile: simulated (60)"
    )
    parser.add_argument("--fresh", action="store_true", help="--airflow: forget what earlier rounds have struck")
    arguments = parser.parse_args()
    if arguments.airflow:
        from tests.faults.airflow_rounds import play_rounds

        return play_rounds(arguments.rounds, arguments.minutes or 5.5, fresh=arguments.fresh, keep=arguments.keep)
    if arguments.hostile:
        return hostile_fleet(arguments.minutes or 60.0)
    return border_campaign(arguments) if arguments.borders else loop_campaign(arguments)


def hostile_fleet(minutes: float) -> int:
    from tests.faults.hostile import HOSTILE, START_S, play_hostile

    logging.disable(logging.CRITICAL)
    started, good = time.perf_counter(), 40
    with tempfile.TemporaryDirectory(prefix="slotune-hostile-") as folder:
        found = play_hostile(Path(folder), good=good, minutes=minutes)
    end_s = START_S + 60.0 * minutes
    part = {
        "command": " ".join(["python -m tests.faults", *sys.argv[1:]]),
        "what": "the loop's functions and real clients over a fleet on a simulated clock; hostile endpoints and metrics",
        "services": good + len(HOSTILE),
        "hostile": list(HOSTILE),
        "minutes": minutes,
        "sweeps": len(found.late_s),
        "latest_sweep_s": max(found.late_s),
        "longest_sweep_s": max(found.took_s),
        "longest_unseen_s": max(found.longest_unseen_s(f"good-{i:02d}", end_s) for i in range(good)),
        "cured": len(found.cured),
        "mails": found.mails_sent,
        "took_s": round(time.perf_counter() - started, 1),
        "wrong": found.wrong(good, minutes),
    }
    print(json.dumps(part, indent=1))
    results.keep("hostile fleet", part)
    return 1 if part["wrong"] else 0


def border_campaign(arguments: argparse.Namespace) -> int:
    from tests.faults.borders import border_faults

    logging.disable(logging.CRITICAL)
    started = time.perf_counter()
    wanted = [fault for fault in border_faults() if arguments.only in fault.text()][:: arguments.every]
    with tempfile.TemporaryDirectory(prefix="slotune-borders-") as temporary:
        folder = arguments.keep or Path(temporary)
        found = _play_all(
            _play_border, [(fault, folder / f"{n:04d}") for n, fault in enumerate(wanted)], arguments.jobs
        )
    kinds = dict(Counter(f"{fault.border} {fault.flavour}" for fault in wanted))
    what = "the loop with its real HTTP, SMTP and SQLite clients against sockets that misbehave, on a simulated clock"
    part = summary(found, time.perf_counter() - started) | {"what": what, "faults_by_kind": kinds}
    print(json.dumps(part, indent=1))
    if not arguments.only:
        results.keep("borders", part)
    return 1 if part["wrong"] else 0


def _play_border(what: tuple[BorderFault, Path]) -> Result:
    from tests.faults.borders import play_border

    return play_border(*what)


def _play_all(play_one: Callable[[Any], Result], wanted: Sequence[tuple[Any, Path]], jobs: int) -> list[Result]:
    """Every fault in a pool of processes; what is found wrong is printed at once."""
    found: list[Result] = []
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        for result in pool.imap(play_one, wanted):
            found.append(result)
            if result.wrong():
                print(f"{len(found) - 1:04d} {result.fault.text()}: {'; '.join(result.wrong())}", flush=True)
    return found


def loop_campaign(arguments: argparse.Namespace) -> int:
    logging.disable(logging.CRITICAL)
    started = time.perf_counter()
    share, shares = (int(number) for number in arguments.share.split("/"))
    with tempfile.TemporaryDirectory(prefix="slotune-faults-") as temporary:
        folder = arguments.keep or Path(temporary)
        warm_up(folder / "warm-up")
        steps = {s.name: steps_of(s, folder / f"plain {s.name}") for s in SCENARIOS}
        print(f"steps of the story: {steps}")
        wanted = [f for f in faults(steps, every=arguments.every) if arguments.only in f.text()][share - 1 :: shares]
        wanted = [replace(fault, drive="slotune run") for fault in wanted] if arguments.run else wanted
        places = [
            folder / f"{number:04d}-{fault.kind}-{fault.flavour}-{fault.at}" for number, fault in enumerate(wanted)
        ]
        found = _play_all(_play, list(zip(wanted, places, strict=True)), arguments.jobs)
    part = summary(found, time.perf_counter() - started) | {"kill_points": steps}
    print(json.dumps(part, indent=1))
    if not arguments.only:
        name = "slotune run" if arguments.run else "loop"
        results.keep(name if shares == 1 else f"{name} {share}/{shares}", part)
    return 1 if any(result.wrong() for result in found) else 0


def _play(what: tuple[Fault, Path]) -> Result:
    return play(*what)


def summary(found: list[Result], took_s: float) -> dict[str, object]:
    return {
        "command": " ".join(["python -m tests.faults", *sys.argv[1:]]),
        "what": "the loop's functions in killed processes, an SQLite ledger, a simulated service that outlives them",
        "faults": len(found),
        "faults_by_kind": dict(Counter(result.fault.kind for result in found)),
        "struck": sum(result.struck for result in found),
        "orphan_changes": sum(len(result.orphan) for result in found),
        "double_changes": sum(len(result.double) for result in found),
        "unproven": sum(len(result.unproven) for result in found),
        "lost_records": sum(len(result.lost) for result in found),
        "over_rollback_time": sum(len(result.over_time) for result in found),
        "broken": sum(len(result.broken) for result in found),
        "changes_made": sum(result.landings for result in found),
        "took_s": round(took_s, 1),
        "wrong": [f"{result.fault.text()}: {'; '.join(result.wrong())}" for result in found if result.wrong()],
    }


if __name__ == "__main__":
    sys.exit(main())
