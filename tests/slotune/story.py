"""A ledger with a story in it: a surge that a larger batch cured, beside a service that nobody finds series of."""

from __future__ import annotations

import dataclasses

import pytest

from slotune.views.reading import Reading
from tests.fakes.world import SERVICES, KeptMails, World, WorldSource, parts
from tuning.ledger import SqlLedger
from tuning.loop.once import run_once
from tuning.model import Record

SILENT = "  - {name: silent, serving: vllm, selectors: {a: b}, slo: {p95: 2s}, mode: approve}\n"
NASTY = "<script>alert(1)</script> \x1b[31m & \"quotes\""


class OnlyRanker(WorldSource):
    def read(self, services, signals, span):
        return super().read([s for s in services if s.name == "ranker"], signals, span)


@pytest.fixture(scope="session")
def told(tmp_path_factory) -> Reading:
    """The reading after six minutes: one incident resolved by batch_size, one open, and one with a hostile text."""
    world = World(qps=lambda t: 60.0 if t < 120 else 180.0)
    ledger = SqlLedger.open(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'l.sqlite'}")
    loop = parts(world, ledger, KeptMails(), SERVICES + SILENT)
    loop = dataclasses.replace(loop, source=OnlyRanker(world))
    world.wait(60)
    end_s = world.now_s + 360
    while world.now_s < end_s:
        run_once(loop, world.now, world.wait_until)
        world.wait(15)
    body = {
        "id": "nasty", "service": "silent", "symptom": NASTY, "tier": "warn", "severity": "warning",
        "opened_at_s": world.now_s - 5, "detected_at_s": world.now_s, "signals": ["p95_ms"], "anomalies": [], "reason": NASTY,
    }  # fmt: skip
    ledger.put(
        Record(id="nasty", kind="open_incidents", service="silent", incident_id="nasty", at_s=world.now_s, body=body)
    )
    return Reading(ledger, ledger.get_blob, loop.settings, world.now_s)
