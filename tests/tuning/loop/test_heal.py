"""A sick replica through the whole loop: named, restarted alone, proven beside its peers; left alone where it is not."""

from __future__ import annotations

import dataclasses

import pytest

from detection.errors import SlotuneError
from detection.model import Service
from tests.fakes.dying import Dying
from tests.fakes.ledger import FakeLedger
from tests.fakes.peers import Peer, PeersRestart, PeersSource, PeersWorld
from tests.fakes.world import KeptMails, WorldBatch, parts
from tuning.errors import ControlRefused
from tuning.loop import prove
from tuning.loop.once import run_once
from tuning.loop.parts import Parts
from tuning.model import Change, Receipt, Report, Setting
from tuning.query import Query

SERVICES = """
prometheus: {{rate_window: 15s, step: 5s}}
verification: {{look: 60s, longer_look: 60s}}
safety: {{cool_down: 0s, hold_again: 60s}}
planning: {{warm_up: 30s}}
detection: {{lookback: 10m, detectors: [rules], close_after: 60s, warm_up: 30s, slow_replica_for: 30s, leak_ahead: 2h, leak_for: 60s}}
mail: {{to: [oncall@example.com]}}
services:
  - name: ranker
    serving: slotune_demo
    selectors: {{service: ranker}}
    slo: {{p95: {slo}ms, for: 10s}}
    mode: act
    levers:
      batch_size: {{min: 1, max: 32, connection: ranker_control}}
      replicas: {{min: 1, max: 8, connection: cluster, namespace: demo, target: ranker, cost_per_hour: 1.0}}
      restart:
        actuator: http_restart
        connection: ranker_control
        per_day: 3
        read: {{path: /about, incarnation_at: /started_at}}
        write: {{path: /restart}}
"""


class ReplicasOf:
    """The number of replicas, for a planner that wants more of them."""

    name, lever = "kubernetes", "replicas"

    def __init__(self, world: PeersWorld) -> None:
        self.world = world

    def read(self, service: Service) -> Setting:
        count = len(self.world.peers)
        return Setting(lever="replicas", values={"min_replicas": count, "max_replicas": 8, "replicas": count})

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        before, wanted = self.read(service).values, int(change.new["min_replicas"])
        self.world.applies.append(dict(change.new))
        while len(self.world.peers) < wanted:
            self.world.peers.append(Peer(f"r{len(self.world.peers)}", started_s=self.world.now_s))
        return Receipt(
            id="", plan_id="", service=service.name, lever="replicas", before=before, after=dict(change.new),
            applied=True, changed=before["min_replicas"] != wanted, at_s=self.world.now_s, reason="made and read back",
        )  # fmt: skip


def loop_of(world: PeersWorld, *, slo: float = 30.0, restart: PeersRestart | None = None) -> tuple[Parts, FakeLedger, KeptMails]:
    ledger, mails = FakeLedger(), KeptMails()
    made = parts(world, ledger, mails, SERVICES.format(slo=slo))
    levers = {"batch_size": WorldBatch(world), "replicas": ReplicasOf(world), "restart": restart or PeersRestart(world)}
    source = PeersSource(world)
    return dataclasses.replace(made, source=source, actuator=lambda _service, lever: levers[lever]), ledger, mails


def drive(world: PeersWorld, loop: Parts, seconds: float, every_s: float = 15.0) -> list[Report]:
    reports, end = [], world.now_s + seconds
    while world.now_s < end:
        reports += run_once(loop, world.now, world.wait_until)
        world.wait(every_s)
    return reports


def plans(ledger: FakeLedger) -> list[tuple[str, tuple[str, ...]]]:
    made = sorted(ledger.find(Query(kinds=("choose_action",))), key=lambda record: record.at_s)
    return [
        (r.body["diagnosis"]["cause"], tuple(c["lever"] for c in r.body["chosen"]["changes"])) for r in made
    ]


