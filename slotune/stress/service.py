"""What a stress test has to do with a service of services.yaml: whether it may run, what the service gets anyway, the
pause of slotune's own changes meanwhile, what ran out first, and what the latency engine learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from detection.errors import ConfigError, SlotuneError
from detection.model import MetricWindow, Service, Span
from slotune.stress.model import Saturation, Step
from slotune.stress.saturation import SIGNALS, saturated
from tuning.loop import records
from tuning.loop.learn_latency import learn_from, served
from tuning.loop.open_incidents import open_incidents_of
from tuning.loop.parts import Parts
from tuning.model import Record
from tuning.orders import order, order_record, pauses
from tuning.query import Query
from tuning.stressed import STRESS, stress_record, stressed, under_way

_WHY = "a stress test runs"
_DAY_S = 86_400.0
_WINDOWS = 2.0
"""The present rate is a mean over one rate window of rates, each over the one before."""


@dataclass(frozen=True)
class RanOut:
    """found: by the rate at which it first had. untold: signals that are not exported. blind: why nothing can be told.
    notes: for whoever reads it."""

    found: tuple[Saturation, ...] = ()
    untold: tuple[str, ...] = ()
    blind: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Watched:
    """A service while it is stressed. before: the version and precision that were served when it began."""

    parts: Parts
    service: Service
    before: tuple[str, str] | None

    @classmethod
    def of(cls, parts: Parts, name: str, at_s: float) -> Watched:
        """ConfigError where the service is unknown, in an open incident, in the middle of a change of slotune's, or
        stressed already or just now."""
        service = parts.service(name)
        troubled = [incident for incident in open_incidents_of(parts.ledger, at_s) if incident.service == name]
        if troubled:
            raise ConfigError(
                f"{name} is in an open incident ({troubled[0].id}: {troubled[0].reason.rstrip('.')}): "
                "more load would make it worse; once it is closed, try again"
            )
        if any(change.service == name and change.state != "leased" for change in parts.ledger.open_changes()):
            raise ConfigError(f"{name} has a change of slotune's that is not proven yet: wait for its verdict")
        before = parts.ledger.find(Query(kinds=(STRESS,), services=(name,), since_s=at_s - _DAY_S))
        gone_s = at_s - max((end_s for _, end_s in stressed(before).get(name, ())), default=0.0)
        other = under_way(before, at_s)
        if other is None and gone_s < (seen_s := _WINDOWS * parts.settings.prometheus.rate_window_s):
            raise ConfigError(
                f"a stress test of {name} ended {gone_s:.0f} s ago, and Prometheus' rates still show it: what it gets "
                f"by itself is known again in {seen_s - gone_s:.0f} s"
            )
        if other is not None:
            latest = datetime.fromtimestamp(float(str(other.body["until_s"])), UTC)
            raise ConfigError(
                f"another stress test of {name} is under way; it ends at {latest:%H:%M} UTC at the latest"
            )
        return cls(parts, service, served(parts, service))

    def present_per_s(self, at_s: float) -> float | None:
        """What the service gets anyway: the mean of `qps` over the last rate window; None where nobody knows."""
        prometheus = self.parts.settings.prometheus
        step_s = prometheus.step_s
        end_s = at_s // step_s * step_s
        span = Span(end_s - max(prometheus.rate_window_s, 2 * step_s) // step_s * step_s, end_s, step_s)
        window = self._read(("qps",), span)
        values = window.values.get("qps") if window is not None else None
        known = values[np.isfinite(values)] if values is not None else np.empty(0)
        return float(known.mean()) if known.size else None

    def begin(self, start_s: float, until_s: float, who: str, told: Mapping[str, object], *, pause: bool) -> bool:
        """Write into the ledger that the load comes, and, where that is asked for and nobody has paused it already,
        pause slotune's changes of the service until `until_s`; whether that was done."""
        self._put(stress_record(self.service.name, start_s, until_s, "intent", told))
        standing = pauses(records.orders(self.parts.ledger, self.service.name), start_s)
        if not pause or any(one.service in ("", self.service.name) and not one.lever for one in standing):
            return False
        self._put(order_record(order("pause", who, start_s, service=self.service.name, why=_WHY, until_s=until_s)))
        return True

    def end(self, start_s: float, end_s: float, who: str, told: Mapping[str, object], *, paused: bool) -> None:
        """Write down what was found, and lift the pause that `begin` ordered, unless somebody has spoken since."""
        self._put(stress_record(self.service.name, start_s, end_s, "result", told))
        mine = [one for one in pauses(records.orders(self.parts.ledger, self.service.name), end_s) if one.why == _WHY]
        if paused and mine:
            self._put(order_record(order("resume", who, end_s, service=self.service.name, why="the stress test ended")))

    def busy(self, start_s: float, end_s: float) -> float | None:
        """The mean share of the time that the service computes; None where it is not exported or cannot be read."""
        try:
            window = self._read(("busy",), self._span(start_s, end_s))
        except SlotuneError:
            return None
        values = window.values.get("busy") if window is not None else None
        known = values[np.isfinite(values)] if values is not None else np.empty(0)
        return float(known.mean()) if known.size else None

    def saturated(self, steps: tuple[Step, ...]) -> RanOut:
        """What ran out, as far as Prometheus shows it."""
        try:
            window = self._read(SIGNALS, self._span(steps[0].start_s, steps[-1].end_s))
        except SlotuneError as error:
            return RanOut(blind=f"Prometheus could not be read ({str(error).rstrip('.')})")
        if window is None:
            return RanOut(blind="Prometheus has no series of this service")
        lever = self.service.levers.get("replicas")
        found, untold = saturated(window, steps, lever.maximum if lever is not None else None)
        rate_window_s = self.parts.settings.prometheus.rate_window_s
        shortest = min(step.end_s - step.start_s for step in steps)
        note = (
            f"Prometheus' figures are means over {rate_window_s:g} s and a step took {shortest:.0f} s: what ran out "
            "may have done so at a lower rate than is said."
        )
        emulated = window.values.get("emulated")
        made_up = emulated is not None and bool(np.nanmax(np.nan_to_num(emulated)) > 0)
        notes = (*([note] if shortest < rate_window_s else []), *(["The accelerator is emulated."] if made_up else []))
        return RanOut(found, untold, "", notes)

    def learn(self, start_s: float, end_s: float) -> str:
        """What the latency engine took from the test, in a sentence."""
        try:
            why = learn_from(self.parts, self.service, self._span(start_s, end_s), self.before)
        except SlotuneError as error:
            why = str(error)
        if why is not None:
            return f"The latency engine learned nothing: {why.rstrip('.')}."
        return "The latency engine learned from it: planning starts with what was measured here."

    def _span(self, start_s: float, end_s: float) -> Span:
        step_s = self.parts.settings.prometheus.step_s
        first = start_s // step_s * step_s
        return Span(first, max(first + step_s, end_s // step_s * step_s), step_s)

    def _read(self, signals: tuple[str, ...], span: Span) -> MetricWindow | None:
        return self.parts.source.read([self.service], signals, span).get(self.service.name)

    def _put(self, record: Record) -> None:
        self.parts.ledger.put(record)
