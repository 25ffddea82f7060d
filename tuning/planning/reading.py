"""What an observation says in plain numbers: current values, knobs, and what was tried. Shared by the planners."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detection.model import FloatArray, Incident, Lever, MetricWindow, Mode, make_id
from detection.signals import percentile
from tuning.model import Change, Knob, Observation, Option, Record, Setting
from tuning.planning import thresholds as th
from tuning.planning.settings import PlanningSettings

_STRICTNESS: dict[Mode, int] = {"observe": 0, "approve": 1, "act": 2}


def recent(window: MetricWindow | None, signal: str, within_s: float) -> FloatArray:
    """The finite values of a signal in the last `within_s` seconds, shape (k,), k >= 0."""
    values = window.values.get(signal) if window is not None else None
    if window is None or values is None:
        return np.empty(0)
    tail = values[-(int(within_s // window.span.step_s) + 1) :]
    return tail[np.isfinite(tail)]


def level(window: MetricWindow | None, signal: str, within_s: float) -> float | None:
    """Median of the recent values; None where there is none (never 0)."""
    values = recent(window, signal, within_s)
    return float(np.median(values)) if values.size else None


@dataclass(frozen=True)
class Reading:
    """The service now. Durations in ms, rates per second, shares 0..1; None where it is not exported.

    p95_ms: of the promise that the observation is about.
    batch_size, batch_timeout_ms, replicas: the setting read from the system where there is one, else the signal.
    """

    qps: float | None
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    error_rate: float | None
    queue_ms: float | None
    queue_depth: float | None
    batch_ms: float | None
    rows_per_batch: float | None
    busy: float | None
    batch_size: int | None
    batch_timeout_ms: float | None
    replicas: int | None
    arrival_cv2: float | None
    batch_cv2: float | None = None

    @property
    def latency_ms(self) -> float | None:
        """Mean latency, or the median where only that is exported."""
        return self.mean_ms if self.mean_ms is not None else self.p50_ms

    @property
    def queue_share(self) -> float | None:
        """Share of the latency spent waiting (queue and batch wait), 0..1."""
        if self.queue_ms is None:
            return None
        total = self.latency_ms
        if total is None and self.batch_ms is not None:
            total = self.queue_ms + self.batch_ms
        return min(1.0, self.queue_ms / total) if total else None

    @property
    def fill(self) -> float | None:
        """Rows per batch over the limit, 0..1."""
        if self.rows_per_batch is None or not self.batch_size:
            return None
        return min(1.0, self.rows_per_batch / self.batch_size)


def settled(window: MetricWindow, onset: float, settings: PlanningSettings) -> float:
    """From when on the signals show only what is after the onset (epoch seconds); the last three points at least."""
    last_three = window.span.end_s - th.SETTLED_STEPS * window.span.step_s
    return min(onset + settings.rate_window_s, last_three)


def tail(window: MetricWindow, signal: str, since_s: float) -> tuple[FloatArray, FloatArray]:
    """Times and values of a signal from `since_s` on, shape (k,) each, gaps left out; k 0 where there is none."""
    values = window.values.get(signal)
    if values is None:
        return np.empty(0), np.empty(0)
    times = window.span.times()
    good = np.isfinite(values) & (times >= since_s - 1e-9)
    return times[good], values[good]


def number(setting: Setting | None, knob: str) -> float | None:
    """A numeric knob of a setting, None where it is absent or not a number."""
    value = setting.values.get(knob) if setting is not None else None
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def recent_s(observation: Observation, settings: PlanningSettings) -> float:
    """How far back "now" reaches: `settings.recent_s`, but not behind the incident's onset, and two points at least."""
    if observation.since_s is None:
        return settings.recent_s
    least = 2 * observation.window.span.step_s
    return max(min(settings.recent_s, observation.at_s - observation.since_s), least)


