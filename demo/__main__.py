"""`python -m demo`: find a real slowdown, fix it, prove it, mail the proof."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import resource
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from demo.processes import DemoError, adopt_orphans
from demo.scenarios import SCENARIOS
from demo.screen import Screen
from demo.stack import Stack, leave_measured_core
from demo.supervisor import Supervisor, repository_root


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make demo", description="Finds a real slowdown, fixes it, proves it, mails the proof.",
        epilog="scenarios: " + "; ".join(f"{s.name}: {s.title}" for s in SCENARIOS.values()))  # fmt: skip
    parser.add_argument("--scenario", choices=sorted(SCENARIOS), default="batch")
    parser.add_argument("--once", action="store_true", help="leave when done (else Airflow stays up until Ctrl-C)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write a machine-readable summary")
    parser.add_argument("--seed", type=int, default=0, help="seed of the load and of the emulated accelerator")
    parser.add_argument("--duration", type=float, metavar="S", help="wait at most this long after the fault")
    parser.add_argument(
        "--baseline", type=float, metavar="SHARE", help="load before the fault, as a share of what the service carries")
    parser.add_argument("--without-airflow", action="store_true", help="the same loop in a plain process: quicker")
    parser.add_argument(
        "--executor", choices=("standalone", "celery"), default="standalone",
        help="celery: two Celery workers, PostgreSQL and Redis instead of `airflow standalone` on SQLite")  # fmt: skip
    parser.add_argument("--home", type=Path, default=repository_root() / ".demo", help="where the demo keeps its files")
    args = parser.parse_args(argv)
    if args.without_airflow and SCENARIOS[args.scenario].mode == "approve":
        parser.error(f"--scenario {args.scenario} needs Airflow: a person answers on its page")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    args.home.mkdir(parents=True, exist_ok=True)
    with (args.home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f"another demo runs in {args.home}; stop it first or give --home", file=sys.stderr)
            return 2
        return demonstrate(args)


def demonstrate(args: argparse.Namespace) -> int:
    adopt_orphans()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    scenario = SCENARIOS[args.scenario]
    if args.baseline is not None:
        scenario = replace(scenario, baseline=args.baseline)
    stack = Stack(
        repository_root(), args.home.resolve(), scenario, args.seed, with_airflow=not args.without_airflow,
        executor=args.executor)  # fmt: skip
    leave_measured_core(stack.cpu)
    code = 1
    with Screen() as screen:
        supervisor = Supervisor(stack, screen, args.duration or scenario.duration_s)
        try:
            code = _run(supervisor, args)
            if not args.once:
                screen.close()
                address = supervisor.facts.airflow_url
                stays = f"Airflow stays up at {address} (admin/admin)" if address else "The loop goes on"
                print(f"{stays}; Ctrl-C ends everything.", flush=True)
                _stay(stack)
        except KeyboardInterrupt:
            code = 130 if args.once else code
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)  # stopping in order must not be cut short
            screen.now("stopping", 1.0, "")
            left = stack.stop()
            if left and os.environ.get("SLOTUNE_DEMO_DEBUG"):
                screen.say(f"had to end: {', '.join(left)}")
    return code


def _run(supervisor: Supervisor, args: argparse.Namespace) -> int:
    summary: dict[str, Any] = {}
    try:
        summary = supervisor.run()
    except DemoError as failure:
        supervisor.facts.error = str(failure)
        summary = supervisor.summary()
        print(f"The demo stopped: {failure}", file=sys.stderr)
    supervisor.tell(summary)
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(summary, indent=2) + "\n")
    return 0 if summary["ok"] else 1


def _stay(stack: Stack) -> None:
    try:
        while True:
            stack.check()
            time.sleep(1.0)
    except DemoError as failure:
        print(failure, file=sys.stderr)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
