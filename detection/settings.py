"""The settings of detection: what each one means, its unit and its default. Durations are seconds.

The configuration reference in docs/ is generated from these classes, so every field says what it is for.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from detection.model import Tier

DAY_S = 86_400.0


class Section(BaseModel):
    """Base of the sections: closed, frozen, documented field by field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RuleOverride(Section):
    """What a service or installation changes in a threshold rule; what is left out stays as it is."""

    enabled: bool = True
    """Off: the rule never fires."""

    threshold: float | None = None
    """The value beyond which the rule breaks, in the signal's unit (ms, share 0..1, requests)."""

    clear: float | None = None
    """The value to which the signal must return before the rule lets go; hysteresis against flapping."""

    for_s: float | None = Field(None, ge=0)
    """How long the threshold must be broken without interruption."""

    keep_firing_for_s: float | None = Field(None, ge=0)
    """How long the rule goes on firing after the signal has returned."""

    tier: Tier | None = None
    """`act`: may start a change. `warn`: is only shown."""


class LimitSettings(Section):
    """A threshold rule of one's own: "GPU utilisation above 90 % for 5 minutes is a warning"."""

    name: str = Field(min_length=1, max_length=60, pattern=r"^[a-z][a-z0-9_]*$")
    """What it is called in reports; no two rules share a name."""

    signal: str = Field(min_length=1)
    """A signal, by its name in docs/presets.md."""

    above: float | None = None
    """The value above which it breaks, in the signal's unit (ms, a share such as 90%, requests)."""

    below: float | None = None
    """The value below which it breaks; one of above and below."""

    clear: float | None = None
    """The value to which the signal must return before the rule lets go; default: the limit itself."""

    for_s: float = Field(60.0, ge=0)
    """How long the limit must be broken without interruption."""

    keep_firing_for_s: float = Field(60.0, ge=0)
    """How long the rule goes on firing after the signal has returned."""

    severity: Tier = "warn"
    """`warn`: is only shown. `act`: may start a change, where the service's mode lets it."""

    services: tuple[str, ...] = ()
    """The services that it is for; default: all that show the signal."""

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("needs exactly one of above and below, for example above: 90%")
        back = self.clear if self.clear is not None else self.threshold
        if (back > self.threshold) if self.above is not None else (back < self.threshold):
            raise ValueError(
                f"clear ({back:g}) must not be beyond the limit ({self.threshold:g}): the signal must return to it"
            )
        return self

    @property
    def threshold(self) -> float:
        """The limit, whichever side it is on."""
        return self.above if self.above is not None else self.below or 0.0


