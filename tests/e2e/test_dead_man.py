"""The loop dies, and somebody hears of it: a real loop, Prometheus and Alertmanager, and a webhook that catches.

The rules are those of `slotune rules`. What runs the loop (Airflow's scheduler, or `slotune run`) is killed, so that
nothing of the loop's own can tell.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from demo.airflow import Airflow
from demo.processes import free_port
from slotune.compose import load_settings, open_ledger
from slotune.monitoring.rules import rules
from slotune.views.latest import latest
from slotune.views.reading import Reading
from tests.alertmanager_server import alertmanager, answers, prometheus, running, until
from tests.fakes.catcher import catching

pytestmark = [pytest.mark.e2e, pytest.mark.server, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
CONFIG = """
schedule: {{watch_every: {every_s}s}}
services:
  - {{name: ranker, serving: triton, selectors: {{m: r}}, slo: {{p95: 1s}}}}
"""
SLOTUNE = [sys.executable, "-c", "from slotune.cli import main; main()"]


def swept_s(ledger_url: str, config: Path) -> float:
    """When the last sweep was, 0 before the first."""
    ledger = open_ledger(ledger_url)
    return latest(Reading(ledger, ledger.get_blob, load_settings(config), 0.0)).at_s or 0.0


Kill = Callable[[], None]


@contextmanager
def slotune_run(home: Path, environment: dict[str, str]) -> Iterator[Kill]:
    """The loop without Airflow."""
    with running([*SLOTUNE, "run"], home / "run.log", environment) as loop:

        def kill() -> None:
            loop.kill()
            loop.wait(20)

        yield kill


@contextmanager
def airflow(home: Path, environment: dict[str, str]) -> Iterator[Kill]:
    """A whole Airflow; what is killed is its scheduler and all that it started, nothing else."""
    mine = {k: v for k, v in environment.items() if k.startswith(("SLOTUNE", "PYTHONPATH", "NO_PROXY"))}  # its PATH is its own
    whole = Airflow(home / "airflow", ROOT, home / "airflow.log", mine)
    try:
        whole.start()
        whole.wait_ready()

        def kill() -> None:
            schedulers = [one for one in psutil.process_iter(["ppid", "cmdline"]) if ours(one, home) and "scheduler" in one.info["cmdline"]]
            assert schedulers, "no scheduler of this Airflow runs"
            family = [child for one in schedulers for child in one.children(recursive=True)]
            for one in (*schedulers, *family):
                one.kill()

        yield kill
    finally:
        whole.stop()


def ours(process: psutil.Process, home: Path) -> bool:
    """Whether it is a part of the Airflow whose home is below this folder."""
    try:
        return process.environ().get("AIRFLOW_HOME") == str(home / "airflow")
    except psutil.Error:
        return False


@pytest.mark.parametrize(("loop", "every_s"), [(slotune_run, 10), (airflow, 20)], ids=["slotune run", "Airflow's scheduler"])
def test_the_loop_is_killed_and_the_alert_reaches_the_catcher_within_four_intervals(loop, every_s: int, tmp_path: Path) -> None:
    config, ledger_url, port = tmp_path / "services.yaml", f"sqlite:///{tmp_path / 'ledger.db'}", free_port()
    config.write_text(CONFIG.format(every_s=every_s))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLOTUNE", "AIRFLOW"))} | {
        "SLOTUNE_CONFIG": str(config), "SLOTUNE_LEDGER_URL": ledger_url, "SLOTUNE_HOME": str(tmp_path),
        "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    with (
        catching() as catcher,
        alertmanager(tmp_path / "alertmanager", {"url": f"http://{catcher.place}/hook"}) as am_url,
        running([*SLOTUNE, "serve", "--port", str(port)], tmp_path / "serve.log", environment),
        prometheus(tmp_path / "prometheus", scrape=f"127.0.0.1:{port}", rules=rules(load_settings(config)), alertmanager_url=am_url) as prom_url,
    ):
        until(lambda: answers(f"http://127.0.0.1:{port}/metrics"), 90, "slotune serve")
        with loop(tmp_path, environment | {"SLOTUNE_CONN_SLOTUNE_PROMETHEUS": prom_url}) as kill:
            until(lambda: swept_s(ledger_url, config) > 0, 180, "the first sweep")
            first_s = swept_s(ledger_url, config)
            until(lambda: swept_s(ledger_url, config) > first_s, 150, "the second sweep")
            caught_before = dead(catcher.bodies)
            kill()
            time.sleep(1.0)  # a sweep that had begun to write is written
            last_s = swept_s(ledger_url, config)
            until(lambda: len(dead(catcher.bodies)) > len(caught_before), 6 * every_s, "the dead man's alert at the catcher")
            arrived_s = time.time()
    (alert, *_) = dead(catcher.bodies)[len(caught_before) :]
    fired_s = datetime.fromisoformat(alert["startsAt"]).timestamp()
    print(f"fired {fired_s - last_s:.1f} s, caught {arrived_s - last_s:.1f} s after the last sweep, one every {every_s} s")
    assert 3 * every_s <= fired_s - last_s <= arrived_s - last_s <= 4 * every_s
    assert alert["labels"]["severity"] == "critical" and "has not looked for" in alert["annotations"]["summary"]


def dead(bodies: list[dict]) -> list[dict]:
    return [a for body in bodies for a in body["alerts"] if a["labels"]["alertname"] == "SlotuneLoopDead" and a["status"] == "firing"]
