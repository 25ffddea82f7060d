"""A detector of one's own, added through an argument: it runs in learning, in the sweep and in the backtest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from detection import detectors, pipeline
from detection.backtest.recorded import from_window
from detection.backtest.run import Plan, replay_group
from detection.baselines import BaselineSet
from detection.methods import Band, Joint, Method, OwnSeries, View
from detection.model import MetricWindow, Score, Service, Slo, Span
from detection.panel import Floats
from detection.ports import Baseline
from detection.series import Arrays
from detection.settings import DetectionSettings

END_S = 1_700_006_400.0
DAY_S = 86_400.0
SERVICES = [Service(name=name, serving="slotune_demo", slo=Slo(p95_ms=1e6)) for name in ("calm", "busy")]


class ToyBand(Band):
    """Everything beyond one and a half times the median of the history."""

    name = "toy"

    def band(self, view: View) -> tuple[Floats, Floats]:
        center = view.column("q50")
        return center, np.float32(np.log(1.5)) + 0 * center


class ToyJoint(Joint):
    """The largest feature of a row."""

    name = "toy"
    share = 0.6

    def fit(self, rows: Floats) -> dict[str, Floats]:
        return {"usual": np.abs(rows).max(axis=(1, 2))}

    def score(self, rows: Floats, arrays: Arrays) -> Floats:
        out: Floats = np.abs(rows).max(axis=2)
        return out


class ToyOwn(OwnSeries):
    """How far a series is from its median, on the log scale."""

    name = "toy"
    symptom = "toy_trouble"
    share = 0.1
    signals = ("p95_ms",)

    def fit(self, x: Floats, step_s: float, least: Floats) -> dict[str, Floats]:
        return {"median": np.nanmedian(x, axis=1)}

    def score(self, x: Floats, step_s: float, arrays: Arrays) -> Floats:
        out: Floats = np.abs(x - arrays["median"][:, None])
        return out

    def reason(self, title: str, score: float) -> str:
        return f"{title} is {score:.1f} away"


class ToyDetector:
    """Says that the newest latency is above twice what it learned, in a plain sentence."""

    name = "toy"

    def learn(self, history: Mapping[str, MetricWindow]) -> Baseline:
        return {service: {"usual": np.array([np.median(w.values["p95_ms"])])} for service, w in history.items()}

    def score(self, windows: Mapping[str, MetricWindow], baseline: Baseline, at_s: float) -> Sequence[Score]:
        said = []
        for service, window in windows.items():
            value = window.between(window.span.start_s, at_s).last("p95_ms")
            if value is not None and service in baseline:
                times = value / (2 * float(baseline[service]["usual"][0]))
                said.append(
                    Score(service=service, detector="toy", signal="p95_ms", at_s=at_s, score=times, reason="toy says")
                )
        return said


def windows(end_s: float, days: float) -> dict[str, MetricWindow]:
    span = Span(end_s - days * DAY_S + 300.0, end_s, 300.0)
    rng = np.random.default_rng(3)
    level = {"p95_ms": 30.0, "mean_ms": 15.0, "qps": 200.0}
    return {
        s.name: MetricWindow(
            s.name, span, {k: v * np.exp(0.03 * rng.normal(size=span.points)) for k, v in level.items()}
        )
        for s in SERVICES
    }


def slow(found: dict[str, MetricWindow]) -> dict[str, MetricWindow]:
    found["busy"].values["p95_ms"][-6:] *= 4
    return found


KINDS = [ToyBand, ToyJoint, ToyOwn, ToyDetector]


@pytest.mark.parametrize("toy", KINDS)
def test_it_runs_in_learning_and_in_the_sweep(toy: type[Method]) -> None:
    registry = {**detectors.REGISTRY, "toy": lambda services, settings: toy()}
    settings = DetectionSettings(detectors=("toy",))
    learned = pipeline.learn(SERVICES, windows(END_S, 4), {}, settings, registry=registry)
    stored = BaselineSet.from_bytes(learned.to_bytes())
    live = slow(windows(END_S + 1800, 0.125))
    anomalies, scores, _ = pipeline.detect(SERVICES, live, stored, END_S + 1800, settings, registry=registry)
    assert [(a.service, a.detectors) for a in anomalies] == [("busy", ("toy",))]
    assert [score.service for score in scores if score.tier] == ["busy"]
    assert anomalies[0].symptom == ("toy_trouble" if toy is ToyOwn else "")
    calm = windows(END_S + 1800, 0.125)
    assert pipeline.detect(SERVICES, calm, stored, END_S + 1800, settings, registry=registry)[0] == []


@pytest.mark.parametrize("toy", KINDS)
def test_it_runs_in_the_backtest(toy: type[Method]) -> None:
    registry = {**detectors.REGISTRY, "toy": lambda services, settings: toy()}
    plan = Plan(DetectionSettings(detectors=("toy",)), 12 * 3600.0, registry=registry)
    recordings = [from_window(window) for window in slow(windows(END_S, 4)).values()]
    flags = {o.name: (o.frame["warn"].to_numpy(), o.anomalies) for o in replay_group(recordings, plan, lambda _: None)}
    assert flags["busy"][0][-6:].any()
    assert "toy" in set(flags["busy"][1]["detectors"])
    assert flags["calm"][0].mean() < 0.02


def test_it_votes_beside_the_others() -> None:
    registry = {**detectors.REGISTRY, "toy": lambda services, settings: ToyBand()}
    settings = DetectionSettings(detectors=(*DetectionSettings().detectors, "toy"))
    learned = pipeline.learn(SERVICES, windows(END_S, 4), {}, settings, registry=registry)
    live = slow(windows(END_S + 1800, 0.125))
    anomalies, _, _ = pipeline.detect(SERVICES, live, learned, END_S + 1800, settings, registry=registry)
    latency = next(a for a in anomalies if a.signal == "p95_ms")
    assert {"toy", "level", "clock"} <= set(latency.detectors)


def test_a_detector_that_is_not_registered_is_refused_by_name() -> None:
    with pytest.raises(detectors.ConfigError, match="'toy'; known: absent, band"):
        pipeline.learn(SERVICES, {}, {}, DetectionSettings(detectors=("toy",)))


def test_shares_beyond_the_whole_budget_are_cut_in_proportion() -> None:
    registry = {**detectors.REGISTRY, "toy": lambda services, settings: ToyJoint()}
    settings = DetectionSettings(detectors=(*DetectionSettings().detectors, "toy"))
    methods = detectors.chosen(SERVICES, settings, registry)
    signals = ("p95_ms", "mean_ms", "qps")
    names = ("votes", *methods.joints, *methods.own)
    assert sum(methods.share(name, signals) for name in names) == pytest.approx(1)
    assert methods.share("toy", signals) == pytest.approx(0.6 / 1.41)
    assert methods.share("votes", ("p95_ms",)) == pytest.approx(1 / 1.05)
