"""A real Alertmanager (and Prometheus) for tests: from the system's packages, on free loopback ports."""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from demo.processes import free_port


def binary(*names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.fail(f"{names[0]} is not there: run scripts/system-packages")
    return found


def until(true, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
        time.sleep(0.2)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


@contextmanager
def running(command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        try:
            yield process
        finally:
            process.kill()
            process.wait(20)


@contextmanager
def alertmanager(home: Path, *receivers: dict) -> Iterator[str]:
    """Its address. receivers: webhook_configs, each a receiver that is told everything at once."""
    home.mkdir(parents=True, exist_ok=True)
    names = [f"to{n}" for n in range(len(receivers))]
    routes = [{"receiver": name, "continue": True} for name in names]
    config = {
        "route": {"receiver": names[0], "group_by": ["alertname", "service"], "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1h", "routes": routes},
        "receivers": [{"name": n, "webhook_configs": [{"send_resolved": True, **r}]} for n, r in zip(names, receivers, strict=True)],
    }
    (home / "alertmanager.yml").write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        binary("prometheus-alertmanager", "alertmanager"), f"--config.file={home / 'alertmanager.yml'}", f"--storage.path={home / 'data'}",
        f"--web.listen-address={url.removeprefix('http://')}", "--cluster.listen-address=",
    ]  # fmt: skip
    with running(command, home / "alertmanager.log"):
        until(lambda: answers(f"{url}/-/ready"), 60, "Alertmanager")
        yield url


@contextmanager
def prometheus(home: Path, *, scrape: str, rules: str, alertmanager_url: str) -> Iterator[str]:
    """Its address. scrape: the place (host:port) of slotune's metrics."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "rules.yml").write_text(rules)
    place = alertmanager_url.removeprefix("http://")
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(home / "rules.yml")],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [place]}]}]},
        "scrape_configs": [{"job_name": "slotune", "honor_labels": True, "static_configs": [{"targets": [scrape]}]}],
    }
    (home / "prometheus.yml").write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        binary("prometheus"), f"--config.file={home / 'prometheus.yml'}", f"--storage.tsdb.path={home / 'data'}",
        f"--web.listen-address={url.removeprefix('http://')}",
    ]  # fmt: skip
    with running(command, home / "prometheus.log"):
        until(lambda: answers(f"{url}/-/ready"), 60, "Prometheus")
        yield url