@pytest.mark.parametrize("factor", [1.4, 2.5])
@pytest.mark.parametrize("count", [2, 4])
def test_one_slow_replica_is_restarted_before_anything_that_costs(factor: float, count: int) -> None:
    world = PeersWorld(*(Peer(f"r{i}") for i in range(count)), qps=lambda _t: 30.0 * count)
    loop, ledger, mails = loop_of(world, slo=21.0)
    drive(world, loop, 300.0)
    world.peers[1].slow = factor
    reports = drive(world, loop, 300.0)
    assert plans(ledger)[0] == ("slow_replica", ("restart",))
    assert world.applies == [{"r1@1": "gone"}]
    assert reports[0].outcome is not None and reports[0].outcome.verdict == "improved" and reports[0].outcome.resolved
    assert reports[0].decision is not None and (reports[0].decision.step, reports[0].decision.next) == ("keep", "done")
    assert reports[0].plan.lease_s is None
    assert mails.mails[-1].subject.startswith("[slotune] Resolved: ranker: restart of r1, P95 ")
    assert "Nothing: a process that has ended is not brought back" in mails.mails[-1].text


def test_a_replica_that_answers_wrongly_is_restarted_although_errors_cure_by_no_lever() -> None:
    world = PeersWorld(Peer("r0"), Peer("r1"), Peer("r2"))
    loop, ledger, _ = loop_of(world, slo=150.0)
    drive(world, loop, 300.0)
    world.peers[2].errors = 0.5
    reports = drive(world, loop, 300.0)
    assert plans(ledger)[0] == ("wrong_replica", ("restart",))
    assert world.applies == [{"r2@1": "gone"}] and world.peers[2].errors == 0
    assert reports[0].outcome is not None and reports[0].outcome.verdict == "improved" and reports[0].outcome.resolved


def test_a_leak_is_forecast_and_ended_long_before_the_limit() -> None:
    world = PeersWorld(Peer("r0"), Peer("r1"))
    loop, ledger, _ = loop_of(world, slo=150.0)
    drive(world, loop, 300.0)
    world.peers[0].leaks = 3.0 / 3600
    reports = drive(world, loop, 900.0)
    assert plans(ledger)[0] == ("leaking_replica", ("restart",))
    assert world.killed == [] and world.applies == [{"r0@1": "gone"}]
    sick = reports[0].plan.diagnosis.sick
    assert sick is not None and sick.left_s is not None and sick.left_s.low < 3600 < 2 * sick.left_s.high
    assert reports[0].outcome is not None and reports[0].outcome.verdict == "improved" and reports[0].outcome.resolved
    assert "reaches its limit of 4 GB in" in reports[0].plan.reason


def test_where_all_replicas_are_slow_none_is_restarted() -> None:
    world = PeersWorld(Peer("r0"), Peer("r1"))
    loop, ledger, _ = loop_of(world, slo=30.0)
    drive(world, loop, 300.0)
    for peer in world.peers:
        peer.slow = 2.5
    drive(world, loop, 120.0)
    assert plans(ledger) and all("restart" not in levers for _, levers in plans(ledger))


def test_a_restart_that_does_not_help_is_not_repeated_and_another_lever_follows() -> None:
    world = PeersWorld(Peer("r0"), Peer("r1"))
    loop, ledger, _ = loop_of(world, slo=21.0)
    drive(world, loop, 300.0)
    world.peers[1].slow, world.peers[1].chronic = 2.5, True
    reports = drive(world, loop, 600.0)
    assert reports[0].outcome is not None and reports[0].outcome.verdict == "unchanged"
    assert reports[0].decision is not None and (reports[0].decision.step, reports[0].decision.next) == ("keep", "next_attempt")
    assert "nothing to undo" in reports[0].decision.reason and reports[0].rollback == ()
    assert [a for a in world.applies if "r1@1" in a or "r1@2" in a] == [{"r1@1": "gone"}]
    later = [levers for _, levers in plans(ledger)[1:]]
    assert later and all("restart" not in levers for levers in later)


def test_restarts_are_bounded_per_day() -> None:
    world = PeersWorld(Peer("r0"), Peer("r1"), Peer("r2"))
    loop, _, _ = loop_of(world, slo=150.0)
    drive(world, loop, 300.0)
    told = []
    for _ in range(5):
        world.peers[2].errors = 0.5
        told += drive(world, loop, 400.0)
    assert len(world.applies) == 3
    assert "3 restarts were made within a day, and the lever allows 3" in told[-1].plan.reason


def test_one_replica_alone_is_never_restarted() -> None:
    world = PeersWorld(Peer("r0", leaks=0.0))
    loop, _, _ = loop_of(world, slo=150.0)
    drive(world, loop, 300.0)
    world.peers[0].leaks = 20.0 / 3600
    reports = drive(world, loop, 300.0)
    assert world.applies == []
    assert "no other replica is ready, and 1 must be while it restarts" in reports[0].plan.reason


