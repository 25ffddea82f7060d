"""A ledger of a million records and a thousand services: the commands that read it, and what the loop asks of it.

    python -m benchmarks.ledger [--records 1000000] [--repeats 15]

Of a command: the CPU time (user + system) of the whole process, interpreter and imports included, and the wall time
beside it. Of a sweep and of the guards: the wall time of every call of the ledger, added up, on the loop's own code,
beside the baseline (the same questions where records are found by their id alone). Prints tables; writes
benchmarks/results/ledger.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.ledger import sweep
from benchmarks.ledger.years import SERVICES, build, service_name
from tuning.ledger.schema import records

RESULTS = Path(__file__).parents[1] / "results" / "ledger.json"
COMMAND_LIMIT_MS, SWEEP_LIMIT_MS, GUARD_LIMIT_MS = 300.0, 2000.0, 200.0
SERVICE = service_name(7)
INDEXES = [index.name for index in records.indexes if not index.unique]


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


def without_indexes(path: Path) -> Path:
    """A copy of the ledger that finds records by their id alone: the baseline."""
    copy = path.with_name("baseline.sqlite")
    shutil.copy(path, copy)
    with sqlite3.connect(copy) as connection:
        for name in INDEXES:
            connection.execute(f"DROP INDEX {name}")
    connection.close()
    return copy


def commands_of(home: Path, last: str, repeats: int) -> dict[str, dict[str, float]]:
    commands = (["incidents"], ["incidents", "--service", SERVICE], ["incidents", "--json"], ["show", last],
                ["changes"])  # fmt: skip
    print(f"{'command':<40} CPU ms: median   best   wall ms: median   best")
    found = {}
    for command in commands:
        name = f"slotune {' '.join(command)}"
        found[name] = figures = measure(command, home, repeats)
        print(f"{name:<40} {figures['cpu_ms_median']:>14} {figures['cpu_ms_best']:>6} "
              f"{figures['wall_ms_median']:>17} {figures['wall_ms_best']:>6}", flush=True)  # fmt: skip
    return found


def show(title: str, found: dict[str, dict[str, object]]) -> None:
    print(f"{title:<40} ledger ms  calls  longest ms")
    for name, one in found.items():
        print(f"{name:<40} {one['ledger_ms']:>9} {one['calls']:>6} {one['longest_ms']:>11}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="slotune-ledger-") as temporary:
        home = Path(temporary)
        started = time.process_time()
        end_s = build(home / "ledger.sqlite", arguments.records, time.time())
        print(f"{arguments.records} records in {time.process_time() - started:.0f} CPU s", flush=True)
        size = (home / "ledger.sqlite").stat().st_size
        commands = commands_of(home, "incident-00000100", arguments.repeats)
        queries = sweep.measure(home / "ledger.sqlite", end_s, 3)
        show("what the loop asks", queries)
        baseline = sweep.measure(without_indexes(home / "ledger.sqlite"), end_s + 60.0, 1)
        show("baseline: by id alone", baseline)
    reached = {
        f"slotune incidents under {COMMAND_LIMIT_MS:g} ms of CPU time":
            commands["slotune incidents"]["cpu_ms_median"] < COMMAND_LIMIT_MS,
        f"a sweep's own queries under {SWEEP_LIMIT_MS:g} ms":
            float(str(queries["one sweep"]["ledger_ms"])) < SWEEP_LIMIT_MS,
        f"the guards of a plan under {GUARD_LIMIT_MS:g} ms":
            all(float(str(one["ledger_ms"])) < GUARD_LIMIT_MS for name, one in queries.items() if "guards" in name),
    }  # fmt: skip
    for what, yes in reached.items():
        print(f"{what}: {'yes' if yes else 'NO'}")
    body = {
        "command": " ".join(["python -m benchmarks.ledger", *sys.argv[1:]]),
        "records": arguments.records,
        "services": SERVICES,
        "megabytes": round(size / 1e6),
        "repeats": arguments.repeats,
        "baseline": "the same ledger and questions with an index by id alone, as a plain table of records has it",
        "reached": reached,
        "commands": commands,
        "queries": queries,
        "queries_of_the_baseline": baseline,
    }
    RESULTS.write_text(json.dumps(body, indent=1) + "\n")
    return 0 if all(reached.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
