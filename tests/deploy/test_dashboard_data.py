"""Every query of the demo dashboard returns data from a real Prometheus that scrapes the demo's replicas."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from demo import web
from demo.processes import wait_until
from demo.scenarios import SCENARIOS
from demo.stack import Stack

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]
ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = [ROOT / "deploy" / "grafana" / "dashboards" / "service.json"]


def queries() -> list[str]:
    found = [t["expr"] for path in DASHBOARDS for p in json.loads(path.read_text())["panels"] for t in p["targets"]]
    return [e.replace("$__rate_interval", "10s").replace("$service", "ranker") for e in found]


def has_data(url: str, query: str) -> bool:
    rows = web.call(f"{url}/api/v1/query?query={quote(query)}")["data"]["result"]
    return any(row["value"][1] not in ("NaN", "+Inf", "-Inf") for row in rows)


def test_every_query_returns_data(tmp_path: Path) -> None:
    stack = Stack(ROOT, tmp_path, SCENARIOS["canary"], seed=1)
    try:
        stack.start_mailbox()
        stack.start_prometheus()
        stack.start_service()
        stack.start_load(20.0)
        url = stack.prometheus.url
        asked = queries()
        assert len(asked) >= 10
        left: list[str] = asked

        def all_answer() -> bool:
            nonlocal left
            left = [query for query in left if not has_data(url, query)]
            return not left

        wait_until(all_answer, 40.0, "data behind every panel")
    finally:
        stack.stop()
    assert not left