def read_now(observation: Observation, settings: PlanningSettings) -> Reading:
    """The observation's current values: medians over `settings.recent_s`, knobs from the settings where read."""
    window, within = observation.window, recent_s(observation, settings)

    def now(signal: str) -> float | None:
        return level(window, signal, within)

    batch, replicas = observation.settings.get("batch_size"), observation.settings.get("replicas")
    batch_size = first(number(batch, "batch_size"), window.last("batch_size"))
    count = first(window.last("replicas", within), number(replicas, "replicas"), number(replicas, "min_replicas"))
    return Reading(
        qps=now("qps"),
        mean_ms=now("mean_ms"),
        p50_ms=now("p50_ms"),
        p95_ms=now(observation.promise.signal),
        error_rate=now("error_rate"),
        queue_ms=now("queue_ms"),
        queue_depth=now("queue_depth"),
        batch_ms=now("batch_ms"),
        rows_per_batch=now("rows_per_batch"),
        busy=now("busy"),
        batch_size=round(batch_size) if batch_size is not None else None,
        batch_timeout_ms=first(number(batch, "batch_timeout_ms"), window.last("batch_timeout_ms")),
        replicas=round(count) if count is not None else None,
        arrival_cv2=now("arrival_cv2"),
        batch_cv2=now("batch_cv2"),
    )


def first(*values: float | None) -> float | None:
    """The first value that is there."""
    return next((value for value in values if value is not None), None)


def is_stale(observation: Observation, settings: PlanningSettings) -> str:
    """Why the numbers cannot be trusted, "" when they can: no P95 at all, or one older than `stale_s`."""
    window, signal = observation.window, observation.promise.signal
    p95, name = window.values.get(signal), percentile(signal)
    if p95 is None or not np.isfinite(p95).any():
        return f"no {name} is exported in the look-back"
    newest = window.span.end_s - float(window.span.times()[np.flatnonzero(np.isfinite(p95))[-1]])
    age = max(newest, window.stale_s.get(signal, 0.0)) + max(0.0, observation.at_s - window.span.end_s)
    if age > settings.stale_s:
        return f"the newest {name} is {age:.0f} s old (limit {settings.stale_s:.0f} s)"
    return ""


def tried_levers(incident: Incident, past: Sequence[Record]) -> frozenset[str]:
    """Levers that an earlier attempt at this incident pulled without an improvement.

    Reads the ledger's `choose_action` (Plan), `guard` (Refusal), `verify_p95` (Outcome) and `hold` (end) records. A
    refused plan, a dry run, a hold and an undo were not tries, nor was a plan that ended with the old setting in force
    and no answer: its run died before the call, and what was never in force says nothing of its lever. That is forgiven
    once, since an endpoint that loses calls looks the same. Any other plan without an outcome was a try (it did not end
    well).
    """
    return frozenset(_failed(incident, past))


def harmful_levers(incident: Incident, past: Sequence[Record]) -> frozenset[str]:
    """Those of them after which it got worse: no part of another change at this incident either."""
    return frozenset(lever for lever, verdicts in _failed(incident, past).items() if "worse" in verdicts)


def failed_levers(incident: Incident, past: Sequence[Record]) -> frozenset[str]:
    """Those of them of which a verdict says so: a plan that was never judged says nothing here."""
    return frozenset(lever for lever, verdicts in _failed(incident, past).items() if verdicts - {None})


def _failed(incident: Incident, past: Sequence[Record]) -> dict[str, set[object]]:
    """The verdicts of the tries that were no improvement, by lever (None: it has none)."""
    mine = [record for record in past if record.incident_id == incident.id]
    verdicts = {r.body.get("plan_id"): r.body.get("verdict") for r in mine if r.kind == "verify_p95"}
    refused = {r.body.get("plan_id") for r in mine if r.kind == "guard" and "guard" in r.body}
    unmade = {r.body.get("plan_id") for r in mine if r.kind == "hold" and r.body.get("unmade")}
    forgiven: set[str] = set()
    levers: dict[str, set[object]] = {}
    for record in sorted(mine, key=lambda record: (record.at_s, record.id)):
        plan = record.body
        if record.kind != "choose_action" or plan.get("rollback_of") or plan.get("dry_run"):
            continue
        verdict = verdicts.get(plan.get("id"))
        if (verdict is None and plan.get("id") not in refused) or (verdict is not None and verdict != "improved"):
            for lever in levers_of(plan):
                if verdict is None and plan.get("id") in unmade and lever not in forgiven:
                    forgiven.add(lever)
                else:
                    levers.setdefault(lever, set()).add(verdict)
    return levers


