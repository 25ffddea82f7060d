"""The demo's own recording, rehearsed: the same plans and the same verdicts as the live loop, incident by incident."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detection.model import Span
from slotune import compose
from slotune.connections import EnvironmentConnections, airflow_connection
from slotune.rehearsal.counterfactual import Counterfactual, usual
from slotune.rehearsal.drivers import drivers
from slotune.rehearsal.episodes import Episode, episodes
from slotune.rehearsal.history import from_source, save
from slotune.rehearsal.loop import rehearse, settings_for
from tuning.ledger import SqlLedger
from tuning.model import Plan

pytestmark = [pytest.mark.e2e, pytest.mark.server, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
BEAT_S = 10.0


def recorded(folder: Path, scenario: str, longest_s: float = 600.0):
    """(settings, history, records) of one demo without Airflow; read while its Prometheus still stands."""
    summary, home = folder / "summary.json", folder / "home"
    command = [sys.executable, "-m", "demo", "--scenario", scenario, "--without-airflow", "--json", str(summary)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "demo.log").open("w") as log:
        running = subprocess.Popen([*command, "--home", str(home)], cwd=ROOT, env=env, stdout=log, stderr=log)
        try:
            until_s = time.monotonic() + longest_s
            while not summary.exists() and running.poll() is None and time.monotonic() < until_s:
                time.sleep(1.0)
            assert summary.exists(), (folder / "demo.log").read_text()[-4000:]
            names = dict(re.findall(r"export (\w+)='(.*)'", (home / "run" / "env.sh").read_text()))
            settings = compose.load_settings(home / "run" / "services.yaml")
            source = compose.metrics_source(settings, EnvironmentConnections(names, airflow_connection))
            ledger = SqlLedger(f"sqlite:///{home / 'run' / 'ledger.sqlite'}")
            records = [record for page in ledger.pages() for record in page]
            ledger.close()
            end_s = float(int(time.time()))
            began_s = float(int((home / "run" / "services.yaml").stat().st_mtime)) - 60.0
            found = from_source(source, settings.service_values(), Span(began_s, end_s, settings.prometheus.step_s))
        finally:
            running.send_signal(signal.SIGINT)
            running.wait(60)
    save(folder / "recording", found)
    return settings, found, records, json.loads(summary.read_text())


def predicted(plan: Plan) -> float | None:
    """The P95 that a plan expects, to four digits."""
    found = plan.chosen.predicted_p95_ms
    return None if found is None else float(f"{found.value:.4g}")


def decided(found: list[Episode]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """By incident: its symptom, cause, and every plan that changed something with its verdicts."""
    return [
        (
            one.symptom,
            one.cause,
            [
                (attempt.plan.chosen.text(), outcome.verdict + (" resolved" if outcome.resolved else ""))
                for attempt in one.attempts
                for outcome in sorted(attempt.outcomes.values(), key=lambda outcome: outcome.at_s)
            ],
        )
        for one in found
    ]


def rehearsed(settings, histories, start_s: float, end_s: float) -> list[Episode]:
    told = settings_for(settings, settings.prometheus.step_s)
    told = told.model_copy(update={"schedule": told.schedule.model_copy(update={"watch_every_s": BEAT_S})})
    services = {service.name: service for service in settings.service_values()}
    window_s = settings.prometheus.rate_window_s
    worlds = {}
    for name, history in histories.items():
        causes = drivers(history.window, services[name], window_s)
        worlds[name] = Counterfactual(services[name], history, causes, usual(causes, services[name]), window_s, start_s)
    done = rehearse(told, worlds, start_s, end_s, lambda _share: None)
    assert done.failures == 0, done.said
    return episodes(done.records)


def beat_before(moment_s: float, not_before_s: float) -> float:
    """The first moment of a beat that `moment_s` is on."""
    return moment_s - BEAT_S * ((moment_s - not_before_s) // BEAT_S)


def test_what_the_demo_did_is_done_again(tmp_path):
    settings, histories, records, _ = recorded(tmp_path, "batch")
    live = episodes(records)
    changed = [attempt for one in live for attempt in one.attempts if attempt.receipts_changed]
    assert changed, "the live loop met its overload and changed something"
    end_s = histories["ranker"].window.span.end_s
    # The live loop began as soon as its services.yaml was written, and what it learned then is a part of its plans.
    written_s = (tmp_path / "home" / "run" / "services.yaml").stat().st_mtime
    first_s = beat_before(min(record.at_s for record in records), written_s)
    assert decided(rehearsed(settings, histories, first_s, end_s)) == decided(live)
    # A live plan is made a second after its sweep, of queues that grow by the second: asked at that very moment, the
    # rehearsal expects the same of it.
    plan = changed[0].plan
    asked = rehearsed(settings, histories, beat_before(plan.decided_at_s, written_s), plan.decided_at_s + BEAT_S)
    again = next(
        attempt.plan for one in asked for attempt in one.attempts if attempt.plan.decided_at_s == plan.decided_at_s
    )
    assert (again.chosen.text(), predicted(again)) == (plan.chosen.text(), predicted(plan))