class BudgetSettings(Section):
    """How many false alarms a week and service are worth a detection. Smaller is quieter and sees less."""

    act_per_week: float = Field(2.0, gt=0, le=14)
    """At most about this many false act-tier alarms a week for a service; only act-tier incidents start a change."""

    warn_per_week: float = Field(12.0, gt=0, le=28)
    """At most about this many false warnings a week for a service; warnings are shown and start nothing."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.act_per_week > self.warn_per_week:
            raise ValueError("act_per_week must not exceed warn_per_week: acting needs more evidence")
        return self


class LearningSettings(Section):
    """Learning from labels: which anomalies turned out to be real problems."""

    rerank: bool = True
    """On: once enough incidents are labelled, a model learned from them says how likely a statistical anomaly is a real
    problem, and why. Off: nothing is learned."""

    move_tiers: bool = False
    """On: what the model says also moves statistical anomalies between `warn` and `act`, where that held on services
    that it had not seen. Rules (the SLO first of all) are never touched. Off by default: on the labelled cases that it
    was measured on, it found more at more false alarms, and no better balance of the two."""

    adapt: bool = True
    """On: what a service's statistical alarms need before they are acted on moves in small steps, within 0.8 to 2 times
    the calibrated threshold, where its labels justify it; each step is a record. Rules are never touched."""

    min_labels: int = Field(60, ge=20)
    """So many labelled incidents are needed before anything is learned; until then detection is as without it."""

    min_each: int = Field(15, ge=5)
    """So many of them have to be real problems, and so many none."""


class DetectionSettings(Section):
    """How anomalies are found and when they become incidents."""

    history_s: float = Field(7 * DAY_S, gt=0)
    """How much history the baselines are learned from."""

    weekly_history_s: float = Field(28 * DAY_S, ge=0)
    """How far back the habits of the week (busier weekends) are looked for, at half hours; at least two weeks are
    needed, and 0 compares weekends with weekdays."""

    history_step_s: float = Field(300.0, gt=0)
    """Resolution of that history; live samples are averaged to it before they are compared."""

    lookback_s: float = Field(7200.0, gt=0)
    """How much of the recent past a sweep reads; at least an hour and a half for the comparison with the last hour."""

    relearn_after_s: float = Field(DAY_S, gt=0)
    """A baseline stands still while an alarm is open, but no longer than this: then the new level is accepted."""

    learning: LearningSettings = LearningSettings()
    """How labels of incidents are learned from; see docs/learning.md."""

    budget: BudgetSettings = BudgetSettings()
    """The alarm budget that all statistical and joint detectors are calibrated to."""

    detectors: tuple[str, ...] = (
        "band",
        "clock",
        "fluctuation",
        "isolation_forest",
        "jump",
        "level",
        "pca_residual",
        "rules",
        "sigma",
        "sustained",
    )
    """Which detectors run. `rules` alone is a plain threshold monitor (absent data and training jobs come with it); see
    docs/detection.md for each."""

    rules: dict[str, RuleOverride] = {}
    """Changes to the threshold rules, by rule name (latency_p95, latency_p99, errors, queue_backlog, gpu_memory,
    load_failures, absent_data, idle, quality, iteration)."""

    limits: tuple[LimitSettings, ...] = ()
    """Threshold rules of one's own, beside the ones above."""

    warm_up_s: float = Field(120.0, ge=0)
    """How long a replica may take after its start until it is as fast as its peers: before, it is not called slow, and
    its memory may grow."""

    leak_ahead_s: float = Field(6 * 3600.0, ge=0)
    """A replica whose memory will reach its limit within this long is an incident; 0: leaks are not looked for."""

    leak_for_s: float = Field(600.0, gt=0)
    """How long its memory must have grown without a pause."""

    min_effect: float = Field(0.2, ge=0)
    """A relative change smaller than this is never an anomaly, however unusual it is."""

    min_history_s: float = Field(3600.0, ge=0)
    """Statistical and joint detectors abstain until a service has this much history."""

    keep_firing_for_s: float = Field(300.0, ge=0)
    """How long a statistical anomaly stays after its score has returned under the threshold."""

    joint_keep_firing_for_s: float = Field(2400.0, ge=0)
    """The same for an anomaly that the joint detectors saw: what is odd about many signals comes and goes."""

    absent_for_s: float = Field(120.0, gt=0)
    """How long all signals of a service must be missing before that is an incident."""

    min_requests: float = Field(10.0, ge=0)
    """Shares (errors, failed loads) and percentiles over fewer requests than this are not judged."""

    close_after_s: float = Field(600.0, ge=0)
    """An incident is closed when none of its anomalies has been seen for this long."""

    fluctuation_ratio: float = Field(2.0, gt=1)
    """Latency fluctuation: the spread must have grown by this factor."""

    slow_replica_ratio: float = Field(1.8, gt=1)
    """A replica is slow when it is this many times slower than the median of the others."""

    slow_replica_for_s: float = Field(120.0, gt=0)
    """How long a replica must be slower than its peers."""

    dynamic_series: tuple[str, ...] = ()
    """Series ("service/signal") that also get a forecast band by STL or ARIMA; up to 0.3 CPU seconds an hour each."""

    dynamic_method: Literal["stl", "arima"] = "stl"
    """How those bands are forecast: `stl` needs two days of history, `arima` suits series without a daily curve."""

    seed: int = 0
    """Seed of the isolation forest's sampling."""

    @model_validator(mode="after")
    def _limits_can_fire(self) -> Self:
        names = [limit.name for limit in self.limits]
        for limit in self.limits:
            if names.count(limit.name) > 1:
                raise ValueError(f"two limits are named {limit.name!r}: give each its own name")
            if limit.for_s + limit.keep_firing_for_s > self.lookback_s:
                raise ValueError(
                    f"the limit {limit.name!r} needs {limit.for_s + limit.keep_firing_for_s:g} s, longer than lookback "
                    f"({self.lookback_s:g} s): it could never fire; shorten its for, or lengthen lookback"
                )
        return self

    def running(self) -> tuple[str, ...]:
        """Names of the detectors that run: `absent` and `training` along with `rules`, `dynamic` where series are named
        for it."""
        names = set(self.detectors)
        if "rules" in names:
            names |= {"absent", "training"}
        if self.dynamic_series:
            names.add("dynamic")
        return tuple(sorted(names))
