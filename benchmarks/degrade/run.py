"""One overload twice, without the variant lever and with it: slotune's own loop around a simulated service."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.control.runs import STEP_S, SWEEP_S
from benchmarks.control.simulator import Faults, SimulatedService
from benchmarks.control.source import SimulatedSource
from benchmarks.degrade.cases import NAMES, ONSET_S, Case, rate_of
from benchmarks.simulated import START_S, SimulatedLever, run_until
from tests.fakes.ledger import FakeLedger
from tuning import planning, verification
from tuning.loop.learn_latency import learn_latency
from tuning.loop.parts import Parts
from tuning.model import Knob, Plan, Setting
from tuning.past import KINDS, Past
from tuning.query import Query
from tuning.report.review import review
from tuning.settings import Settings

RATE_WINDOW_S = 20.0
SLO_OVER_CALM = 3.0
"""The SLO over the worst quarter of a minute of calm traffic ..."""
SHEDS_SLO_MS = 6000.0
"""... and at least this where requests are refused: the simulated queue counts whom it takes second by second."""
SWITCH_S = 3.0
"""How long a switch takes: a model that is loaded beside the other."""


@dataclass(frozen=True)
class Result:
    """goodput: answers within the SLO per second over the overload. switches: (second, variant), the first at onset or
    later. lost: points times minutes, by the truth; told: by the review. back_s: from the end of the overload until
    the whole model served again for good (None: it did not). kept_after: share of quarter minutes after the end of the
    overload, once the queue was gone, in which the SLO was kept."""

    seed: int
    overload: float
    sheds: bool
    offered: float
    slo_ms: float
    goodput_without: float
    goodput_with: float
    settled_goodput: float
    switches: tuple[tuple[float, str], ...]
    quality_loss: float
    lost: float
    told: float
    back_s: float | None
    kept_after: float
    cpu_s: float

    @property
    def ratio(self) -> float:
        return self.goodput_with / self.goodput_without if self.goodput_without > 0 else math.inf


class _Lever(SimulatedLever):
    """A lever of the simulated service; the variant is a log of who serves since when."""

    def __init__(self, simulated: SimulatedService, lever: str, log: list[tuple[float, str]]) -> None:
        super().__init__(simulated, lever)
        self._service, self._log = simulated, log

    def _setting(self) -> Setting:
        s = self._service
        values: dict[str, dict[str, Knob]] = {
            "batch_size": {"batch_size": s.batch, "batch_timeout_ms": s.timeout_ms},
            "replicas": {"min_replicas": s.desired, "max_replicas": s.desired, "replicas": len(s.replicas)},
            "variant": {"variant": self._log[-1][1]},
            "admission": {"queue_limit": s.profile.queue_limit},
        }
        return Setting(lever=self.lever, values=values[self.lever])

    def _put(self, knobs: Mapping[str, Knob]) -> None:
        if self.lever == "variant":
            self._log.append((self._service.now_s + SWITCH_S, str(knobs["variant"])))
        elif self.lever == "admission":
            self._service.set_queue_limit(int(knobs["queue_limit"]))
        elif self.lever == "batch_size":
            self._service.set_batch(int(knobs["batch_size"]), float(knobs["batch_timeout_ms"]))


def run(case: Case) -> Result:
    started = time.process_time()
    slo_ms = slo_of(case)
    without, _, _ = _one(case, slo_ms, with_variants=False)
    with_, log, ledger = _one(case, slo_ms, with_variants=True)
    plans = [Plan.model_validate(r.body) for r in ledger.records.values() if r.kind == "choose_action"]
    lent = [plan for plan in plans if plan.chosen.quality_loss]
    seen = review(Past().add(reversed(ledger.find(Query(kinds=KINDS)))), {}, (), 0.0, START_S + case.end_s)
    whole = [at_s for at_s, name in log if name == NAMES[0]]
    back = whole[-1] - case.over_s if log[-1][1] == NAMES[0] and len(log) > 1 else None
    spans = range(int(case.over_s) + 120, int(case.end_s) - 15, 15)
    kept = [with_.p95_ms(t, t + 15) <= slo_ms for t in spans]
    settled = next((at_s for at_s, name in log if name != NAMES[0]), case.over_s) + 60
    return Result(
        seed=case.seed,
        overload=round(case.overload, 2),
        sheds=case.sheds,
        offered=round(float(np.mean([rate_of(case, t) for t in range(int(ONSET_S), int(case.over_s))])), 1),
        slo_ms=round(slo_ms, 1),
        goodput_without=round(goodput(without, slo_ms, ONSET_S, case.over_s), 1),
        goodput_with=round(goodput(with_, slo_ms, ONSET_S, case.over_s), 1),
        settled_goodput=round(goodput(with_, slo_ms, min(settled, case.over_s - 1), case.over_s), 1),
        switches=tuple((round(at_s, 1), name) for at_s, name in log[1:]),
        quality_loss=max((plan.chosen.quality_loss for plan in lent), default=0.0),
        lost=round(_lost(case, log), 2),
        told=round(seen.quality, 2),
        back_s=None if back is None else round(back, 1),
        kept_after=round(float(np.mean(kept)), 3),
        cpu_s=round(time.process_time() - started, 1),
    )


def slo_of(case: Case) -> float:
    calm = SimulatedService(
        case.profile, Faults(rate=lambda t: rate_of(case, t)), batch=case.batch, timeout_ms=2.0,
        replicas=case.replicas, seed=case.seed,
    )  # fmt: skip
    calm.advance(ONSET_S - 90)
    slo_ms = SLO_OVER_CALM * max(calm.p95_ms(t, t + 15) for t in range(60, int(ONSET_S) - 90, 15))
    return max(slo_ms, SHEDS_SLO_MS) if case.sheds else slo_ms


def _one(
    case: Case, slo_ms: float, *, with_variants: bool
) -> tuple[SimulatedService, list[tuple[float, str]], FakeLedger]:
    log = [(-math.inf, NAMES[0])]

    def slow(t: float, _replica: int) -> float:
        name = [one for at_s, one in log if at_s <= t][-1]
        return case.true[NAMES.index(name)]

    faults = Faults(rate=lambda t: rate_of(case, t), slow=slow)
    profile = case.profile
    if case.sheds:
        profile = replace(profile, queue_limit=_short_queue(case, slo_ms))
    simulated = SimulatedService(
        profile, faults, batch=case.batch, timeout_ms=2.0, replicas=case.replicas, seed=case.seed
    )
    simulated.advance(ONSET_S - 90)
    parts, ledger = parts_of(case, slo_ms, simulated, log, lever="variant" if with_variants else "")
    learn_latency(parts, START_S + simulated.now_s)
    run_until(parts, simulated, case.end_s if with_variants else case.over_s, SWEEP_S)
    return simulated, log, ledger


def _short_queue(case: Case, slo_ms: float) -> int:
    """Requests that may wait at a replica so that the last of them is answered within four fifths of the SLO."""
    batch_ms = case.profile.alpha_ms + case.profile.beta_ms * case.batch
    return int((0.8 * slo_ms / batch_ms - 1) * case.batch)


def parts_of(
    case: Case, slo_ms: float, simulated: SimulatedService, log: list[tuple[float, str]], *, lever: str
) -> tuple[Parts, FakeLedger]:
    """The production loop around a simulated service. lever: that it has beside batches and replicas ("": none)."""
    settings, ledger = _settings(case, slo_ms, lever), FakeLedger()
    levers = {name: _Lever(simulated, name, log) for name in ("batch_size", "replicas", "variant", "admission")}
    planned = settings.planning.model_copy(update={"rate_window_s": RATE_WINDOW_S, "verify_window_s": 90.0})
    return Parts(
        settings=settings,
        services={s.name: s for s in settings.service_values()},
        source=SimulatedSource(simulated, RATE_WINDOW_S),
        actuator=lambda _service, lever: levers[lever],
        planner=planning.get("model")(planned),
        verifier=verification.get("before_after")(settings.verification),
        ledger=ledger,
        notifiers=[],
    ), ledger


def _settings(case: Case, slo_ms: float, lever: str) -> Settings:
    levers: dict[str, object] = {
        "batch_size": {"connection": "sim", "min": 1, "max": case.batch, "timeout_max_ms": 2.0, "effect_delay_s": 2.0},
        "replicas": {"connection": "sim", "min": 1, "max": case.replicas, "namespace": "sim", "target": "sim",
                     "cost_per_hour": 1.2},
    }  # fmt: skip
    if lever == "variant":
        told = [
            {"name": name, "quality": quality, **({} if name == NAMES[0] else {"service_time": time_})}
            for name, quality, time_ in zip(NAMES, case.quality, case.told, strict=True)
        ]
        levers["variant"] = {
            "connection": "sim", "mode": "act", "quality_of": "a simulated share", "variants": told,
            "effect_delay_s": SWITCH_S, "read": {"path": "/x", "variant_at": "/v"}, "write": {"path": "/x/{variant}"},
        }  # fmt: skip
    if lever == "admission":
        levers["admission"] = {
            "connection": "sim", "mode": "act", "limits": "queue", "min": 1, "effect_delay_s": 1.0,
            "read": {"path": "/x", "limit_at": "/q"}, "write": {"path": "/x/{limit}"},
        }  # fmt: skip
    service = {
        "name": "simulated", "serving": "slotune_demo", "selectors": {"service": "simulated"}, "mode": "act",
        "slo": {"p95_ms": slo_ms, "for_s": 30.0}, "levers": levers,
    }  # fmt: skip
    return Settings.model_validate({
        "prometheus": {"connection": "sim", "rate_window_s": RATE_WINDOW_S, "step_s": STEP_S},
        "services": [service],
        "detection": {"lookback_s": 600.0, "detectors": ["rules"]},
        "verification": {"look_s": 90.0, "longer_look_s": 120.0},
        "safety": {"cool_down_s": 0.0, "changes_per_hour": 20},
    })  # fmt: skip


def goodput(simulated: SimulatedService, slo_ms: float, start_s: float, end_s: float) -> float:
    """True answers within the SLO per second."""
    part = simulated.seconds[int(start_s) : int(end_s)]
    return sum(int((second.latencies <= slo_ms / 1e3).sum()) for second in part) / max(1, len(part))


def _lost(case: Case, log: list[tuple[float, str]]) -> float:
    """Points of quality times minutes, by who really served."""
    ends = [at_s for at_s, _ in log[1:]] + [case.end_s]
    total = 0.0
    for (at_s, name), end_s in zip(log, ends, strict=True):
        if name != NAMES[0]:
            total += 100 * (case.quality[0] - case.quality[NAMES.index(name)]) * (end_s - at_s) / 60
    return total
