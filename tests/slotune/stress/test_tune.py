"""Staged tuning: the loop's own attempts under one load, in a world with a clock of its own and on a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demo import web
from demo.processes import Child, free_port, wait_until
from demo.prometheus import Prometheus, Target
from detection.errors import ConfigError
from slotune.stress import tune
from slotune.stress.tune import Level, Stage, Tuned
from slotune.stress.tuned_page import tuned_page
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import SERVICES, KeptMails, World, parts
from tuning.model import Interval

CALM = Level(Interval(value=120.0, low=110.0, high=130.0), 0.45, 0.0)
GOOD = Level(Interval(value=42.0, low=40.0, high=45.0), 0.72, 0.0)


def made(services: str = SERVICES, **kwargs):
    world = World(qps=lambda t: 60.0 if t < 100 else 180.0, **kwargs)
    world.wait(130)
    return world, parts(world, FakeLedger(), KeptMails(), services)


def test_a_stage_that_helps_is_made_proven_and_kept():
    world, loop = made()
    came = tune.attempt(loop, loop.service("ranker"), "batch_size", "run 1", world.now, world.wait_until)
    stage = tune.stage_of("dynamic batching", came, CALM, GOOD)
    assert (stage.verdict, stage.kept) == ("improved", True) and stage.change.startswith("batch_size 1 -> ") and world.batch_size > 1


def test_a_stage_that_hurts_is_undone():
    world, loop = made(batch_hurts=40.0)
    came = tune.attempt(loop, loop.service("ranker"), "batch_size", "run 1", world.now, world.wait_until)
    stage = tune.stage_of("dynamic batching", came, CALM, CALM)
    assert not stage.kept and world.batch_size == 1 and stage.why
    assert world.applies, "it was tried"


def test_what_cannot_be_tried_says_why():
    world, loop = made()
    assert tune.attempt(loop, loop.service("ranker"), "precision", "r", world.now, world.wait_until) == "the service has no such lever"
    tune.check(loop.service("ranker"))
    _, watched = made(SERVICES.replace("mode: act", "mode: observe"))
    with pytest.raises(ConfigError, match=r"services.yaml does not allow \(batch_size: observe\)"):
        tune.check(watched.service("ranker"))
    assert "does not allow" in tune.attempt(watched, watched.service("ranker"), "batch_size", "r", world.now, world.wait_until)
    world.control_down = True
    assert not tune.stage_of("x", tune.attempt(loop, loop.service("ranker"), "batch_size", "q", world.now, world.wait_until), CALM, CALM).kept


def test_the_table_says_what_was_gained_and_what_was_not_tried():
    stages = (Stage("INT8", "INT8", "improved", True, "faster", CALM, GOOD), Stage("dynamic batching", "", "", False, "no room", GOOD, GOOD))
    found = Tuned("ranker", 40.0, CALM, stages)
    text = tune.render(found)
    assert text.startswith("ranker at 40/s: P95 120 ms -> 42 ms (-65%) with INT8.")
    assert "as it was          P95 120 ms [110 ms to 130 ms], busy 45%" in text and "nothing was changed: no room" in text
    assert json.loads(json.dumps(tune.document(found), allow_nan=False))["stages"][1]["kept"] is False
    page = tuned_page(found)
    assert page.startswith("<!doctype html>") and "120 ms [110 ms to 130 ms]" in page and "42 ms [40 ms to 45 ms]" in page
    assert "improved, kept" in page and "nothing was changed" in page and "72%" in page
    undone = Tuned("ranker", 40.0, CALM, (), "it was interrupted")
    nameless = tuned_page(Tuned("<b>", 40.0, Level(None, None, 1.0), (), "it was interrupted"))
    assert "&lt;b&gt;" in nameless and "no answer" in nameless and "Ended early" in nameless
    assert "no stage was kept" in tune.render(undone) and "Ended early: it was interrupted." in tune.render(undone)


LIVE = """
prometheus: {connection: metrics, rate_window: 10s, step: 1s, timeout: 5s}
planning: {recent: 15s, verify_window: 20s}
verification: {rate_window: 10s, settle_min: 10s, look: 20s, longer_look: 20s, min_points: 4, min_requests: 50, min_requests_per_point: 5}
safety: {cool_down: 0s}
services:
  - name: ranker
    serving: slotune_demo
    selectors: {service: ranker}
    slo: {p95: 150ms, for: 10s}
    mode: act
    levers:
      batch_size: {connection: control, min: 1, max: 8, timeout_min: 0ms, timeout_max: 20ms, effect_delay: 5s}
"""


@pytest.mark.server
def test_a_real_server_is_tuned_under_load(tmp_path: Path):
    """40 ms a request, one at a time, 17 a second: P95 about 190 ms. Batches cost little more, so batching cures it."""
    port = free_port()
    command = [sys.executable, "-m", "demo.server", "--port", str(port), "--emulated", "--alpha-ms", "39", "--beta-ms", "1"]
    child, prometheus = Child("server", command, tmp_path / "server.log"), Prometheus(tmp_path / "prometheus.log")
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: web.answers(f"{url}/v2/health/ready"), 60.0, "the server")
        prometheus.start()
        prometheus.targets([Target(f"127.0.0.1:{port}", "ranker", "r0")])
        (tmp_path / "services.yaml").write_text(LIVE)
        env = {**os.environ, "SLOTUNE_CONFIG": str(tmp_path / "services.yaml"), "SLOTUNE_HOME": str(tmp_path),
               "SLOTUNE_CONN_METRICS": prometheus.url, "SLOTUNE_CONN_CONTROL": url}  # fmt: skip
        env.pop("SLOTUNE_LEDGER_URL", None)
        time.sleep(8)
        main = "from slotune.cli import main; main()"
        asked = [url, "--service", "ranker", "--model", "ranker", "--to", "17/s", "--step", "20s", "--tune", "--json", "--stop-p95", "10x"]
        done = subprocess.run([sys.executable, "-c", main, "stress", *asked], env=env, capture_output=True, text=True, timeout=280)
    finally:
        child.stop()
        prometheus.stop()
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    int8, batching = found["stages"]
    assert "no such lever" in int8["why"] and not int8["kept"]
    assert batching["kept"] and batching["verdict"] == "improved", found
    assert batching["after"]["p95"]["value"] < batching["before"]["p95"]["value"]
