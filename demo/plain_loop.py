"""The same loop without Airflow, in a process of its own: the quick way to try a scenario (`--without-airflow`).

`python -m demo.plain_loop --sweeps FILE --every 10` sweeps and tunes until it is told to stop; it reads the
environment that Airflow's tasks would read (SLOTUNE_CONFIG, SLOTUNE_HOME, SLOTUNE_CONN_*).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

from demo.processes import Child


class PlainLoop:
    """What the supervisor asks of Airflow, answered for the plain loop."""

    url = "http://127.0.0.1:0"

    def __init__(self, repository: Path, folder: Path, log: Path, env: Mapping[str, str]) -> None:
        self._repository, self._sweeps, self._log = repository, folder / "sweeps", log
        self._failures = folder / "failed-sweeps"
        self._env = {**os.environ, **env}
        self._child: Child | None = None

    def start(self) -> None:
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "demo.plain_loop",
            "--sweeps",
            self._sweeps,
            "--failures",
            self._failures,
        ]
        self._child = Child("the loop", command, self._log, env=self._env, cwd=self._repository)

    def ready(self) -> bool:
        self.check()
        return True

    def sweeps(self) -> int:
        return int(self._sweeps.read_text()) if self._sweeps.is_file() else 0

    def import_errors(self) -> list[str]:
        return []

    def task_failures(self) -> list[str]:
        return self._failures.read_text().splitlines() if self._failures.is_file() else []

    def check(self) -> None:
        if self._child is not None:
            self._child.check()

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.plain_loop", description="The loop without Airflow.")
    parser.add_argument("--sweeps", type=Path, required=True, help="file that holds how many sweeps are done")
    parser.add_argument("--failures", type=Path, required=True, help="file with a line per sweep that failed")
    parser.add_argument("--every", type=float, default=10.0)
    args = parser.parse_args()
    from slotune.compose import build, environment_connections, load_settings
    from tuning.loop.once import run_once

    parts = build(load_settings(), environment_connections())
    done = 0
    while True:
        started = time.monotonic()
        try:
            run_once(parts, time.time, lambda until: time.sleep(max(0.0, until - time.time())))
        except Exception as failure:  # the next sweep tries again, as the next run of a DAG would
            traceback.print_exc()
            with args.failures.open("a") as out:
                out.write(f"{type(failure).__name__}: {failure}".replace("\n", " ") + "\n")
        done += 1
        args.sweeps.write_text(str(done))
        time.sleep(max(0.0, args.every - (time.monotonic() - started)))


if __name__ == "__main__":
    sys.exit(main())
