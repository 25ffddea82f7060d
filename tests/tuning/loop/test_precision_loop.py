"""INT8 through the loop: agreement outranks P95, shadowing ends with the verdict, a long build's queue is waited for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from detection.model import Service
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import SERVICES, KeptMails, World, parts
from tuning.errors import ControlUnreachable
from tuning.loop.learn import DRIFT
from tuning.loop.once import run_once
from tuning.loop.parts import Parts
from tuning.model import Change, Receipt, Setting

INT8 = SERVICES.replace(
    "batch_size: {min: 1, max: 32, connection: ranker_control}",
    "precision: {connection: ranker, onnx: m.onnx, calibration: c.npz, repository: /r, min_agreement: 0.98}",
)


class PrecisionWorld(World):
    """A world with a version: INT8 takes a quarter of the time, and agrees with FP32 as much as it is told."""

    def __init__(self, agreement: float = 0.995, build_s: float = 0.0, **kwargs: Any) -> None:
        super().__init__(qps=lambda t: 60.0 if t < 120 else 160.0, **kwargs)
        self.int8, self.shadowed, self.agreement, self.build_s = False, False, agreement, build_s
        self.offline = False
        self.told: list[Service] = []

    def _second(self) -> None:
        self._alpha_ms, self._beta_ms = (2.0, 0.125) if self.int8 else (8.0, 0.5)
        super()._second()
        if self.shadowed:
            self._rows[-1]["agreement"] = self.agreement


class Precision:
    """The precision lever of the world. `dies`: raise instead of returning, after the swap."""

    name, lever = "model_repository", "precision"

    def __init__(self, world: PrecisionWorld, dies: type[BaseException] | None = None) -> None:
        self.world, self.dies = world, dies

    def read(self, service: Service) -> Setting:
        values = {"version": "2", "precision": "int8"} if self.world.int8 else {"version": "1", "precision": "fp32"}
        return Setting(lever="precision", values=dict(values))

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        self.world.told.append(service)
        before = self.read(service).values
        wanted = change.new["precision"] == "int8"
        if wanted and not self.world.int8:
            self.world.wait(self.world.build_s)
        changed, self.world.int8, self.world.shadowed = wanted != self.world.int8, wanted, wanted
        if self.dies is not None:
            raise self.dies
        return Receipt(
            id="", plan_id="", service=service.name, lever="precision", before=before,
            after=self.read(service).values, applied=True, changed=changed, at_s=self.world.now_s, reason="swapped",
        )  # fmt: skip

    def conclude(self, service: Service) -> None:
        if self.world.offline:
            raise ControlUnreachable("nobody answers")
        self.world.shadowed = False


def world_and_loop(**kwargs: Any) -> tuple[PrecisionWorld, FakeLedger, KeptMails, Parts]:
    world, ledger, mails = PrecisionWorld(**kwargs), FakeLedger(), KeptMails()
    world.wait(60)
    loop = replace(parts(world, ledger, mails, INT8), actuator=lambda _service, _lever: Precision(world))
    return world, ledger, mails, loop


def drive(world: PrecisionWorld, loop: Parts, seconds: float) -> list[Any]:
    reports, end = [], world.now_s + seconds
    while world.now_s < end and not reports:
        reports += [report for report in run_once(loop, world.now, world.wait_until) if report.receipts]
        world.wait(15)
    return reports


def test_a_faster_version_that_agrees_is_kept_and_shadowing_ends() -> None:
    world, ledger, _mails, loop = world_and_loop()
    (report,) = drive(world, loop, 600)
    assert report.outcome.verdict == "improved" and report.decision.step == "keep"
    assert world.int8 and not world.shadowed and not ledger.open_changes()
    assert any(guarded.signal == "agreement" and guarded.ok for guarded in report.outcome.guards)


def test_a_faster_version_that_answers_differently_is_rolled_back_however_good_p95_is() -> None:
    world, ledger, mails, loop = world_and_loop(agreement=0.93)
    (report,) = drive(world, loop, 600)
    assert report.outcome.p95_after_ms < report.outcome.p95_before_ms / 2
    assert report.outcome.verdict == "worse" and report.decision.step == "roll_back"
    assert not world.int8 and not world.shadowed and not ledger.open_changes()
    assert "93.00% of the shadowed answers agree" in mails.mails[0].text
    assert "Rolled back" in mails.mails[0].subject


@pytest.mark.parametrize("agreement", [0.995, 0.93], ids=["kept", "rolled back"])
def test_shadowing_ends_too_when_the_task_was_killed_after_the_swap(agreement: float) -> None:
    class Killed(BaseException):
        pass

    world, ledger, _mails, loop = world_and_loop(agreement=agreement)
    dying = replace(loop, actuator=lambda _service, _lever: Precision(world, Killed))
    with pytest.raises(Killed):
        drive(world, dying, 600)
    assert world.int8 and world.shadowed
    for _ in range(40):
        run_once(loop, world.now, world.wait_until)
        world.wait(15)
        if not ledger.open_changes():
            break
    assert not world.shadowed and not ledger.open_changes() and world.int8 is (agreement > 0.98)


def test_a_replica_that_is_away_at_the_verdict_is_told_later() -> None:
    world, ledger, _mails, loop = world_and_loop()
    world.offline = True
    with pytest.raises(ControlUnreachable):
        drive(world, loop, 600)
    assert world.shadowed and ledger.open_changes()
    world.offline = False
    run_once(loop, world.now, world.wait_until)
    assert not world.shadowed and not ledger.open_changes() and world.int8


def test_the_queue_of_a_long_build_is_waited_for() -> None:
    # 600 s of build leave a queue of about 25,000; INT8 carries 470/s, so it takes some 80 s to drain.
    world, ledger, _mails, loop = world_and_loop(build_s=600.0)
    (report,) = drive(world, loop, 1500)
    assert report.outcome.verdict == "improved" and report.outcome.resolved
    (settle,) = [record for record in ledger.records.values() if record.kind == "settle"]
    planned = report.plan.settle_s
    assert planned < settle.body["settle_s"] <= planned + loop.settings.verification.drain_max_s
    assert "requests waited" in settle.body["reason"]


def test_what_is_known_about_drift_goes_to_the_lever() -> None:
    world, ledger, _mails, loop = world_and_loop()
    figures = (
        '[{"service": "ranker", "signal": "accuracy", "psi": 0.6, "psi_limit": 0.25, "reason": "r", "at_s": 5.0},'
        '{"service": "ranker", "signal": "qps", "psi": 9.0, "psi_limit": 0.25, "reason": "r", "at_s": 5.0},'
        '{"service": "other", "signal": "accuracy", "psi": 9.0, "psi_limit": 0.25, "reason": "r", "at_s": 5.0}]'
    )
    ledger.put_blob(DRIFT, figures.encode(), at_s=0.0)
    drive(world, loop, 600)
    told = world.told[0].levers["precision"].options["drift"]
    assert isinstance(told, dict) and told["psi"] == 0.6
