"""A fleet of which some are hostile: the loop's real functions and clients, many services, a clock that is simulated.

Sweeps come at fixed times, runs of tune_service stand beside them and wait on the same clock, one at work at a time.
What a call costs a sweep is counted, not measured: a call that ends at its deadline costs the sweep what the default
deadline would, so a busy machine changes nothing, and a call that nobody ends costs what it really took.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import numpy as np

from demo.mailbox import Mailbox
from detection.errors import SlotuneError
from detection.model import Service, Span
from detection.sources._client import RangeClient
from detection.sources.prometheus import PrometheusSource
from slotune.connections import EnvironmentConnections
from tests.fakes.world import START_S, KeptMails, World
from tests.faults.fleet import templates
from tuning import planning, verification
from tuning.actuators.http_config import HttpConfig
from tuning.ledger import SqlLedger
from tuning.loop import reconcile, tell, watch
from tuning.loop.once import tune
from tuning.loop.parts import Parts
from tuning.loop.watch import TuneRequest
from tuning.model import Change, Receipt, Setting
from tuning.notifiers.smtp import SmtpNotifier
from tuning.ports import Actuator
from tuning.query import Query
from tuning.services_yaml import loads

DEADLINE_S = 0.3
"""Of a call in the test; it stands for a lever's default deadline of COSTS_S on the simulated clock."""
COSTS_S = 10.0
INTERVAL_S = 60.0
HOSTILE = (
    "drips", "drips later", "infinite timeout", "deep json", "redirects later", "lone surrogate", "selector refused", "partial",
    "nan later", "no way back",
)  # fmt: skip
"""What a hostile service does: its control endpoint (later: once a change has landed), its metrics, or its lever."""
WORDS = {
    "drips": "no answer within",
    "drips later": "no answer within",
    "infinite timeout": "batch_timeout_ms",
    "deep json": "JSON",
    "redirects later": "redirects are not followed",
    "lone surrogate": r"no \\+ud800",
    "selector refused": "422",
    "partial": "a part of the data",
    "nan later": "no sample of any signal|newest P95 is",
    "no way back": "config is frozen",
}
"""What a report, a hold or a mail about it has to say (a pattern)."""
HURT = ("drips later", "redirects later", "no way back")
"""Changed for the worse, so that every sweep has to bring something back that does not want to."""
CALM_QPS, SURGE_QPS = 60.0, 180.0
HEADER = """
prometheus: {rate_window: 15s, step: 5s}
verification: {look: 60s, longer_look: 60s}
safety: {cool_down: 0s, hold_again: 300s, services_at_once: 10, changes_per_hour_total: 100, control_timeout: 10s}
detection: {lookback: 10m, detectors: [rules], close_after: 60s, absent_for: 120s}
mail: {to: [oncall@example.com], connection: mail}
services:
"""
SERVICE = """
  - name: NAME
    serving: slotune_demo
    selectors: {service: NAME}
    slo: {p95: 150ms, for: 10s}
    mode: act
    levers:
      batch_size: {min: 1, max: 32, connection: NAME_control}
"""


@dataclass
class Member:
    """One service on its own model; `nature`: what is hostile about it, empty for a good one."""

    name: str
    nature: str = ""
    surge_s: float = float("inf")
    world: World = field(init=False)

    def __post_init__(self) -> None:
        self.world = World(
            qps=lambda t: SURGE_QPS if t >= self.surge_s else CALM_QPS,
            batch_hurts=40.0 if self.nature in HURT else 1.0,
        )

    def values(self, signal: str, span: Span, now_s: float) -> np.ndarray:
        self.world.wait_until(now_s)
        values = self.world.values(signal, span)
        if self.nature == "nan later":
            gone = span.times() >= START_S + 240.0
            values[gone] = np.where(np.arange(int(gone.sum())) % 2, np.nan, np.inf)
        return values

    @property
    def mood(self) -> str:
        """How the control endpoint behaves now."""
        if self.nature.endswith(" later"):
            return self.nature.removesuffix(" later") if self.world.batch_size > 1 else ""
        return self.nature