def test_a_replica_that_warms_up_is_not_sick() -> None:
    world = PeersWorld(Peer("r0"), Peer("r1", cold_s=60.0))
    loop, ledger, _ = loop_of(world, slo=21.0)
    drive(world, loop, 300.0)
    world.restart(world.peers[1])
    drive(world, loop, 35.0, every_s=5.0)
    assert plans(ledger) and set(plans(ledger)) == {("warming_up", ())}


def test_a_refused_restart_changes_nothing_and_is_tried_again() -> None:
    class Refuses(PeersRestart):
        refused = 0

        def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
            self.refused += 1
            if self.refused < 3:
                raise ControlRefused("a PodDisruptionBudget allows no eviction now")
            return super().apply(service, change, key=key)

    world = PeersWorld(Peer("r0"), Peer("r1"))
    lever = Refuses(world)
    loop, _, mails = loop_of(world, slo=21.0, restart=lever)
    drive(world, loop, 300.0)
    world.peers[1].slow = 2.5
    reports = drive(world, loop, 600.0)
    assert [r.outcome is None for r in reports[:3]] == [True, True, False]
    assert "allows no eviction" in "".join(receipt.reason for receipt in reports[0].receipts)
    told = [mail.subject for mail in mails.mails]
    assert ["allows no eviction" in subject for subject in told] == [True, False], "the same refusal is told once"
    assert world.applies == [{"r1@1": "gone"}]


def test_a_run_that_dies_after_the_restart_is_proven_and_never_undone() -> None:
    class Dies(PeersRestart):
        died = False

        def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
            made = super().apply(service, change, key=key)
            if not self.died:
                self.died = True
                raise SystemExit("killed")
            return made

    world = PeersWorld(Peer("r0"), Peer("r1"))
    loop, ledger, _ = loop_of(world, slo=21.0, restart=Dies(world))
    drive(world, loop, 300.0)
    world.peers[1].slow = 2.5
    with pytest.raises(SystemExit):
        drive(world, loop, 300.0)
    drive(world, loop, 600.0)
    assert world.applies == [{"r1@1": "gone"}]
    assert not ledger.open_changes()
    verdicts = [r.body["verdict"] for r in ledger.find(Query(kinds=("verify_p95",))) if "verdict" in r.body]
    assert verdicts == ["improved"]


def test_undoing_a_restart_says_that_there_is_nothing_to_undo() -> None:
    world = PeersWorld(Peer("r0"), Peer("r1"))
    loop, _, _ = loop_of(world, slo=21.0)
    drive(world, loop, 300.0)
    world.peers[1].slow = 2.5
    report = drive(world, loop, 300.0)[0]
    assert prove.undo(loop, report.plan, world.now()) == []
    assert world.applies == [{"r1@1": "gone"}]


def test_an_unreadable_lever_is_a_sentence() -> None:
    class Broken(PeersRestart):
        def read(self, service: Service) -> Setting:
            raise SlotuneError("GET http://r1:8000/about answered 404")

    world = PeersWorld(Peer("r0"), Peer("r1"))
    loop, _, _ = loop_of(world, slo=150.0, restart=Broken(world))
    drive(world, loop, 300.0)
    world.peers[1].errors = 0.5
    reports = drive(world, loop, 60.0)
    assert "the restart lever cannot be read: GET http://r1:8000/about answered 404" in reports[0].plan.reason


# Between the plan and its claim (2, 3) nothing is open, and whoever runs the loop runs the attempt again.
@pytest.mark.parametrize("at", [1, *range(4, 21)])
def test_wherever_a_run_dies_the_process_is_ended_once_and_proven(at: int) -> None:
    world = PeersWorld(Peer("r0"), Peer("r1"))
    loop, ledger, _ = loop_of(world, slo=21.0)
    world.wait(300.0)
    dying = Dying(ledger, at)
    loop = dataclasses.replace(loop, ledger=dying)
    world.peers[1].slow = 2.5
    with pytest.raises(SystemExit):
        drive(world, loop, 240.0)
    drive(world, loop, 420.0)
    assert world.applies == [{"r1@1": "gone"}]
    assert not ledger.open_changes()
    verdicts = [r.body["verdict"] for r in ledger.find(Query(kinds=("verify_p95",))) if "verdict" in r.body]
    assert verdicts and set(verdicts) == {"improved"}
