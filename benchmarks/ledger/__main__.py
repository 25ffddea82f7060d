"""The commands that read the history, as a person runs them, on an SQLite ledger of a million records.

    python -m benchmarks.ledger [--records 1000000] [--repeats 15]

Measured is the CPU time (user + system) of the whole process, interpreter and imports included, and the wall time
beside it. Prints a table; writes benchmarks/results/ledger.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tuning.ledger import SqlLedger

RESULTS = Path(__file__).parents[1] / "results" / "ledger.json"
LIMIT_MS = 300.0
SERVICES = 200
STORY = (
    ("open_incidents", "result"),
    ("choose_action", "result"),
    ("adjust_batch_size", "intent"),
    ("adjust_batch_size", "result"),
    ("verify_p95", "result"),
    ("keep", "result"),
    ("email_report", "intent"),
    ("email_report", "result"),
    ("open_incidents", "closed"),
)
INSERT = (
    "INSERT INTO records (id, kind, phase, service, parent_id, incident_id, at_s, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


def rows(records: int) -> Iterator[tuple[object, ...]]:
    """Incidents of SERVICES services with the records of a whole story each, in the order in which they happened."""
    for number in range(records):
        incident, step = divmod(number, len(STORY))
        kind, phase = STORY[step]
        incident_id, service = f"incident-{incident:08d}", f"service-{incident % SERVICES:03d}"
        at_s = 1.7e9 + 60.0 * incident + step
        parent = incident_id if step else None
        yield (f"{incident_id}:{step}" if step else incident_id, kind, "result" if phase == "closed" else phase,
               service, parent, incident_id, at_s, json.dumps(_body(kind, phase, incident_id, at_s)))  # fmt: skip


def _body(kind: str, phase: str, incident_id: str, at_s: float) -> dict[str, object]:
    """About as large as the real ones: a report carries its timeline."""
    change = {"lever": "batch_size", "old": {"batch_size": 1}, "new": {"batch_size": 8}}
    if phase == "closed":
        return {"closed": True, "reason": "no anomaly seen any more"}
    if kind == "open_incidents":
        return {"id": incident_id, "symptom": "latency", "severity": "major", "tier": "act", "opened_at_s": at_s,
                "detected_at_s": at_s, "reason": "P95 is 512 ms, its objective is 150 ms."}  # fmt: skip
    if kind == "verify_p95":
        return {"verdict": "improved", "resolved": True, "p95_before_ms": 512.0, "p95_after_ms": 61.0}
    if kind == "keep":
        return {"step": "keep", "next": "done", "reason": "P95 fell and is under its objective."}
    if kind == "email_report" and phase == "intent":
        return {"timeline": [[at_s + i, 100.0 + i] for i in range(40)], "chosen": {"changes": [change]}}
    if phase == "result" and kind == "adjust_batch_size":
        moved = {"before": change["old"], "after": change["new"]}
        return {"lever": "batch_size", **moved, "applied": True, "changed": True}
    return {"id": incident_id, "chosen": {"changes": [change]}, "rejected": [{"reason": "x" * 80}] * 6, "reason": "r"}


def build(path: Path, records: int) -> None:
    SqlLedger.open(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as connection:
        connection.executemany(INSERT, rows(records))
    connection.close()


def measure(command: list[str], home: Path, repeats: int) -> dict[str, float]:
    """CPU (user + system) and wall milliseconds of the process: best and median of `repeats`."""
    program = Path(sys.executable).with_name("slotune")
    env = {**os.environ, "SLOTUNE_HOME": str(home)}
    env.pop("SLOTUNE_LEDGER_URL", None)
    cpu_ms, wall_ms = [], []
    for _ in range(repeats + 1):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([str(program), *command], env=env, stdout=subprocess.DEVNULL, check=True)
        wall_ms.append(1e3 * (time.perf_counter() - started))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_ms.append(1e3 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime))
    # The first run compiles what was never imported before and fills the disk's cache.
    cpu_ms, wall_ms = cpu_ms[1:], wall_ms[1:]
    return {
        "cpu_ms_median": round(statistics.median(cpu_ms), 1),
        "cpu_ms_best": round(min(cpu_ms), 1),
        "wall_ms_median": round(statistics.median(wall_ms), 1),
        "wall_ms_best": round(min(wall_ms), 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    last = f"incident-{arguments.records // len(STORY) - 2:08d}"
    commands = (["incidents"], ["incidents", "--service", "service-007"], ["incidents", "--json"], ["show", last],
                ["changes"])  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="slotune-ledger-") as temporary:
        home = Path(temporary)
        started = time.process_time()
        build(home / "ledger.sqlite", arguments.records)
        print(f"{arguments.records} records in {time.process_time() - started:.0f} CPU s")
        print(f"{'command':<40} CPU ms: median   best   wall ms: median   best")
        found = {}
        for command in commands:
            name = f"slotune {' '.join(command)}"
            found[name] = figures = measure(command, home, arguments.repeats)
            print(f"{name:<40} {figures['cpu_ms_median']:>14} {figures['cpu_ms_best']:>6} "
                  f"{figures['wall_ms_median']:>17} {figures['wall_ms_best']:>6}", flush=True)  # fmt: skip
        size = (home / "ledger.sqlite").stat().st_size
    fast = found["slotune incidents"]["cpu_ms_median"] < LIMIT_MS
    print(f"slotune incidents under {LIMIT_MS:g} ms of CPU time: {'yes' if fast else 'NO'}")
    body = {
        "command": " ".join(["python -m benchmarks.ledger", *sys.argv[1:]]),
        "records": arguments.records,
        "megabytes": round(size / 1e6),
        "repeats": arguments.repeats,
        "incidents_under_300_ms": fast,
        "commands": found,
    }
    RESULTS.write_text(json.dumps(body, indent=1) + "\n")
    return 0 if fast else 1


if __name__ == "__main__":
    sys.exit(main())
