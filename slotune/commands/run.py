"""`slotune run`: the whole loop without Airflow. `slotune approve`: a yes or no to a plan that it asks about."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from detection.errors import ConfigError
from slotune.person import person

if TYPE_CHECKING:
    from slotune.runner import Runner
    from tuning.loop.parts import Parts

_LEAST_S = 5.0
_AT_ONCE = 32
"""Attempts at the same time: they mostly wait; `safety.services_at_once` bounds what is changed."""


def register(app: typer.Typer) -> None:
    """Adds the subcommands."""
    app.command("run")(run)
    app.command("approve")(approve)


def run(
    every: Annotated[
        str, typer.Option("--every", help="Between two sweeps, such as 30s or 5m (default: watch_every).")
    ] = "",
    once: Annotated[
        bool, typer.Option("--once", help="One sweep and what follows from it, to its end; 1 if it failed.")
    ] = False,
    service: Annotated[
        list[str] | None, typer.Option("--service", help="Only this service; may be given several times.")
    ] = None,
) -> None:
    """Run the whole loop here, without Airflow: sweep, tune, verify, keep or roll back, mail. Ctrl-C ends it.

    Safe beside an Airflow that runs, and beside another `slotune run`, on the same ledger.
    """
    every_s = _interval(every) if every else None
    stop = threading.Event()
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="attempt") as executor:
        runner = _runner(executor, stop, every_s, tuple(service or ()))
        _parts()  # a file or a connection that is wrong is told before anything begins
        _say("The loop runs here; Ctrl-C ends it." if not once else "One sweep.")
        beating = threading.Thread(target=_beats, args=(runner, stop), daemon=True, name="beat")
        beating.start()
        before = {number: signal.signal(number, _stopper(runner, stop)) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            if once:
                runner.turn()
                _ended(runner, stop)
            else:
                runner.forever()
        finally:
            stop.set()
            for number, handler in before.items():
                signal.signal(number, handler)
    if once and runner.failures:
        raise typer.Exit(1)


def approve(
    plan: Annotated[str, typer.Argument(help="The plan's id, as `slotune run` and the page show it.")],
    no: Annotated[bool, typer.Option("--no", help="Reject it: nothing is changed.")] = False,
    why: Annotated[str, typer.Option("--why", help="A reason; it stands in the report.")] = "",
) -> None:
    """Answer a plan that waits for a yes. The first answer counts, and who gave it is in the ledger."""
    from slotune.commands.serve import reading, write
    from slotune.views.approvals import waiting
    from tuning.orders import order, order_record

    now = reading()
    asked = {row.plan_id: row for row in waiting(now)}
    if plan not in asked:
        ids = ", ".join(sorted(asked)) or "none"
        raise ConfigError(f"no plan {plan!r} waits for an answer (waiting: {ids}); answered or timed out already?")
    row = asked[plan]
    given = order("reject" if no else "approve", person(), time.time(), service=row.service, about=plan, why=why)
    write(order_record(given))
    typer.echo(f"{row.service}: {row.change}: {'rejected' if no else 'approved'}.")


def _interval(text: str) -> float:
    from slotune.commands.backtest import seconds

    found = seconds(text, "--every")
    if found < _LEAST_S:
        raise ConfigError(f"--every {text}: sweeps need at least {_LEAST_S:g}s between them")
    return found


def _parts() -> Parts:
    from slotune.compose import build, environment_connections, load_settings

    return build(load_settings(), environment_connections())


def _runner(
    executor: ThreadPoolExecutor, stop: threading.Event, every_s: float | None, only: tuple[str, ...]
) -> Runner:
    from slotune.runner import Clock, Runner

    name = f"{socket.gethostname()}-{os.getpid()}-{int(time.time())}"
    return Runner(_parts, name, Clock(time.time, stop.wait), executor, _say, every_s, only)


def _beats(runner: Runner, stop: threading.Event) -> None:
    from tuning.loop.alive import BEAT_S

    while not stop.wait(BEAT_S):
        if runner.under_way():
            runner.beat()


def _ended(runner: Runner, stop: threading.Event) -> None:
    while runner.under_way() and not stop.wait(0.2):
        pass


def _stopper(runner: Runner, stop: threading.Event):  # type: ignore[no-untyped-def]
    def heard(_number: int, _frame: FrameType | None) -> None:
        if not stop.is_set() and (left := runner.under_way()):
            _say(f"Stopping. Left to the next sweep, which proves or undoes what was changed: {', '.join(left)}.")
        stop.set()

    return heard


def _say(sentence: str) -> None:
    typer.echo(f"{datetime.now().astimezone():%H:%M:%S} {sentence}")
