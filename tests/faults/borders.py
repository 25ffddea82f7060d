"""Faults at the borders, with slotune's real clients: what an HTTP server, a mail server or a database can do wrong.

The loop runs on the simulated clock of tests.faults.outside; Prometheus, the control endpoint and the mail server are
real sockets that misbehave in a named way for a while, or whenever a change is sent.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs

import numpy as np

from demo.mailbox import Mailbox
from detection.errors import SlotuneError
from detection.model import Span
from detection.sources._client import RangeClient
from detection.sources.prometheus import PrometheusSource
from slotune.connections import EnvironmentConnections
from tests.faults.campaign import AFTER_S, CONFIG, STORY_S, SWEEP_S, Drive, Result, check, ledger_url
from tests.faults.fleet import templates
from tests.faults.outside import CURE, HARM, LATE_BY_S, Outside, Scenario
from tuning import planning, verification
from tuning.actuators.http_config import HttpConfig
from tuning.ledger import SqlLedger
from tuning.loop.once import run_once
from tuning.loop.parts import Parts
from tuning.notifiers.smtp import SmtpNotifier
from tuning.query import Query
from tuning.services_yaml import loads

TIMEOUT_S = 0.3
LENGTH_S = 120.0
STATUSES = ("302", "401", "403", "404", "409", "422", "429", "500", "504")
HOSTILE = ("drip", "deep", "endless number", "bomb")
ANSWERS = ("down", "slow", "flapping", "garbage", "half", *STATUSES, *HOSTILE)
LANDED = ("landed, no answer", "landed, half", "landed, garbage", "landed, 500", "landed, 504", "landed, drip",
          "landed, deep", "clamped", *LATE_BY_S)  # fmt: skip
MAIL = ("down", "slow", "flapping", "garbage", "451", "554")
BEGIN_S = (100, 130, 190, 250)
"""Into the story: around the detection, the change, the looks, and a roll-back."""

Border = Literal["prometheus", "control", "change", "mail", "ledger"]


@dataclass(frozen=True)
class BorderFault:
    """border "change": only what is sent to change the setting, first call number `at`; else from `at` s on."""

    border: Border
    scenario: Scenario
    at: int
    flavour: str

    @property
    def drive(self) -> Drive:
        return "sweeps"

    @property
    def kind(self) -> str:
        """For the comparison: an endpoint that cannot be reached cannot be told to go back."""
        return "control-down"

    def text(self) -> str:
        return f"{self.scenario.name}: {self.border} {self.flavour} at {self.at}"


def border_faults() -> list[BorderFault]:
    found = []
    for scenario in (CURE, HARM):
        for border, flavours in (
            ("prometheus", (*ANSWERS, "partial")),
            ("control", ANSWERS),
            ("mail", MAIL),
            ("ledger", ("locked",)),
        ):
            found += [BorderFault(border, scenario, at, flavour) for flavour in flavours for at in BEGIN_S]  # type: ignore[arg-type]
        calls = (1,) if scenario is CURE else (1, 2)
        found += [BorderFault("change", scenario, at, f) for f in (*ANSWERS, *LANDED) for at in calls]
    return found


class Borders:
    """The sockets of one fault: Prometheus and the control endpoint as one HTTP server, mail servers of all kinds."""

    def __init__(self, outside: Outside, fault: BorderFault, ledger: SqlLedger, folder: Path) -> None:
        self.outside, self.fault, self.ledger = outside, fault, ledger
        self.start_s, self.asked, self.sent = outside.now_s, 0, 0
        self.struck = False
        self._queries = templates()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.mailbox = Mailbox(folder / "mails")
        self.mailbox.start()
        self._odd = {name: socket.create_server(("127.0.0.1", 0)) for name in ("slow", "garbage")}
        threading.Thread(target=_babble, args=[self._odd["garbage"]], daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.mailbox.stop()
        for odd in self._odd.values():
            odd.close()

    def active(self, border: Border) -> str:
        """The flavour in which a border misbehaves now, empty when it does not."""
        if border != self.fault.border or not 0 <= self.outside.now_s - self.start_s - self.fault.at < LENGTH_S:
            return ""
        self.struck = True
        if self.fault.flavour == "flapping":
            self.asked += 1
            return "500" if self.asked % 2 else ""
        return self.fault.flavour

    def of_change(self) -> str:
        """The same for a change that is sent: once, at the call of that number."""
        self.sent += 1
        if self.fault.border != "change" or self.sent != self.fault.at:
            return self.active("control")
        self.struck = True
        return "500" if self.fault.flavour == "flapping" else self.fault.flavour

    def mail_url(self) -> str:
        flavour = self.active("mail")
        self.mailbox.refuse(
            {"451": "451 4.3.0 try later", "500": "451 4.3.0 later", "554": "554 5.7.1 no"}.get(flavour)
        )
        port = {"down": 1}.get(flavour, self.mailbox.port)
        if flavour in self._odd:
            port = self._odd[flavour].getsockname()[1]
        return f"smtp://127.0.0.1:{port}?timeout={TIMEOUT_S}"

    def matrix(self, form: dict[str, str]) -> bytes:
        span = Span(float(form["start"]), float(form["end"]), float(form["step"]))
        signal = next((name for name, pattern in self._queries if pattern.fullmatch(form["query"])), "")
        values = (
            self.outside.metrics().values(signal, span) if signal and "replica" not in form["query"] else np.empty(0)
        )
        samples = [[float(t), repr(float(v))] for t, v in zip(span.times(), values, strict=False) if np.isfinite(v)]
        rows = [{"metric": {"service": "ranker"}, "values": samples}] if samples else []
        body = {"status": "success", "data": {"resultType": "matrix", "result": rows}}
        return json.dumps(body, separators=(",", ":")).encode()

    def set(self, value: int, late_s: float = 0.0) -> None:
        """The value takes effect, now or later, in the name of the change that is open."""
        change = self.ledger.open_changes()[0]
        plan, inverse = change.plan, change.plan.inverse()
        if value == plan.chosen.changes[0].old["batch_size"] and self.ledger.get(inverse.id) is not None:
            plan = inverse
        if late_s:
            self.outside.late.append((self.outside.now_s + late_s, f"{plan.id}:batch_size", value, ""))
            self.outside.save()
        else:
            self.outside.land(f"{plan.id}:batch_size", value)


_BODIES = {
    "garbage": b"\x00\xffnot json",
    "deep": b"[" * 100_000,
    "endless number": b'{"batch_size": 1' + b"0" * 5000 + b', "batch_timeout_ms": 1e309}',
}


@lru_cache(maxsize=1)
def _bomb() -> bytes:
    """Small on the wire, larger than any cap behind it."""
    return gzip.compress(b" " * (300 << 20), 1)


def _babble(server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            peer, _ = server.accept()
            peer.sendall(b"\x00\xff<html>{{ 7*7 }}\r\n" * 3)
            peer.close()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, borders: Borders, *args: Any) -> None:
        self.borders = borders
        super().__init__(*args)

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        place, _, query = self.path.partition("?")
        if place == "/config":
            self._misbehave(self.borders.active("control"), self._config())
        else:
            self._prometheus(query)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        if self.path != "/config":
            self._prometheus(body)
            return
        flavour, value = self.borders.of_change(), int(json.loads(body)["batch_size"])
        if flavour in LATE_BY_S:
            self.borders.set(value, LATE_BY_S[flavour])
        elif flavour == "clamped":
            self.borders.set(max(2, value // 2))
            flavour = ""
        elif not flavour or flavour.startswith("landed"):
            self.borders.set(value)
        answer = flavour.removeprefix("landed, ")
        self._misbehave("slow" if answer == "no answer" or flavour in LATE_BY_S else answer, self._config())

    def _prometheus(self, form: str) -> None:
        asked = {k: v[0] for k, v in parse_qs(form).items()}
        if asked:  # else whoever asked has gone before the question was whole
            self._misbehave(self.borders.active("prometheus"), self.borders.matrix(asked))

    def _config(self) -> bytes:
        return json.dumps({"batch_size": self.borders.outside.batch_size, "batch_timeout_ms": 0.0}).encode()

    def _misbehave(self, flavour: str, good: bytes) -> None:
        if flavour == "down":
            return  # the connection ends without a word
        if flavour == "slow":
            time.sleep(2 * TIMEOUT_S)
        status = int(flavour) if flavour.isdigit() else 200
        odd = _bomb() if flavour == "bomb" else _BODIES.get(flavour, good)
        body = odd if status == 200 else b'{"error": "<b>no</b> {{ 7*7 }}"}'
        if flavour == "partial":
            body = b'{"warnings": ["store b is down"], ' + good[1:]
        self.send_response_only(status)
        self.send_header("Content-Length", str(10**6 if flavour == "drip" else len(body)))
        if flavour == "bomb":
            self.send_header("Content-Encoding", "gzip")
        if status == 302:
            self.send_header("Location", "http://[bad")
        self.end_headers()
        for _ in range(int(20 * TIMEOUT_S) if flavour == "drip" else 0):
            self.wfile.write(b" ")
            time.sleep(0.1)
        self.wfile.write(body[: len(body) // 2] if flavour == "half" else body)

    def log_message(self, *_: object) -> None:
        pass


class _Connections(EnvironmentConnections):
    """The mail server that a connection leads to depends on the fault."""

    def __init__(self, borders: Borders) -> None:
        self._borders = borders
        super().__init__({"SLOTUNE_CONN_RANKER_CONTROL": borders.url})

    def get(self, name: str) -> Any:
        if name == "ranker_control":
            return super().get(name)
        return EnvironmentConnections({"SLOTUNE_CONN_MAIL": self._borders.mail_url()}).get("mail")


def _parts(borders: Borders, ledger: SqlLedger) -> Parts:
    settings = loads(CONFIG)
    connections = _Connections(borders)
    (service,) = settings.service_values()
    lever = service.levers["batch_size"]
    lever = lever.model_copy(update={"options": {**lever.options, "request_timeout_s": TIMEOUT_S}})
    service = service.model_copy(update={"levers": {"batch_size": lever}})
    client = RangeClient(borders.url, timeout_s=TIMEOUT_S, sleep=lambda _s: None)
    control = HttpConfig(connections, lambda: borders.outside.now_s, lambda _s: None)
    planner_settings = settings.planning.model_copy(update={"rate_window_s": settings.prometheus.rate_window_s})
    return Parts(
        settings=settings,
        services={service.name: service},
        source=PrometheusSource(borders.url, rate_window_s=15.0, query_range=client.query_range),
        actuator=lambda _service, _lever: control,
        planner=planning.get(settings.planning.planner)(planner_settings),
        verifier=verification.get(settings.verification.method)(settings.verification),
        ledger=ledger,
        notifiers=[SmtpNotifier(settings.mail, connections)],
    )


@contextlib.contextmanager
def _locked(borders: Borders, folder: Path) -> Iterator[None]:
    """Another process holds the database's write lock."""
    if not borders.active("ledger"):
        yield
        return
    holder = sqlite3.connect(folder / "ledger.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        holder.rollback()
        holder.close()


def play_border(fault: BorderFault, folder: Path) -> Result:
    """The story with one fault, until nothing is open any more; then the comparison."""
    folder.mkdir(parents=True)
    SqlLedger.open(ledger_url(folder)).close()
    ledger = SqlLedger(ledger_url(folder), timeout_s=0.2)
    outside = Outside(folder / "outside.json", fault.scenario)
    outside.advance(outside.now_s + 60.0)
    borders = Borders(outside, fault, ledger, folder)
    result = Result(fault)  # type: ignore[arg-type]
    try:
        parts = _parts(borders, ledger)
        if fault.border == "mail":
            parts = replace(parts, settings=parts.settings)
        end_s = outside.now_s + STORY_S
        while outside.now_s < end_s or (outside.now_s < end_s + AFTER_S and (ledger.open_changes() or outside.late)):
            with contextlib.suppress(SlotuneError), _locked(borders, folder):
                run_once(parts, lambda: outside.now_s, outside.advance)
            outside.advance(outside.now_s + SWEEP_S)
        result.struck = borders.struck
        _check_mails(result, ledger, borders)
    finally:
        borders.close()
    check(result, folder)
    return result


def _check_mails(result: Result, ledger: SqlLedger, borders: Borders) -> None:
    """Every report was handed over once the mail server was back, or the ledger says why it never will be."""
    reports = ledger.find(Query(kinds=("email_report",)))
    settled = {r.parent_id for r in reports if r.phase == "result"}
    waiting = [r.id for r in reports if r.phase == "intent" and r.id not in settled]
    result.lost += [f"the report {report_id} was never handed over" for report_id in waiting]
    if not borders.mailbox.mails and result.fault.flavour != "554":
        result.lost.append("nobody got any mail")
