"""What a sweep and the guards ask of the ledger: the loop's own functions run, and the ledger's time is added up.

The fleet's world answers at once; only calls of the ledger are timed.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.ledger.years import BUSY, SERVICES, service_name
from tests.fakes.reports import plan as plan_of
from tests.fakes.world import KeptMails, World, parts
from tuning.ledger import SqlLedger
from tuning.loop import act, reconcile, tell, watch
from tuning.loop.parts import Parts

CONFIG = """
prometheus: {{rate_window: 15s, step: 5s}}
detection: {{lookback: 10m, detectors: [rules]}}
services:
{services}
"""
SERVICE = """  - name: {name}
    serving: slotune_demo
    selectors: {{service: {name}}}
    slo: {{p95: 150ms}}
    mode: act
    levers:
      batch_size: {{min: 1, max: 32, connection: control}}
"""


class TimedLedger:
    """SqlLedger with the wall time of every call added up."""

    def __init__(self, ledger: SqlLedger) -> None:
        self._ledger = ledger
        self.calls = 0
        self.spent_s = 0.0
        self.longest: tuple[float, str] = (0.0, "")

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._ledger, name)
        return self._timed(name, found) if callable(found) else found

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                took_s = time.perf_counter() - started
                self.calls += 1
                self.spent_s += took_s
                self.longest = max(self.longest, (took_s, f"{name} {args[0] if args else ''}"[:160]))

        return timed

    def taken(self) -> dict[str, object]:
        """What was spent since it was last asked, in milliseconds."""
        said: dict[str, object] = {
            "ledger_ms": round(1e3 * self.spent_s, 1),
            "calls": self.calls,
            "longest_ms": round(1e3 * self.longest[0], 1),
            "longest": self.longest[1],
        }
        self.calls, self.spent_s, self.longest = 0, 0.0, (0.0, "")
        return said


def fleet(ledger: TimedLedger, at_s: float) -> Parts:
    services = "".join(SERVICE.format(name=service_name(number)) for number in range(SERVICES))
    world = World()
    world.now_s = at_s
    world.batch_size = 8
    return parts(world, ledger, KeptMails(), CONFIG.format(services=services))


def sweep(loop: Parts, at_s: float) -> None:
    """open_incidents as it runs every few minutes: settle what is open, send what is not sent, look at incidents."""
    reconcile.reconcile_all(loop, at_s, alive=lambda _run: True)
    tell.send_unsent(loop, at_s)
    loop.ledger.put_blob(watch.ANOMALIES, json.dumps({"at_s": at_s, "anomalies": []}).encode(), at_s=at_s)
    watch.open_incidents(loop, watch.Sweep(at_s=at_s, services=SERVICES))


def guard(loop: Parts, service: str, at_s: float) -> None:
    act.guard_plan(loop, plan_of(id=f"guard {service} {at_s}", service=service, decided_at_s=at_s), at_s)


def measure(path: Path, end_s: float, repeats: int) -> dict[str, dict[str, object]]:
    """Median of `repeats` by question; every repetition is a little later, as sweeps are."""
    ledger = TimedLedger(SqlLedger(f"sqlite:///{path}"))
    loop = fleet(ledger, end_s)
    questions: dict[str, Callable[[float], None]] = {
        "one sweep": lambda at_s: sweep(loop, at_s),
        "guards, a usual service": lambda at_s: guard(loop, service_name(500), at_s),
        "guards, the busiest service": lambda at_s: guard(loop, service_name(BUSY), at_s),
    }
    found: dict[str, dict[str, object]] = {}
    for name, ask in questions.items():
        seen = []
        for number in range(repeats):
            ledger.taken()
            ask(end_s + 5.0 + number)
            seen.append(ledger.taken())
        middle = sorted(seen, key=lambda one: float(str(one["ledger_ms"])))[len(seen) // 2]
        middle["ledger_ms"] = round(statistics.median(float(str(one["ledger_ms"])) for one in seen), 1)
        found[name] = middle
    return found
