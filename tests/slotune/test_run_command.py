"""`slotune run` as a person starts it: a process of its own that sweeps, says so, and ends when it is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from slotune.cli import build_app
from slotune.commands.run import _interval
from tests.fakes.prometheus_http import FakePrometheus
from tuning.errors import ConfigError

SERVICES = """
prometheus: {connection: metrics}
services:
  - name: ranker
    serving: slotune_demo
    selectors: {service: ranker}
    slo: {p95: 150ms}
"""


@pytest.fixture
def prometheus():
    fake = FakePrometheus()
    yield fake
    fake.close()


def start(folder: Path, address: str, *arguments: str) -> subprocess.Popen[str]:
    (folder / "services.yaml").write_text(SERVICES)
    env = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "SLOTUNE_CONFIG": str(folder / "services.yaml"),
        "SLOTUNE_HOME": str(folder),
        "SLOTUNE_CONN_METRICS": address,
    }
    env.pop("SLOTUNE_LEDGER_URL", None)
    command = [sys.executable, "-c", "from slotune.cli import main; main()", "run", *arguments]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.server
def test_once_sweeps_says_so_and_ends(tmp_path, prometheus):
    done = start(tmp_path, prometheus.url, "--once")
    said, _ = done.communicate(timeout=120)
    assert done.returncode == 0, said
    assert "Swept 1 service: nothing to do." in said
    assert "Traceback" not in said


@pytest.mark.server
def test_once_fails_with_a_sentence_where_nothing_answers(tmp_path):
    done = start(tmp_path, "http://127.0.0.1:9", "--once")
    said, _ = done.communicate(timeout=120)
    assert done.returncode == 1, said
    assert "This sweep failed: " in said and "Traceback" not in said


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_between_two_sweeps(tmp_path, prometheus, number):
    running = start(tmp_path, prometheus.url, "--every", "1h")
    assert running.stdout is not None
    said = []
    for line in running.stdout:
        said.append(line)
        if "Learned" in line or "could be learned" in line:
            break
    running.send_signal(number)
    rest, _ = running.communicate(timeout=60)
    assert running.returncode == 0, rest
    assert "Traceback" not in "".join(said) + rest


@pytest.mark.parametrize(("text", "what"), [("soon", "is not a duration"), ("1s", "at least 5s"), ("", "not a duration")])
def test_an_interval_that_is_none_is_a_sentence(text, what):
    with pytest.raises(ConfigError, match=what):
        _interval(text)


def test_a_plan_that_nobody_asks_about_cannot_be_answered(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    monkeypatch.setenv("SLOTUNE_HOME", str(tmp_path))
    monkeypatch.setenv("SLOTUNE_CONFIG", str(tmp_path / "services.yaml"))
    monkeypatch.delenv("SLOTUNE_LEDGER_URL", raising=False)
    (tmp_path / "services.yaml").write_text(SERVICES)
    asked = CliRunner().invoke(build_app(["approve"]), ["approve", "plan-1"])
    assert asked.exit_code != 0
    assert "no plan 'plan-1' waits for an answer (waiting: none)" in str(asked.exception)
