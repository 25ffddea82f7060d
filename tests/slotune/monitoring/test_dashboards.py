"""Every query of the generated dashboards is asked of a real Prometheus that scrapes slotune's own metrics."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
from pathlib import Path
from urllib.parse import quote

import pytest
import uvicorn

from demo import web
from demo.processes import DemoError, free_port, wait_until
from demo.prometheus import Prometheus, Target
from detection.signals import SIGNALS
from slotune.monitoring.dashboards import PAGES, as_text, dashboards
from slotune.web.app import create_app
from tuning.ledger.lines import OpenLine
from tuning.loop.window_store import DIGEST

ROOT = Path(__file__).parents[3]
WITHOUT_HISTORY = ("increase(",)
"""Counters that have not moved while the test runs: the query has to be right, and may answer nothing."""


class Leased:
    """The told ledger with a lease that is in force."""

    def __init__(self, reader) -> None:
        self._reader = reader

    def __getattr__(self, name):
        return getattr(self._reader, name)

    def open_lines(self):
        change = {"lever": "batch_size", "old": {"batch_size": 1}, "new": {"batch_size": 8}}
        return [OpenLine("p", "ranker", "i", "leased", {"chosen": {"changes": [change]}}, 1.0, 2.0)]


def queries() -> list[str]:
    found = []
    for body in dashboards().values():
        found += [t["expr"] for p in body["panels"] for t in p["targets"]]
        found += [mark["expr"] for mark in body["annotations"]["list"]]
    return sorted({e.replace("$service", ".*") for e in found})


def test_the_five_pages_show_every_signal_that_has_a_class():
    made = dashboards()
    assert sorted(made) == [f"slotune-{n}.json" for n in ("data", "home", "inference", "model", "resources")]
    shown = {signal for _, signals in PAGES.values() for signal in signals}
    assert shown <= set(SIGNALS)
    for body in made.values():
        ids = [p["id"] for p in body["panels"]]
        places = {(p["gridPos"]["x"], p["gridPos"]["y"]) for p in body["panels"]}
        assert len(set(ids)) == len(ids) == len(places) and json.loads(as_text(body)) == body
        assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in body["panels"])


def test_the_committed_dashboards_are_the_generated_ones():
    folder = ROOT / "deploy" / "grafana" / "dashboards"
    for name, body in dashboards().items():
        assert (folder / name).read_text() == as_text(body), f"run: slotune dashboards --out {folder.relative_to(ROOT)}"


@pytest.mark.server
@pytest.mark.timeout(180)
def test_every_query_is_answered(told, tmp_path):
    values = dict.fromkeys(SIGNALS, 0.5)
    body = {"at_s": told.now_s, "services": {"ranker": {"values": values, "trend": [], "percentile_source": "summary"}}}
    reading = dataclasses.replace(told, reader=Leased(told.reader), blob={DIGEST: json.dumps(body).encode()}.get)
    server = uvicorn.Server(uvicorn.Config(create_app(lambda: reading), port=free_port(), log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    prometheus = Prometheus(tmp_path / "prometheus.log", honor_labels=True)
    try:
        prometheus.start()
        prometheus.targets([Target(f"127.0.0.1:{server.config.port}", "slotune", "page")])
        left = queries()

        def answered() -> bool:
            nonlocal left
            left = [query for query in left if not answer(prometheus.url, query)]
            return not left

        with contextlib.suppress(DemoError):  # the assertion below names what is left
            wait_until(answered, 45.0, "an answer to every query")
    finally:
        prometheus.stop()
        server.should_exit = True
        thread.join(10)
    assert not left


def answer(url: str, query: str) -> bool:
    body = web.call(f"{url}/api/v1/query?query={quote(query)}")
    assert body["status"] == "success", query
    return bool(body["data"]["result"]) or any(words in query for words in WITHOUT_HISTORY)
