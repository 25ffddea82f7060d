"""Which services a sweep of a rehearsal has to look at: those about which it could find anything.

Most of a month is quiet, and a rehearsal knows what comes. For stretches between two learnings the detectors' scores
of all sweeps are computed at once, by the same functions that judge a single sweep; a service is left out of a sweep
only where none of them comes near its threshold, its numbers are the recorded ones as far back as a sweep looks, and
nothing stands or has lately been written about it. Leaving it out changes no decision.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from detection import detectors, fitting, pipeline, scoring
from detection.baselines import GroupBaseline
from detection.methods import Methods
from detection.model import FloatArray, MetricWindow, Span
from detection.panel import panel_at
from detection.ports import SeldomSpeaks
from slotune.rehearsal.counterfactual import Counterfactual
from tuning.loop import adapt
from tuning.loop.open_incidents import open_incidents_of, stored_json
from tuning.loop.parts import Parts
from tuning.loop.watch import BASELINES, STATE, stored_baselines
from tuning.query import Query

AHEAD_S = 86_400.0
_NEAR = 0.9
"""A score this near to its threshold is looked at: sums over a long stretch differ in their last digits."""
_LATELY_S = 3600.0
Mask = NDArray[np.bool_]


class QuietTimes:
    """parts: of the rehearsal. worlds: by service. every_s: between sweeps. end_s: of the rehearsal."""

    def __init__(self, parts: Parts, worlds: Mapping[str, Counterfactual], every_s: float, end_s: float) -> None:
        self._parts, self._worlds, self._every_s, self._end_s = parts, worlds, every_s, end_s
        self._names = tuple(parts.services)
        self._back_s = pipeline.lookback_s(parts.settings.detection, parts.settings.prometheus.step_s)
        self._learned: bytes | None = None
        self._times: FloatArray = np.empty(0)
        self._tells: Mapping[str, Mask] = {}

    def to_look_at(self, at_s: float) -> tuple[str, ...]:
        """The services of the sweep at `at_s`."""
        place = self._place(at_s)
        standing = self._standing(at_s)
        return tuple(name for name in self._names if name in standing or self._tells[name][place])

    def _standing(self, at_s: float) -> set[str]:
        """Services that are in an incident or a change, or were lately, or whose numbers are not the recorded ones."""
        ledger = self._parts.ledger
        found = {incident.service for incident in open_incidents_of(ledger, at_s)}
        found |= {change.service for change in ledger.open_changes()}
        state = stored_json(ledger, STATE, {}).get("after", {})
        found |= {str(anomaly.get("service")) for anomaly in state.get("open", {}).values()}
        strict = adapt.factors(ledger, self._parts.settings.detection.learning.adapt)
        found |= {name for name, factor in strict.items() if factor != 1.0}
        since_s = at_s - max(_LATELY_S, self._parts.settings.safety.late_s)
        found |= {record.service for record in ledger.find(Query(since_s=since_s, bodies=False))}
        for name, world in self._worlds.items():
            if name not in found and (world.replicas or not world.as_recorded(at_s - self._back_s)):
                found.add(name)
        return found

    def _place(self, at_s: float) -> int:
        """Of a sweep in the stretch that was looked through; another one is looked through where it lies in none."""
        place = round((at_s - self._times[0]) / self._every_s) if self._times.size else -1
        inside = 0 <= place < self._times.size and abs(self._times[place] - at_s) < 1e-3
        learned = self._parts.ledger.get_blob(BASELINES)
        if inside and learned is self._learned:
            return place
        self._learned = learned
        count = 1 + max(0, int((min(at_s + AHEAD_S, self._end_s) - at_s) // self._every_s))
        self._times = at_s + self._every_s * np.arange(count, dtype=np.float64)
        self._tells = self._looked_through(self._times)
        return 0

    def _looked_through(self, times: FloatArray) -> Mapping[str, Mask]:
        """At which of the times something might be found, by service, in the numbers as they are known now."""
        parts, settings = self._parts, self._parts.settings.detection
        services, step_s = tuple(parts.services.values()), parts.settings.prometheus.step_s
        first_s = (times[0] - self._back_s) // step_s * step_s
        points = int((times[-1] - first_s) // step_s)
        span = Span(first_s, first_s + points * step_s, step_s)
        windows = parts.source.read(services, pipeline.signals_needed(services, settings), span)
        found = {name: np.full(times.size, name not in windows) for name in self._names}
        methods = detectors.chosen(services, settings)
        for detector in methods.speaking.values():
            for name, window in windows.items():
                if isinstance(detector, SeldomSpeaks):
                    found[name] |= detector.may_speak(window, times)
                else:
                    found[name][:] = True
        baselines = stored_baselines(parts.ledger)
        for group in baselines.groups if baselines is not None else ():
            rows = [i for i, name in enumerate(group.services) if name in windows]
            part = group if len(rows) == len(group.services) else group.select(rows)
            for name, told in zip(part.services, self._judged(windows, part, times, methods), strict=True):
                found[name] |= told
        return found

    def _judged(
        self, windows: Mapping[str, MetricWindow], group: GroupBaseline, times: FloatArray, methods: Methods
    ) -> NDArray[np.bool_]:
        """Where a service's scores come near a threshold: (services, times). Sweeps whose grids lie apart (a beat that
        is no multiple of the baselines' step) are judged grid by grid."""
        near = np.ones((len(group.services), times.size), dtype=bool)
        phases = np.round((times - times[0]) % group.step_s, 3) % group.step_s
        before = fitting.look_back_points(group.step_s)
        for phase in np.unique(phases):
            mine = np.flatnonzero(phases == phase)
            first_s, last_s = times[mine[0]], times[mine[-1]]
            columns = np.round((times[mine] - first_s) / group.step_s).astype(int)
            points = before + int(columns[-1]) + 1
            panel = panel_at(windows, group.services, group.signals, group.step_s, last_s, points)
            judged = scoring.judge_panel(panel, group, before, self._parts.settings.detection, methods)
            level = np.nan_to_num(scoring.service_level(judged), nan=0.0)
            near[:, mine] = level[:, columns] > _NEAR
        return near
