"""One replica first, on real replica processes behind the Kubernetes-shaped API and a real Prometheus."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from demo import web
from demo.processes import wait_until
from demo.scenarios import SCENARIOS
from demo.stack import Stack, render_config
from detection.model import Incident, make_id
from slotune.compose import build
from tuning import attempt
from tuning.loop import act, reconcile
from tuning.loop.parts import Parts
from tuning.model import Change, Diagnosis, Option, Plan
from tuning.services_yaml import load

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]


class Environment:
    """Connections of the stack by name, as the environment would give them."""

    def __init__(self, stack: Stack) -> None:
        from slotune.connections import EnvironmentConnections

        self._real = EnvironmentConnections({
            "SLOTUNE_CONN_SLOTUNE_PROMETHEUS": stack.prometheus.url,
            "SLOTUNE_CONN_SLOTUNE_RANKER": stack._lever_address(),
            "SLOTUNE_CONN_SLOTUNE_CLUSTER": stack.cluster.url,
            "SLOTUNE_CONN_SMTP_DEFAULT": f'{{"conn_type": "smtp", "host": "127.0.0.1", "port": {stack.mailbox.port}}}',
        })  # fmt: skip
        self.get = self._real.get


def sizes(stack: Stack) -> list[int]:
    return [web.call(f"http://{r.address}/config")["batch_size"] for r in stack.replicas.running]


def a_plan(at_s: float, loop: Parts) -> Plan:
    incident = Incident(
        id=make_id("surge"), service="ranker", symptom="by_hand", tier="act", severity="info", opened_at_s=at_s,
        detected_at_s=at_s, signals=(), anomalies=(), reason="by hand",
    )  # fmt: skip
    from tuning.loop import records

    loop.ledger.put(records.incident_record(incident))
    change = Change(lever="batch_size", old={"batch_size": 1}, new={"batch_size": 8})
    plan = Plan(
        id=make_id(incident.id, "plan"), incident_id=incident.id, service="ranker", decided_at_s=at_s, mode="act",
        diagnosis=Diagnosis(cause="unknown"), chosen=Option(changes=(change,)), settle_s=20.0,
    )  # fmt: skip
    loop.ledger.put(records.plan_record(plan))
    return plan


def test_one_real_replica_is_changed_and_a_run_that_is_gone_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = SCENARIOS["canary"]
    stack = Stack(Path(__file__).parents[2], tmp_path, scenario, seed=1)
    try:
        stack.start_mailbox()
        stack.start_prometheus()
        stack.start_service()
        stack.start_load(30.0)
        config = tmp_path / "services.yaml"
        config.write_text(render_config(stack.repository, scenario, 240.0, "http://127.0.0.1:1"))
        monkeypatch.setenv("SLOTUNE_LEDGER_URL", f"sqlite:///{tmp_path}/ledger.sqlite")
        loop = build(load(config), Environment(stack))
        service = loop.service("ranker")
        wait_until(lambda: _all_show_p95(loop), 60.0, "P95 of every replica")
        plan = a_plan(time.time(), loop)
        receipt = act.pull_lever(loop, plan, "batch_size", time.time(), run="run")
        stage = attempt.of(loop.ledger, plan).stage
        assert stage is not None and stage.alone and len(stage.first.peers) == 2
        assert receipt.replica == stage.first.replica == stage.first.label
        assert sorted(sizes(stack)) == [1, 1, 8]
        again = act.pull_lever(loop, plan, "batch_size", time.time(), run="run")
        assert again == receipt and sorted(sizes(stack)) == [1, 1, 8]
        later = time.time() + 60.0
        assert reconcile.reconcile_all(loop, later, alive=lambda _run: True) == []
        (said,) = reconcile.reconcile_all(loop, later, alive=lambda _run: False)
        assert "undone" in said and stage.first.replica in said
        assert sizes(stack) == [1, 1, 1]
        assert loop.actuator(service, "batch_size").read(service).note == ""
    finally:
        stack.stop()


def _all_show_p95(loop: Parts) -> bool:
    from tuning.loop.observe import REPLICA_SIGNALS, look_back
    from tuning.policies.canary import LEAST_POINTS

    windows = loop.source.read_replicas([loop.service("ranker")], REPLICA_SIGNALS, look_back(loop, time.time()))
    shown = windows.get("ranker", {}).values()
    return sum((w.values.get("p95_ms", 0) > 0).sum() >= LEAST_POINTS for w in shown if "p95_ms" in w.values) == 3
