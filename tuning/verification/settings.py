"""How a change is judged: the section `verification` of services.yaml."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class VerificationSettings(BaseModel):
    """How a change is judged."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    method: str = "before_after"
    """The test behind a verdict: a name of tuning/verification."""

    look_s: float = Field(180.0, gt=0)
    """How long P95 is looked at after the change has settled; the look before the change is as long."""

    longer_look_s: float = Field(360.0, gt=0)
    """How much longer the second look takes when the first one cannot tell."""

    settle_min_s: float = Field(15.0, ge=0)
    """Shortest wait between a change and the first look, on top of nothing else."""

    drain_max_s: float = Field(900.0, ge=0)
    """How much longer than planned a change may settle while the queue that stood before it is still draining."""

    rate_window_s: float = Field(60.0, gt=0)
    """Window of the rate() behind P95: a look before it has passed would still see the old setting."""

    summary_window_s: float = Field(75.0, gt=0)
    """The same where P95 comes from a summary (Triton's own quantiles cover a sliding 60 s, read every 15 s)."""

    confidence: float = Field(0.98, gt=0.5, lt=1)
    """Two-sided confidence that "improved" and "worse" need."""

    interval_level: float = Field(0.9, gt=0.5, lt=1)
    """Level of the interval that is reported, and that "unchanged" needs inside `same_within`."""

    min_effect: float = Field(0.05, ge=0, lt=1)
    """A change of P95 that is smaller than this share is called neither improved nor worse."""

    same_within: float = Field(0.15, gt=0, lt=1)
    """"Unchanged" means: the interval of the effect lies within this share around 1."""

    min_points: int = Field(8, ge=3)
    """Fewest P95 points on each side; with fewer the verdict is inconclusive."""

    min_requests: float = Field(100.0, ge=0)
    """Fewest requests on each side, where the traffic is known; with fewer the verdict is inconclusive."""

    min_requests_per_point: float = Field(40.0, ge=1)
    """Histogram steps are joined until each P95 point rests on at least this many requests."""

    noise_floor: float = Field(0.01, ge=0)
    """Noise of P95 (share) that is assumed at least: a series without scatter is a coarse histogram, not a proof."""

    phi_prior: float = Field(0.35, ge=-2, le=3)
    """Weight of an autocorrelation phi before any data: (1 - phi) to this power; lower is more careful."""

    model_error: float = Field(0.3, ge=0)
    """How wrong the latency model's load adjustment may be, as a share of the (logarithmic) adjustment itself."""

    load_tolerance: float = Field(0.35, gt=0, lt=1)
    """Without a model or a control, a load that moved by more than this share explains the effect: inconclusive."""

    error_rate_floor: float = Field(0.005, ge=0, le=1)
    """A rise of the share of failed requests by less than this is no loss."""

    throughput_drop: float = Field(0.2, gt=0, lt=1)
    """Served requests per second may fall by this share; more is a loss, unless less was offered."""

    accuracy_drop: float = Field(0.01, ge=0, le=1)
    """Accuracy or agreement may fall by this much (a service's own slo.accuracy_drop goes first)."""

    resolved_share: float = Field(0.8, gt=0, le=1)
    """Resolved: at least this share of the points after the change is under the SLO, and so is their level."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.confidence < self.interval_level:
            raise ValueError(
                f"confidence ({self.confidence:g}) is below interval_level ({self.interval_level:g}): a verdict would "
                "rest on less than the interval that is shown"
            )
        return self
