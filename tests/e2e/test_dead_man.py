"""The loop dies, and somebody hears of it: a real loop, Prometheus and Alertmanager, and a webhook that catches.

The rules are those of `slotune rules`. What runs the loop is killed, so that nothing of slotune's own can tell.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import datetime
from pathlib import Path

import pytest

from demo.processes import free_port
from slotune.compose import load_settings, open_ledger
from slotune.monitoring.rules import rules
from slotune.views.latest import latest
from slotune.views.reading import Reading
from tests.alertmanager_server import alertmanager, answers, prometheus, running, until
from tests.fakes.catcher import catching

pytestmark = [pytest.mark.e2e, pytest.mark.server, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
EVERY_S = 10
CONFIG = f"""
schedule: {{watch_every: {EVERY_S}s}}
services:
  - {{name: ranker, serving: triton, selectors: {{m: r}}, slo: {{p95: 1s}}}}
"""


def swept_s(ledger_url: str, config: Path) -> float:
    """When the last sweep was, 0 before the first."""
    ledger = open_ledger(ledger_url)
    return latest(Reading(ledger, ledger.get_blob, load_settings(config), 0.0)).at_s or 0.0


def test_the_loop_is_killed_and_the_alert_reaches_the_catcher_within_four_intervals(tmp_path: Path) -> None:
    config, ledger_url, port = tmp_path / "services.yaml", f"sqlite:///{tmp_path / 'ledger.db'}", free_port()
    config.write_text(CONFIG)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLOTUNE", "AIRFLOW"))} | {
        "SLOTUNE_CONFIG": str(config), "SLOTUNE_LEDGER_URL": ledger_url, "SLOTUNE_HOME": str(tmp_path),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    slotune = [sys.executable, "-c", "from slotune.cli import main; main()"]
    with (
        catching() as catcher,
        alertmanager(tmp_path / "alertmanager", {"url": f"http://{catcher.place}/hook"}) as am_url,
        running([*slotune, "serve", "--port", str(port)], tmp_path / "serve.log", environment),
        prometheus(tmp_path / "prometheus", scrape=f"127.0.0.1:{port}", rules=rules(load_settings(config)), alertmanager_url=am_url) as prom_url,
    ):
        until(lambda: answers(f"http://127.0.0.1:{port}/metrics"), 90, "slotune serve")
        with running([*slotune, "run"], tmp_path / "run.log", environment | {"SLOTUNE_CONN_SLOTUNE_PROMETHEUS": prom_url}) as loop:
            until(lambda: swept_s(ledger_url, config) > 0, 120, "the first sweep")
            first_s = swept_s(ledger_url, config)
            until(lambda: swept_s(ledger_url, config) > first_s, 90, "the second sweep")
            caught_before = dead(catcher.bodies)
            loop.send_signal(signal.SIGKILL)
            loop.wait(20)
            last_s = swept_s(ledger_url, config)
            until(lambda: len(dead(catcher.bodies)) > len(caught_before), 120, "the dead man's alert at the catcher")
    (alert, *_) = dead(catcher.bodies)[len(caught_before) :]
    fired_s = datetime.fromisoformat(alert["startsAt"]).timestamp()
    print(f"fired {fired_s - last_s:.1f} s after the last sweep, one every {EVERY_S} s")
    assert 3 * EVERY_S <= fired_s - last_s <= 4 * EVERY_S
    assert alert["labels"]["severity"] == "critical" and "has not looked for" in alert["annotations"]["summary"]


def dead(bodies: list[dict]) -> list[dict]:
    return [a for body in bodies for a in body["alerts"] if a["labels"]["alertname"] == "SlotuneLoopDead" and a["status"] == "firing"]
