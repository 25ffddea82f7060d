"""The replay itself: learn at each epoch from what was known then, judge what follows, merge, open incidents.

`pipeline.learn`, `scoring.judge_panel`, `scoring.scores_at`, `anomalies.merge` and `incidents.open_incidents` are the
very functions of a live sweep; the replay only judges the columns between two learnings at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from detection import detectors, fitting, pipeline, scoring
from detection import incidents as incidents_
from detection.anomalies import DetectionState, merge
from detection.baselines import BaselineSet, GroupBaseline
from detection.evidence import with_evidence
from detection.methods import Methods
from detection.model import Anomaly, FloatArray, Incident, MetricWindow, Score, Service, Span, Tier
from detection.panel import panel_at
from detection.ports import SeldomSpeaks
from detection.settings import DetectionSettings


@dataclass
class Verdicts:
    """What was said about one service over time.

    times: judged times. score, act_score: in units of the thresholds of warn and act. warn, act: flagged, by tier. All
    of one length.
    """

    service: str
    times: list[float] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    act_score: list[float] = field(default_factory=list)
    warn: list[bool] = field(default_factory=list)
    act: list[bool] = field(default_factory=list)


@dataclass
class Replay:
    """The state of a replay over services with one grid; `run` goes on from where it stands."""

    services: Sequence[Service]
    windows: Mapping[str, MetricWindow]
    settings: DetectionSettings
    learn_every_s: float
    registry: detectors.Registry = field(default_factory=lambda: detectors.REGISTRY)
    confirmed: bool = False
    hear: Callable[[float, Sequence[Anomaly]], object] | None = None
    """Is told the anomalies of every judgement that has some: (epoch seconds, anomalies)."""
    state: DetectionState = field(default_factory=DetectionState)
    open: list[Incident] = field(default_factory=list)
    incidents: dict[str, Incident] = field(default_factory=dict)
    baselines: BaselineSet = field(default_factory=BaselineSet)
    verdicts: dict[str, Verdicts] = field(default_factory=dict)
    onsets: list[Anomaly] = field(default_factory=list)
    done_s: float | None = None
    _place: dict[str, int] = field(default_factory=dict)

    def run(self) -> Iterator[float]:
        """Replays epoch by epoch; yields the time up to which it has come."""
        span = next(iter(self.windows.values())).span
        names = {service.name for service in self.services}
        windows = {name: window for name, window in self.windows.items() if name in names}
        for name in windows:
            self.verdicts.setdefault(name, Verdicts(name))
        steps = max(1, round(self.learn_every_s / span.step_s))
        first = 0 if self.done_s is None else round((self.done_s - span.start_s) / span.step_s) + 1
        for start in range(first, span.points, steps):
            stop = min(start + steps, span.points)
            self._epoch(windows, span, start, stop)
            self.done_s = span.start_s + (stop - 1) * span.step_s
            yield self.done_s

    def _epoch(self, windows: Mapping[str, MetricWindow], span: Span, start: int, stop: int) -> None:
        now_s = span.start_s + (start - 1) * span.step_s
        if start > 0:
            history = {name: window.between(now_s - self.settings.history_s, now_s) for name, window in windows.items()}
            first_s = now_s - max(self.settings.weekly_history_s, self.settings.history_s)
            weeks = {
                name: window.between(first_s, now_s - self.settings.history_s - span.step_s)
                for name, window in windows.items()
            }
            self.baselines = pipeline.learn(
                self.services,
                history,
                self._left_out(),
                self.settings,
                self.baselines,
                self._alarms(),
                self.registry,
                {name: window for name, window in weeks.items() if window.span.points > 0},
            )
        last_s = span.start_s + (stop - 1) * span.step_s
        times = span.start_s + span.step_s * np.arange(start, stop, dtype=np.float64)
        methods = detectors.chosen(self.services, self.settings, self.registry)
        found = self._judged(windows, last_s, times, methods)
        self._add_spoken(windows, times, methods, found)
        self._walk(times, found)

    def _left_out(self) -> dict[str, list[tuple[float, float]]]:
        """Closed act-tier incidents of the history. Open ones freeze instead; see fitting.learn."""
        spans: dict[str, list[tuple[float, float]]] = {}
        if not self.confirmed:
            return spans
        still = {incident.id for incident in self.open}
        for incident in self.incidents.values():
            length_s = incidents_.last_seen_s(incident) - incident.opened_at_s
            if incident.tier == "act" and incident.id not in still and length_s < self.settings.relearn_after_s:
                spans.setdefault(incident.service, []).append((incident.opened_at_s, incidents_.last_seen_s(incident)))
        return spans

    def _alarms(self) -> dict[str, float]:
        if not self.confirmed:
            return {}
        return {incident.service: incident.opened_at_s for incident in self.open if incident.tier == "act"}

    def _judged(
        self, windows: Mapping[str, MetricWindow], last_s: float, times: FloatArray, methods: Methods
    ) -> dict[int, list[Score]]:
        """Scores that open or hold an anomaly, by column; fills in the verdicts' scores on the way."""
        found: dict[int, list[Score]] = {}
        level = {name: np.full((2, times.size), np.nan) for name in windows}
        for group in self.baselines.groups:
            rows = [i for i, name in enumerate(group.services) if name in windows]
            part = group if len(rows) == len(group.services) else group.select(rows)
            points = times.size + fitting.look_back_points(part.step_s)
            panel = panel_at(windows, part.services, part.signals, part.step_s, last_s, points)
            judged = scoring.judge_panel(panel, part, points - times.size, self.settings, methods)
            self._collect(judged, part, times, methods, found, level)
        for name, values in level.items():
            verdict = self.verdicts[name]
            verdict.times += times.tolist()
            verdict.score += values[0].tolist()
            verdict.act_score += values[1].tolist()
        return found

    def _collect(
        self,
        judged: scoring.Judged,
        group: GroupBaseline,
        times: FloatArray,
        methods: Methods,
        found: dict[int, list[Score]],
        level: Mapping[str, FloatArray],
    ) -> None:
        warn, act = scoring.service_level(judged), scoring.service_level(judged, "act")
        for row, name in enumerate(group.services):
            level[name][:] = warn[row], act[row]
        for column in np.flatnonzero(scoring.telling(judged)):
            scores = scoring.scores_at(judged, group, int(column), float(times[column]), self.settings, methods)
            told = with_evidence(scores, judged, group, int(column), self.settings, methods)
            found.setdefault(int(column), []).extend(told)

    def _add_spoken(
        self, windows: Mapping[str, MetricWindow], times: FloatArray, methods: Methods, found: dict[int, list[Score]]
    ) -> None:
        """What the detectors that speak for themselves say, asked at the times at which they could have something to
        say; all others are skipped, which changes nothing."""
        back_s = pipeline.lookback_s(self.settings, next(iter(windows.values())).span.step_s) if windows else 0.0
        for name, detector in methods.speaking.items():
            alone = Methods(speaking={name: detector})
            for service, window in windows.items():
                look = detector.may_speak(window, times) if isinstance(detector, SeldomSpeaks) else np.ones_like(times)
                for column in np.flatnonzero(look):
                    at_s = float(times[column])
                    recent = {service: window.between(at_s - back_s, at_s)}
                    scores = pipeline.spoken_scores(alone, recent, self.baselines, at_s)
                    said = [score for score in scores if score.tier is not None and score.service == service]
                    found.setdefault(int(column), []).extend(said)

    def _walk(self, times: FloatArray, found: Mapping[int, list[Score]]) -> None:
        for column, at_s in enumerate(times.tolist()):
            scores = found.get(column, [])
            current: list[Anomaly] = []
            if scores or self.state.open or self.open:
                before = self.state.open
                current, self.state = merge(scores, at_s, self.settings, self.state)
                for key, anomaly in self.state.open.items():
                    self._remember(key, anomaly, key in before)
                self._incidents(current, at_s)
            if current and self.hear is not None:
                self.hear(at_s, current)
            tiers = {name: {a.tier for a in current if a.service == name} for name in {a.service for a in current}}
            for name, verdict in self.verdicts.items():
                said = tiers.get(name, set())
                verdict.act.append("act" in said)
                verdict.warn.append(bool(said))

    def _remember(self, key: str, anomaly: Anomaly, standing: bool) -> None:
        """One entry for each anomaly, with every detector that joined while it stood, at its highest tier."""
        if not standing:
            self._place[key] = len(self.onsets)
            self.onsets.append(anomaly)
            return
        held = self.onsets[self._place[key]]
        names = tuple(dict.fromkeys((*held.detectors, *anomaly.detectors)))
        if names != held.detectors or (anomaly.tier == "act" and held.tier == "warn"):
            tier: Tier = "act" if "act" in (held.tier, anomaly.tier) else "warn"
            self.onsets[self._place[key]] = held.model_copy(update={"detectors": names, "tier": tier})

    def _incidents(self, current: Sequence[Anomaly], at_s: float) -> None:
        changed, closed = incidents_.open_incidents(self.services, current, self.open, at_s, self.settings)
        held = {incident.id: incident for incident in self.open if incident.id not in closed}
        held |= {incident.id: incident for incident in changed}
        self.incidents |= {incident.id: incident for incident in changed}
        self.open = list(held.values())
