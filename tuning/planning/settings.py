"""Settings of the planners. Everything has a default that is safe on a service nobody has looked at yet."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class PlanningSettings(BaseModel):
    """What a planner may be told; the same settings serve every planner, each reads what it needs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    planner: str = "model"
    """Which planner chooses: a name of tuning/planning (model, playbook)."""

    beside: str = ""
    """A learned planner (evolved, ppo) whose choice is told in mails and on the incident's page, and never made;
    nothing is told where this is empty."""

    beside_weights: str = ""
    """A file of weights of one's own for the learned planner, made by `make train-policies`; empty: those that come
    with slotune."""

    rate_window_s: float = Field(30.0, gt=0)
    """Window of the rates behind the signals (the preset's `rate(...[W])`): after a change, numbers younger than this
    still mix the old and the new."""

    recent_s: float = Field(60.0, gt=0)
    """How far back "now" reaches: current values are medians over this stretch, never a single sample."""

    stale_s: float = Field(120.0, gt=0)
    """Signals whose newest sample is older than this are no ground for a change."""

    warm_up_s: float = Field(120.0, ge=0)
    """How long a replica may take after its start until it is as fast as its peers: a slow one that is younger is not
    sick, and after a restart P95 is not looked at before."""

    headroom: float = Field(0.9, gt=0, le=1)
    """An option meets the SLO only if its predicted P95 is at most this share of it."""

    confidence: float = Field(0.9, gt=0.5, lt=1)
    """Probability of meeting the SLO that an option needs to be chosen on price; below it the surest option wins."""

    batch_full: float = Field(0.8, gt=0, le=1)
    """Rows per batch over the limit above which batches count as full: below it a larger limit changes nothing."""

    busy_full: float = Field(0.9, gt=0, le=1)
    """Busy share above which a server counts as saturated."""

    queue_share: float = Field(0.3, gt=0, le=1)
    """Share of the mean latency spent in the queue above which a queue counts as standing."""

    batch_factor: int = Field(8, ge=2)
    """The playbook's step: a batch limit that is too small is multiplied by this, within its bounds."""

    replica_factor: float = Field(1.5, gt=1)
    """The playbook's step for replicas: multiplied by this, rounded up, within the HPA's bounds."""

    lease_s: float = Field(3600.0, gt=0)
    """How long a change that costs money is kept before it is tested for removal."""

    saving_busy: float = Field(0.35, gt=0, lt=1)
    """Utilisation after a saving must stay below this, and the predicted P95 below half of the SLO's headroom."""

    saving_patience_s: float = Field(1800.0, ge=0)
    """How long capacity must have been idle before giving it back is proposed; longer than for scaling up."""

    verify_window_s: float = Field(60.0, gt=0)
    """Length of the window over which P95 is looked at after the settling; predictions are for such a window."""

    simulated_batches: int = Field(1500, ge=200, le=50_000)
    """Batches simulated per option: more is slower and steadier."""

    seed: int = 20_250_101
    """Seed of the what-if's arrivals: the same observation always gives the same plan."""