def members(good: int, natures: Sequence[str] = HOSTILE) -> list[Member]:
    """Every hostile nature once, and `good` services; of those each fifth has a surge that its batch size cures."""
    found = [Member("bad-" + nature.replace(" ", "-"), nature, surge_s=120.0) for nature in natures]
    return found + [Member(f"good-{i:02d}", surge_s=180.0 + 24.0 * i if i % 5 == 0 else float("inf")) for i in range(good)]


class Outside:
    """Prometheus and all control endpoints as one server; `now`: the simulated clock."""

    def __init__(self, fleet: list[Member], now: Callable[[], float]) -> None:
        self.fleet = {member.name: member for member in fleet}
        self.now = now
        self._queries = templates()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def prometheus(self, form: Mapping[str, str]) -> tuple[int, bytes]:
        query = form["query"].replace("\\\\", "")
        asked = [member for member in self.fleet.values() if member.name in query]
        natures = {member.nature for member in asked}
        if "selector refused" in natures:
            return 422, b'{"status":"error","errorType":"execution","error":"expanding series: no"}'
        signal = next((name for name, pattern in self._queries if pattern.fullmatch(form["query"])), None)
        rows = []
        if signal is not None and "replica" not in query and "start" in form:
            span = Span(float(form["start"]), float(form["end"]), float(form["step"]))
            times = [float(t) for t in span.times()]
            with self._lock:
                found = {member.name: member.values(signal, span, self.now()) for member in asked}
            for name, values in found.items():
                keep_nan = self.fleet[name].nature == "nan later"
                pairs = zip(times, values, strict=True)
                samples = [[t, _spelt(float(v))] for t, v in pairs if keep_nan or not np.isnan(v)]
                if samples:
                    rows.append({"metric": {"service": name}, "values": samples})
        body: dict[str, Any] = {"status": "success", "data": {"resultType": "matrix", "result": rows}}
        if "partial" in natures:
            body["warnings"] = ["a store gave no answer: partial response"]
        return 200, json.dumps(body, separators=(",", ":")).encode()


