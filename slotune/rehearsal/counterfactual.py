"""One service as it would have been: as it was recorded, until its setting is another one than was recorded.

While the setting is the recorded one every number is measured. From the moment on at which it differs, requests are
simulated (slotune.rehearsal.batch_queue) under the causes that the history shows, until the setting and the queue are
those of the recording again. Nothing is ever written behind the moment that was reached.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from detection.model import BucketWindow, MetricWindow, Service
from slotune.rehearsal.batch_queue import BatchQueue, Now, Step
from slotune.rehearsal.drivers import Drivers, Knobs
from slotune.rehearsal.exposition import SHOWN, shown, step_histogram
from slotune.rehearsal.steady import Steady
from tuning.planning.latency_model import normal_quantiles
from tuning.planning.predict import int8_gain

_GRACE_S = 60.0
"""A setting that the recording reaches this soon (and the lever's delay) is taken to be the recorded one already."""
_CALM_S = 300.0
"""So long after the setting was touched or a queue stood, a service that is not busy is in its steady state."""
_CALM_LOAD, _BUSY_LOAD = 0.7, 0.8
"""Loads below which a steady state may begin, and above which requests are simulated one by one."""
_FORESEEN_LOAD = 0.95
_SAME_WAIT_MS = 0.01
_PSEUDO_LEVELS = (np.arange(200) + 0.5) / 200


Value = tuple[int, float] | int | bool
"""What a lever was set to: (batch, timeout in ms), replicas, or whether INT8 is served."""


@dataclass(frozen=True)
class History:
    """What was recorded of one service, all on one grid. replicas: by name, may be empty. buckets: None: none were."""

    window: MetricWindow
    replicas: Mapping[str, MetricWindow]
    buckets: BucketWindow | None = None


@dataclass(frozen=True)
class Draw:
    """One of the services that the history leaves possible. alpha_ms, beta_ms: of the line. pace: factor on all batch
    times of a setting that is not the recorded one. gain: speed-up by INT8. seed: luck."""

    alpha_ms: float
    beta_ms: float
    pace: float = 1.0
    gain: float = 1.0
    seed: int = 0


def usual(drivers: Drivers, service: Service) -> Draw:
    """The middle of what is possible."""
    curve = drivers.model.curve()
    gain, _ = int8_gain(service.levers.get("precision"), None, None)
    return Draw(curve.alpha_ms, curve.beta_ms, gain=gain, seed=zlib.crc32(service.name.encode()))


class Counterfactual:
    """The service under the levers of a rehearsal. `advance` moves it; `window`, `replicas`, `buckets` are what is
    shown up to there (later points are still the recording's)."""

    def __init__(
        self,
        service: Service,
        history: History,
        drivers: Drivers,
        draw: Draw,
        rate_window_s: float,
        at_s: float,
        steady: Steady | None = None,
    ) -> None:
        self.service, self.drivers, self.draw = service, drivers, draw
        self.window = _own(history.window)
        self.replicas = {name: _own(window) for name, window in history.replicas.items()}
        held = history.buckets
        self.buckets = None if held is None else replace(held, counts=held.counts.copy())
        self._edges = None if held is None else held.upper_ms
        self._times = history.window.span.times()
        self._width = max(1, round(rate_window_s / drivers.step_s))
        self._index = int(np.searchsorted(self._times, at_s + 1e-6))
        self.now_s = at_s
        self.rate_window_s = rate_window_s
        self.modelled = False
        self.made: list[tuple[float, str, Value]] = []
        """What was set: when, which lever, to what."""
        self.foreseen = False
        """Whether every change comes before it is needed, so that its queues only breathe."""
        self.has_timeout = "batch_timeout_ms" in history.window.values
        self.departed = np.zeros(self._times.size, dtype=bool)
        """Where numbers are modelled."""
        self.ready = drivers.ready.copy()
        """Replicas that run, recorded or modelled."""
        self._batch: tuple[int, float] | None = None
        self._desired: int | None = None
        self._desired_when = 0.0
        self._int8: bool | None = None
        self._pending: list[tuple[float, str, Value]] = []
        self._starting: list[float] = []
        self._queue: BatchQueue | None = None
        self._recent: deque[Step] = deque(maxlen=self._width)
        self._since = 0
        self._touched_s = -math.inf
        self.steady = steady or Steady(drivers)
        """What is known of steady states; worlds of the same drivers may share it."""
        self._rng = np.random.default_rng(draw.seed + 1)

    @classmethod
    def under(
        cls, one: Counterfactual, draw: Draw, history: History, at_s: float, *, modelled: bool = False
    ) -> Counterfactual:
        """The same service as another draw has it, from `at_s` on, with what was set before. modelled: the recorded
        setting is modelled as well."""
        twin = cls(one.service, history, one.drivers, draw, one.rate_window_s, at_s, one.steady)
        twin.modelled = modelled
        if not modelled:
            for when_s, lever, value in one.made:
                if when_s < at_s:
                    twin._set_before(lever, value, when_s)
        return twin

    @classmethod
    def beside(cls, one: Counterfactual, draw: Draw, history: History, at_s: float) -> Counterfactual:
        """As `under`, and what was shown up to `at_s` is what the other one showed: for a loop that goes on there."""
        twin = cls.under(one, draw, history, at_s)
        past = slice(0, twin._index)
        for name in SHOWN:
            if name in twin.window.values:
                twin.window.values[name][past] = one.window.values[name][past]
        for name, window in twin.replicas.items():
            for signal, values in window.values.items():
                values[past] = one.replicas[name].values[signal][past]
        if twin.buckets is not None and one.buckets is not None:
            twin.buckets.counts[past] = one.buckets.counts[past]
        twin.departed[past], twin.ready[past] = one.departed[past], one.ready[past]
        return twin

    # Levers ---------------------------------------------------------------------------------------------------

    def put(self, lever: str, value: Value) -> None:
        """Pull a lever: a batch or a precision takes the lever's delay, replicas are asked for at once and those that
        are added run after it."""
        self.made.append((self.now_s, lever, value))
        delay_s = self.service.levers[lever].effect_delay_s if lever in self.service.levers else 0.0
        if lever != "replicas":
            self._pending.append((self.now_s + delay_s, lever, value))
            return
        before, count = self.knobs().desired, int(value)  # type: ignore[arg-type]
        self._starting += [self.now_s + delay_s] * max(0, count - before)
        del self._starting[max(0, len(self._starting) - max(0, before - count)) :]
        self._desired, self._desired_when = count, float(self.drivers.desired[self._last])
        self._touched_s = self.now_s

    def _set_before(self, lever: str, value: Value, when_s: float) -> None:
        """What was set long ago, and has not been set otherwise in the recording since."""
        first = int(np.searchsorted(self._times, when_s + 1e-6))
        if lever == "replicas":
            place = min(max(first - 1, 0), self._times.size - 1)
            self._desired, self._desired_when = int(value), float(self.drivers.desired[place])  # type: ignore[arg-type]
        else:
            self._take(lever, value)
        for i in range(max(first, 1), self._index):
            self._history_changes(i)

    def _take(self, lever: str, value: Value) -> None:
        if lever == "precision":
            self._int8 = bool(value)
        elif isinstance(value, tuple):
            self._batch = value

    @property
    def _last(self) -> int:
        return min(max(self._index - 1, 0), self._times.size - 1)

    def knobs(self) -> Knobs:
        """The setting as it was asked for, whether it is in effect yet or not."""
        knobs = self._at(self._last)
        for _, lever, value in self._pending:
            if lever == "precision":
                knobs = replace(knobs, int8=bool(value))
            elif isinstance(value, tuple):
                knobs = replace(knobs, batch=value[0], timeout_ms=value[1])
        return knobs

    def as_recorded(self, since_s: float) -> bool:
        """Whether everything from `since_s` on is as it was recorded, and nothing is on its way that changes it."""
        if self._queue is not None or self._pending or not _same(self._at(self._last), self.drivers.knobs(self._last)):
            return False
        first = int(np.searchsorted(self._times, since_s - 1e-6))
        return not self.departed[first : self._index].any()

    def newest(self, signal: str) -> float:
        """What is shown now; NaN in a gap."""
        return float(self.window.values[signal][self._last]) if signal in self.window.values else math.nan

    def running(self) -> int:
        """Replicas that run or start: what is asked for, less what the cluster has no place for."""
        knobs = self._at(self._last)
        return max(0, knobs.desired - self._missing(self._last)) if self._queue is not None else (
            int(self.drivers.ready[self._last])
        )  # fmt: skip

    # Time -----------------------------------------------------------------------------------------------------

    def advance(self, to_s: float) -> None:
        """Everything up to `to_s` (epoch seconds)."""
        while self._index < self._times.size and self._times[self._index] <= to_s + 1e-6:
            self._point(self._index)
            self._index += 1
        self.now_s = to_s

    def _point(self, i: int) -> None:
        at_s = float(self._times[i])
        self._history_changes(i)
        for due in [p for p in self._pending if p[0] <= at_s + 1e-6]:
            self._pending.remove(due)
            self._touched_s = at_s
            self._take(due[1], due[2])
        self._starting = [t for t in self._starting if t > at_s + 1e-6]
        knobs = self._at(i)
        if self._queue is None:
            if not self.modelled and self._recorded_soon(i, knobs):
                return
            self._depart(i)
        self._queue = self._modelled(i, at_s, knobs, self._queue or self._begun(i, knobs))
        if not self.modelled and _same(knobs, self.drivers.knobs(i)) and self._caught_up(i):
            self._queue = None
            self._recent.clear()

    def _at(self, i: int) -> Knobs:
        """The setting at a point: ours where we set it, else the recorded one."""
        knobs = self.drivers.knobs(i)
        if self._batch is not None:
            knobs = replace(knobs, batch=self._batch[0], timeout_ms=self._batch[1])
        if self._desired is not None:
            moved = self.drivers.desired[i] != self._desired_when
            knobs = replace(knobs, desired=max(self._desired, knobs.desired) if moved else self._desired)
        return knobs if self._int8 is None else replace(knobs, int8=self._int8)

    def _history_changes(self, i: int) -> None:
        """What somebody set in the recording is set here as well, over what was set before it."""
        if i == 0:
            return
        d = self.drivers
        if d.batch[i] != d.batch[i - 1] or abs(d.timeout_ms[i] - d.timeout_ms[i - 1]) > _SAME_WAIT_MS:
            self._batch = None
        if d.int8[i] != d.int8[i - 1]:
            self._int8 = None
        if self._desired is not None and d.desired[i] != d.desired[i - 1] and d.desired[i] == self._desired:
            self._desired = None

    def _recorded_soon(self, i: int, knobs: Knobs) -> bool:
        """Whether the recording has this setting, now or as soon as its levers take."""
        if _same(knobs, self.drivers.knobs(i)):
            return True
        wait_s = _GRACE_S + max((lever.effect_delay_s for lever in self.service.levers.values()), default=0.0)
        soon = min(self._times.size, i + 1 + math.ceil(wait_s / self.drivers.step_s))
        return any(_same(knobs, self.drivers.knobs(k)) for k in range(i + 1, soon))

    def _caught_up(self, i: int) -> bool:
        """Whether the queue is the recorded one again, and the window holds nothing of before."""
        if self._queue is None or i - self._since < self._width:
            return False
        full, waiting = float(self.drivers.batch[i] * max(1.0, self.drivers.ready[i])), float(self.drivers.waiting[i])
        return abs(self._recent[-1].depth - waiting) <= 2 * full + 0.1 * waiting

    # The model ------------------------------------------------------------------------------------------------

    def _depart(self, i: int) -> None:
        self._since, self._touched_s = i, max(self._touched_s, float(self._times[i]))
        self._recent.extend(self._as_recorded(k) for k in range(max(0, i - self._width), i))

    def _begun(self, i: int, knobs: Knobs) -> BatchQueue:
        """The queues as they were recorded just before."""
        before = max(0, i - 1)
        return self._queued(before, knobs, float(self.drivers.waiting[before]))

    def _queued(self, i: int, knobs: Knobs, waiting: float) -> BatchQueue:
        d = self.drivers
        return BatchQueue(
            float(self._times[i]), self._causes(i, knobs), waiting,
            spread=d.spread, overhead_ms=d.overhead_ms, limit=d.queue_limit, seed=self.draw.seed + 31 * i,
        )  # fmt: skip

    def _causes(self, i: int, knobs: Knobs) -> Now:
        d, draw = self.drivers, self.draw
        factor = float(d.slow[i]) / 1e3
        if not _same(knobs, d.knobs(i)):
            factor *= draw.pace
        if knobs.int8 != (d.int8[i] > 0):
            factor *= draw.gain if d.int8[i] > 0 else 1.0 / draw.gain
        return Now(
            rate=float(d.rate[i]), cv2=float(d.cv2[i]), failed=float(d.failed[i]),
            batch=max(1, knobs.batch), timeout_s=max(0.0, knobs.timeout_ms / 1e3),
            alpha_s=draw.alpha_ms * factor, beta_s=draw.beta_ms * factor, ready=self._ready(i, knobs),
        )  # fmt: skip

    def _missing(self, i: int) -> int:
        """Replicas that were asked for in the recording and did not run."""
        return max(0, int(self.drivers.desired[i] - self.drivers.ready[i]))

    def _ready(self, i: int, knobs: Knobs) -> int:
        if knobs.desired == self.drivers.desired[i]:
            return max(1, int(self.drivers.ready[i]))
        return max(1, knobs.desired - self._missing(i) - len(self._starting))

    def _modelled(self, i: int, at_s: float, knobs: Knobs, queue: BatchQueue) -> BatchQueue:
        """One point of the model: the steady state where nothing has moved for a while, else request by request."""
        now = self._causes(i, knobs)
        load = now.rate * (now.alpha_s + now.beta_s * now.batch) / (now.batch * now.ready)
        resting = queue.now_s < at_s - 1.5 * self.drivers.step_s
        calm = at_s - self._touched_s > _CALM_S and load < (_BUSY_LOAD if resting else _CALM_LOAD)
        calm = calm or (self.foreseen and load < _FORESEEN_LOAD)
        step = self.steady.step(now, self._rng) if calm and self._still(now) else None
        if step is None:
            if resting:
                queue = self._queued(i - 1, knobs, self._recent[-1].depth)
            step = queue.step(at_s, now)
        self._recent.append(step)
        self._write(i, step, knobs)
        return queue

    def _still(self, now: Now) -> bool:
        """No queue of more than a full batch at each replica, in the whole window."""
        return all(step.depth <= now.batch * now.ready for step in self._recent)

    def _write(self, i: int, step: Step, knobs: Knobs) -> None:
        found = shown(tuple(self._recent), self.drivers.step_s, self._edges)
        found |= {"batch_size": float(knobs.batch), "batch_timeout_ms": knobs.timeout_ms}
        for name in SHOWN:
            if name in self.window.values:
                self.window.values[name][i] = found.get(name, math.nan)
        for window in self.replicas.values():
            for values in window.values.values():
                values[i] = math.nan
        if self.buckets is not None:
            self.buckets.counts[i] = step_histogram(step, self.buckets.upper_ms)
        self.departed[i], self.ready[i] = True, step.ready

    def _as_recorded(self, i: int) -> Step:
        """A recorded point as a step, for windows that reach back before the setting was ours."""
        values, d = self.window.values, self.drivers

        def value(name: str, default: float) -> float:
            number = float(values[name][i]) if name in values else math.nan
            return number if math.isfinite(number) else default

        p95 = value("p95_ms", 0.0)
        p50, p99 = value("p50_ms", 0.6 * p95), value("p99_ms", 1.25 * p95)
        asked = value("qps", float(d.rate[i])) * d.step_s
        failed = value("error_rate", 0.0) * asked
        answered, ready = asked - failed, max(1, int(d.ready[i]))
        rows, took_ms = max(1.0, value("rows_per_batch", 1.0)), value("batch_ms", 0.0)
        batches = answered / rows
        latencies = np.interp(_PSEUDO_LEVELS, [0.0, 0.5, 0.95, 0.99], [0.6 * p50, p50, p95, p99]) if p95 > 0 else None
        return Step(
            np.empty(0) if latencies is None else latencies, answered, failed,
            value("queue_ms", 0.0) / 1e3 * answered, batches, answered, batches * took_ms / 1e3,
            float(d.waiting[i]), ready,
        )  # fmt: skip


def _own(window: MetricWindow) -> MetricWindow:
    """A window whose modelled signals may be written to; the others are shared with the recording."""
    written = window.replica is not None
    values = {name: v.copy() if written or name in SHOWN else v for name, v in window.values.items()}
    return replace(window, values=values)


def _same(one: Knobs, other: Knobs) -> bool:
    return (one.batch, one.desired, one.int8) == (other.batch, other.desired, other.int8) and (
        abs(one.timeout_ms - other.timeout_ms) <= _SAME_WAIT_MS
    )


def possible(drivers: Drivers, service: Service, count: int) -> tuple[Draw, ...]:
    """`count` services that the history leaves possible: draws of the line, its doubt, the gain of INT8, and luck."""
    middle = usual(drivers, service)
    levels = (np.arange(count) + 0.5) / count
    z = [normal_quantiles(levels)[np.argsort(np.arange(count) * root % 1.0)] for root in (3**0.5, 7**0.5)]
    _, gain_sd = int8_gain(service.levers.get("precision"), None, None)
    return tuple(
        Draw(
            curve.alpha_ms, curve.beta_ms,
            pace=math.exp(drivers.model.doubt(float(np.median(drivers.batch))) * z[0][k]),
            gain=middle.gain * math.exp(gain_sd * z[1][k]),
            seed=middle.seed + 7919 * (k + 1),
        )
        for k, curve in enumerate(drivers.model.draws(count))
    )  # fmt: skip