def levers_of(plan: Mapping[str, object]) -> tuple[str, ...]:
    """The levers of a dumped Plan's chosen option."""
    chosen = plan.get("chosen")
    changes = chosen.get("changes") if isinstance(chosen, Mapping) else None
    if not isinstance(changes, (list, tuple)):
        return ()
    return tuple(str(change["lever"]) for change in changes if isinstance(change, Mapping) and "lever" in change)


def plan_id(incident: Incident) -> str:
    """One attempt at an incident has one plan, so a task that is run again writes nothing twice."""
    return make_id(incident.id, "plan", incident.attempt)


def mode_of(observation: Observation, option: Option) -> Mode:
    """The strictest mode among the option's levers; the service's own for a hold."""
    service = observation.service
    modes = [service.levers[name].mode or service.mode for name in option.levers if name in service.levers]
    return min(modes or [service.mode], key=lambda mode: _STRICTNESS[mode])


def effect_delay_s(levers: Mapping[str, Lever], option: Option) -> float:
    """Seconds until the slowest of the option's levers shows."""
    return max((levers[name].effect_delay_s for name in option.levers if name in levers), default=0.0)


def settle_s(observation: Observation, option: Option, planned_s: float) -> float:
    """Seconds to wait after the option's changes: as planned, and at least what its levers need to show alone."""
    return max([planned_s, *(observation.settle_s.get(lever, 0.0) for lever in option.levers)])


def batch_change(setting: Setting, size: int, timeout_ms: float | None = None) -> Change:
    """The batch lever set to `size` (and a timeout, when given), complete for the knobs that the setting names."""
    names = [name for name in ("batch_size", "batch_timeout_ms") if name in setting.values]
    old: dict[str, Knob] = {name: setting.values[name] for name in names}
    new: dict[str, Knob] = {**old, "batch_size": size}
    if timeout_ms is not None and "batch_timeout_ms" in old:
        new["batch_timeout_ms"] = timeout_ms
    return Change(lever="batch_size", old=old, new=new)


def replica_change(setting: Setting, count: int) -> Change:
    """The replica lever set to `count`: minReplicas where an autoscaler owns the number, else the number itself."""
    knob = "min_replicas" if "min_replicas" in setting.values else "replicas"
    old: dict[str, Knob] = {name: setting.values[name] for name in (knob, "max_replicas") if name in setting.values}
    return Change(lever="replicas", old=old, new={**old, knob: count})


def replica_bounds(lever: Lever, setting: Setting) -> tuple[int, int]:
    """Lowest and highest number that may be asked for: the lever's bounds cut by the autoscaler's maximum."""
    ceiling = number(setting, "max_replicas")
    high = min(lever.maximum, ceiling) if ceiling is not None else lever.maximum
    return int(lever.minimum), int(high)


def at_bound(name: str, lever: Lever, setting: Setting | None) -> str:
    """Why there is no way up with a lever, "" when there is one (or the setting is not known)."""
    if setting is None:
        return ""
    if setting.useless:
        return setting.useless
    if name == "batch_size":
        knob = "max_num_seqs" if "max_num_seqs" in setting.values else "batch_size"
        size, words = number(setting, knob), knob if knob != name else "the batch size"
        return f"{words} is at its bound of {lever.maximum:g}" if size and size >= lever.maximum else ""
    if name == "replicas":
        _, high = replica_bounds(lever, setting)
        asked = first(number(setting, "min_replicas"), number(setting, "replicas"))
        return f"replicas are at their bound of {high}" if asked and asked >= high else ""
    if name == "admission":
        low = min((float(v) for v in setting.values.values() if isinstance(v, int | float) and v > 0), default=math.inf)
        return f"the limit is at its bound of {lever.minimum:g}" if low <= lever.minimum else ""
    if name == "variant":
        told = lever.options.get("variants")
        names = [str(one.get("name")) for one in told if isinstance(one, dict)] if isinstance(told, list) else []
        now = setting.values.get("variant")
        return f"{now} is the last of the variants" if names and now == names[-1] else ""
    return ""


def no_int8(lever: Lever) -> str:
    """Why this lever cannot make an INT8 model, "" when it can: `onnx` present but empty means none is configured."""
    if "onnx" in lever.options and not lever.options["onnx"]:
        return "no calibrated model configured: the precision lever names no ONNX model"
    return ""