def _spelt(value: float) -> str:
    return "+Inf" if value == np.inf else "NaN" if np.isnan(value) else repr(value)


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, outside: Outside, *args: Any) -> None:
        self.outside = outside
        super().__init__(*args)

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()

    def do_GET(self) -> None:
        self._control(None)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        if self.path.startswith("/api/v1/"):
            self._send(*self.outside.prometheus({k: v[0] for k, v in parse_qs(body).items()}))
        else:
            self._control(int(json.loads(body)["batch_size"]))

    def _control(self, value: int | None) -> None:
        member = self.outside.fleet.get(self.path.strip("/").partition("/")[0])
        if member is None:
            self._send(404, b"{}")
        elif member.mood == "drips":
            self._drip()
        elif member.mood == "redirects":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()
            while True:
                self.wfile.write(b" " * 65536)
        elif member.nature in BODIES:
            self._send(*BODIES[member.nature])
        elif member.nature == "no way back" and value == 1 and member.world.batch_size != 1:
            self._send(403, b'{"error": "config is frozen"}')
        else:
            if value is not None:
                member.world.batch_size = value
            self._send(200, json.dumps({"batch_size": member.world.batch_size, "batch_timeout_ms": 0.0}).encode())

    def _drip(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n")
        while True:
            self.wfile.write(b"x")
            time.sleep(0.05)

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


BODIES = {
    "infinite timeout": (200, b'{"batch_size": 1, "batch_timeout_ms": 1e309}'),
    "deep json": (200, b'{"batch_size": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "lone surrogate": (500, b'{"error": "no \\ud800 \\u202e way"}'),
}


class Clock:
    """The simulated time, and the runs that wait on it. One of them, or the sweep, is at work at a time."""

    def __init__(self) -> None:
        self.now_s = START_S
        self.runs: set[str] = set()
        self.failed: dict[str, Exception] = {}
        self._waiting: list[tuple[float, int, threading.Event]] = []
        self._number = itertools.count()
        self._idle = threading.Event()

    def now(self) -> float:
        return self.now_s

    def start(self, run: str, work: Callable[[], object]) -> None:
        if run in self.runs:
            return

        def body() -> None:
            try:
                work()
            except Exception as error:  # Airflow marks the run failed; sweeps take over what it left
                self.failed[run] = error
            self.runs.discard(run)
            self._idle.set()

        self.runs.add(run)
        self._idle.clear()
        threading.Thread(target=body, daemon=True, name=run).start()
        self._idle.wait()

    def wait_until(self, until_s: float) -> None:
        """Called by a run: it goes on when the clock is there."""
        turn = threading.Event()
        heapq.heappush(self._waiting, (until_s, next(self._number), turn))
        self._idle.set()
        turn.wait()

    def advance(self, until_s: float) -> None:
        while self._waiting and self._waiting[0][0] <= until_s:
            at_s, _, turn = heapq.heappop(self._waiting)
            self.now_s = max(self.now_s, at_s)
            self._idle.clear()
            turn.set()
            self._idle.wait()
        self.now_s = max(self.now_s, until_s)


class Charged:
    """An actuator whose calls cost a sweep simulated time."""

    def __init__(self, inner: Actuator, charge: Callable[[float], None]) -> None:
        self._inner, self._charge = inner, charge
        self.name, self.lever = inner.name, inner.lever

    def read(self, service: Service) -> Setting:
        with self._counted():
            return self._inner.read(service)

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        with self._counted():
            return self._inner.apply(service, change, key=key)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        began_s = time.monotonic()
        try:
            yield
        finally:
            self._charge(time.monotonic() - began_s)


@dataclass
class Found:
    """What an hour brought. late_s, took_s: of every sweep. seen_s: when each service was read. texts: reports and mails."""

    late_s: list[float] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    seen_s: dict[str, list[float]] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    cured: list[str] = field(default_factory=list)
    mails_sent: int = 0
    stuck: set[str] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)

    def named(self, name: str) -> str:
        """What reports, holds and mails say that name this service."""
        return "\n".join(text for text in self.texts if re.search(rf"\b{re.escape(name)}(?![\w-])", text))

    def longest_unseen_s(self, name: str, end_s: float) -> float:
        times = [START_S, *self.seen_s.get(name, []), end_s]
        return max(b - a for a, b in itertools.pairwise(times))

    def wrong(self, good: int, minutes: float, natures: Sequence[str] = HOSTILE) -> list[str]:
        """What a fleet must not see, in sentences."""
        said = list(self.broken)
        end_s = START_S + 60.0 * minutes
        said += [f"sweep {n} was {late:.0f} s late" for n, late in enumerate(self.late_s) if late > INTERVAL_S]
        for member in members(good, natures):
            if member.nature:
                about = self.named(member.name)
                if not re.search(WORDS[member.nature], about):
                    said.append(f"{member.name} is {'named without what it does' if about else 'named nowhere'}")
            elif (unseen_s := self.longest_unseen_s(member.name, end_s)) > 2 * INTERVAL_S:
                said.append(f"{member.name} was not looked at for {unseen_s:.0f} s")
            elif member.surge_s + 240.0 < 60.0 * minutes and member.name not in self.cured:
                said.append(f"{member.name} was slow, and nothing was done about it")
        said += [f"the run {run} never ended" for run in self.stuck]
        return said


def play_hostile(
    folder: Path,
    *,
    good: int = 40,
    minutes: float = 60.0,
    natures: Sequence[str] = HOSTILE,
    deadline_s: float = DEADLINE_S,
) -> Found:
    """The whole story. deadline_s: of every call to a control endpoint; what is longer than DEADLINE_S costs more."""
    clock, found, kept = Clock(), Found(), KeptMails()
    fleet = members(good, natures)
    outside = Outside(fleet, clock.now)
    mailbox = Mailbox(folder / "mails")
    mailbox.start()
    try:
        parts = _parts(fleet, outside, mailbox, clock, folder, deadline_s)
        parts = replace(parts, notifiers=[*parts.notifiers, kept])
        for number in range(1, round(minutes * 60.0 / INTERVAL_S) + 1):
            due_s = START_S + number * INTERVAL_S
            clock.advance(due_s)
            found.late_s.append(clock.now_s - due_s)
            began_s = clock.now_s
            _sweep(parts, clock, found)
            found.took_s.append(clock.now_s - began_s)
        clock.advance(clock.now_s + 1800.0)
        found.stuck = set(clock.runs)
        found.mails_sent = len(mailbox.mails)
        kinds = ("email_report", "hold")
        bodies = [str(record.body) for record in parts.ledger.find(Query(kinds=kinds))]
        found.texts = [*bodies, *(mail.subject + mail.text for mail in kept.mails)]
        found.cured = [m.name for m in fleet if not m.nature and m.world.batch_size > 1]
        found.broken += [f"{run}: {e!r}" for run, e in clock.failed.items() if not isinstance(e, SlotuneError)]
        return found
    finally:
        outside.close()
        mailbox.stop()


def _sweep(parts: Parts, clock: Clock, found: Found) -> None:
    """watch_services once, and the runs that it starts."""
    at_s = clock.now_s
    try:
        reconcile.reconcile_all(parts, at_s, alive=lambda run: run in clock.runs)
        tell.send_unsent(parts, at_s)
        sweep = watch.detect_anomalies(parts, watch.pull_metrics(parts, at_s))
        wanted = watch.open_incidents(parts, sweep)
    except Exception as error:
        found.broken.append(f"sweep at {at_s - START_S:.0f}: {error!r}")
        return
    for name in parts.services:
        if name not in sweep.unreadable and name not in sweep.silent:
            found.seen_s.setdefault(name, []).append(at_s)
    for request in wanted:
        clock.start(request.run_id, partial(_run, parts, request, clock))


def _run(parts: Parts, request: TuneRequest, clock: Clock) -> None:
    tune(parts, request, clock.now, clock.wait_until)


def _parts(
    fleet: list[Member], outside: Outside, mailbox: Mailbox, clock: Clock, folder: Path, deadline_s: float
) -> Parts:
    settings = loads(HEADER + "".join(SERVICE.replace("NAME", member.name) for member in fleet))
    places = {f"SLOTUNE_CONN_{m.name.upper().replace('-', '_')}_CONTROL": f"{outside.url}/{m.name}" for m in fleet}
    connections = EnvironmentConnections({**places, "SLOTUNE_CONN_MAIL": f"smtp://127.0.0.1:{mailbox.port}?timeout=5"})
    client = RangeClient(outside.url, timeout_s=20.0, sleep=lambda _s: None)
    sweeping = threading.current_thread()

    def charge(took_s: float) -> None:
        """Runs are processes of their own: only what a sweep waits for makes a sweep late."""
        if threading.current_thread() is sweeping:
            clock.now_s += COSTS_S * round(took_s / DEADLINE_S)

    control = Charged(HttpConfig(connections, clock.now, lambda _s: None), charge)
    services = {}
    for service in settings.service_values():
        lever = service.levers["batch_size"]
        lever = lever.model_copy(update={"options": {**lever.options, "request_timeout_s": deadline_s}})
        services[service.name] = service.model_copy(update={"levers": {"batch_size": lever}})
    return Parts(
        settings=settings,
        services=services,
        source=PrometheusSource(outside.url, rate_window_s=15.0, query_range=client.query_range),
        actuator=lambda _service, _lever: control,
        planner=planning.get(settings.planning.planner)(settings.planning),
        verifier=verification.get(settings.verification.method)(settings.verification),
        ledger=SqlLedger.open(f"sqlite:///{folder / 'ledger.db'}"),
        notifiers=[SmtpNotifier(settings.mail, connections)],
    )
