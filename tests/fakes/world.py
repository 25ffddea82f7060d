"""A small world to run the loop in: one service with a batch queue, its metrics, its levers, and a clock of its own.

Fluid model: a batch of b rows takes alpha + beta * b; what arrives beyond the capacity waits in a backlog. One row of
signals per second; nothing random but a seeded scatter of P95.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from detection.errors import SourceUnreachable
from detection.model import BucketWindow, MetricWindow, PercentileSource, Service, Span, VersionWindow
from tuning.errors import ControlRefused, ControlUnreachable, NotApplied
from tuning.loop.parts import Parts
from tuning.mail import Mail
from tuning.model import Change, Receipt, Setting
from tuning.planning import get as planner
from tuning.ports import Ledger, Notifier
from tuning.services_yaml import loads
from tuning.verification import get as verifier

START_S = 1_800_000_000.0
SERVICES = """
prometheus: {rate_window: 15s, step: 5s}
verification: {look: 60s, longer_look: 60s}
safety: {cool_down: 0s, hold_again: 60s}
detection: {lookback: 10m, detectors: [rules], close_after: 60s}
mail: {to: [oncall@example.com]}
services:
  - name: ranker
    serving: slotune_demo
    selectors: {service: ranker}
    slo: {p95: 150ms, for: 10s}
    mode: act
    levers:
      batch_size: {min: 1, max: 32, connection: ranker_control}
"""


class World:
    """qps, error_share: functions of seconds since START_S. batch_effect: what a larger batch really does."""

    def __init__(
        self,
        *,
        qps: Callable[[float], float] = lambda _t: 60.0,
        error_share: Callable[[float], float] = lambda _t: 0.0,
        alpha_ms: float = 8.0,
        beta_ms: float = 0.5,
        batch_hurts: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.now_s = START_S
        self.batch_size = 1
        self.down = False
        self.applies: list[Mapping[str, object]] = []
        self.swallow = False
        self.control_down = False
        self.percentile_source: PercentileSource = "histogram"
        self._qps, self._errors = qps, error_share
        self._alpha_ms, self._beta_ms, self._hurts = alpha_ms, beta_ms, batch_hurts
        self.version = "1"
        self.variant = "full"
        self.pace_by_variant: dict[str, float] = {}
        self.slow_by_version: dict[str, float] = {}
        self.errors_by_version: dict[str, float] = {}
        self.served: list[str] = []
        self.variants: list[str] = []
        self.queue_limit = 100_000
        self._backlog = 0.0
        self._rows: list[dict[str, float]] = []
        self._rng = np.random.default_rng(seed)

    def now(self) -> float:
        return self.now_s

    def wait_until(self, until_s: float) -> None:
        while self.now_s < until_s:
            self._second()

    def wait(self, seconds: float) -> None:
        self.wait_until(self.now_s + seconds)

    def _second(self) -> None:
        since = self.now_s - START_S
        load, b = self._qps(since), self.batch_size
        batch_ms = (self._alpha_ms + self._beta_ms * b) * (self._hurts if b > 1 else 1.0)
        batch_ms *= self.slow_by_version.get(self.version, 1.0) * self.pace_by_variant.get(self.variant, 1.0)
        self.served.append(self.version)
        self.variants.append(self.variant)
        capacity = b / batch_ms * 1e3
        served = min(load + self._backlog, capacity)
        self._backlog = max(self._backlog + load - served, 0.0)
        refused = min(load, max(0.0, self._backlog - self.queue_limit))
        self._backlog -= refused
        failed = self._errors(since) + self.errors_by_version.get(self.version, 0.0) + refused / (served + refused + 1e-9)
        rows = min(b, max(1.0, load * batch_ms / 1e3))
        queue_ms = self._backlog / capacity * 1e3 + batch_ms * min(load / capacity, 1.0) / 2
        # A full queue is as long for all that are let in.
        p95 = (queue_ms * (1.0 if refused else 1.3) + 1.5 * batch_ms) * np.exp(self._rng.normal(0, 0.05))
        self._rows.append(
            {
                "p50_ms": p95 / 2, "p95_ms": p95, "p99_ms": p95 * 1.2, "mean_ms": queue_ms + batch_ms, "qps": served + refused,
                "error_rate": min(1.0, failed), "queue_ms": queue_ms, "queue_depth": self._backlog,
                "batch_ms": batch_ms, "rows_per_batch": rows, "batch_size": float(b), "batch_timeout_ms": 0.0,
                "busy": min(load / capacity, 1.0), "replicas": 1.0, "load_failures": 0.0, "arrival_cv2": 1.0,
            }
        )  # fmt: skip
        self.now_s += 1.0

    def values(self, signal: str, span: Span) -> np.ndarray:
        index = np.round(span.times() - START_S).astype(int) - 1
        known = (index >= 0) & (index < len(self._rows))
        out = np.full(span.points, np.nan)
        out[known] = [self._rows[i].get(signal, np.nan) for i in index[known]]
        return out


class WorldSource:
    """The world's metrics as a MetricsSource."""

    def __init__(self, world: World) -> None:
        self.world = world

    def read(self, services: Sequence[Service], signals: Sequence[str], span: Span) -> Mapping[str, MetricWindow]:
        if self.world.down:
            raise SourceUnreachable("Prometheus gives no answer")
        found = {}
        for service in services:
            values = {s: self.world.values(s, span) for s in signals}
            values = {s: v for s, v in values.items() if np.isfinite(v).any()}
            if values:
                found[service.name] = MetricWindow(
                    service.name, span, values, self.world.percentile_source, stale_s=dict.fromkeys(values, 0.0)
                )
        return found

    def read_replicas(
        self, services: Sequence[Service], signals: Sequence[str], span: Span
    ) -> Mapping[str, Mapping[str, MetricWindow]]:
        return {}

    def read_buckets(self, services: Sequence[Service], span: Span) -> Mapping[str, BucketWindow]:
        return {}


class VersionedSource(WorldSource):
    """The same, whose metrics carry the version of the model."""

    def read_versions(self, services: Sequence[Service], span: Span) -> Mapping[str, VersionWindow]:
        index = np.round(span.times() - START_S).astype(int) - 1
        served = self.world.served
        at = np.array([served[i] if 0 <= i < len(served) else "" for i in index])
        known = at != ""
        shares = {v: np.where(known, (at == v).astype(float), np.nan) for v in sorted(set(at[known]))}
        return {service.name: VersionWindow(service.name, span, shares) for service in services if shares}


class WorldRelease:
    """The release lever of the world: absolute, idempotent, read back. known: the versions that it can bring back."""

    name, lever = "http_release", "release"

    def __init__(self, world: World, known: Sequence[str] = ("1", "2", "3")) -> None:
        self.world, self.known = world, known

    def read(self, service: Service) -> Setting:
        if self.world.control_down:
            raise ControlUnreachable("the control endpoint gives no answer")
        return Setting(lever="release", values={"version": self.world.version})

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        before, wanted = self.read(service).values, str(change.new["version"])
        if wanted not in self.known:
            raise ControlRefused(f"there is no version {wanted}")
        self.world.applies.append(dict(change.new))
        self.world.version = wanted
        return Receipt(
            id="", plan_id="", service=service.name, lever="release", before=before, after={"version": wanted},
            applied=True, changed=before["version"] != wanted, at_s=self.world.now_s, reason="made and read back",
        )  # fmt: skip


class WorldVariant:
    """The variant lever of the world: absolute, idempotent, read back."""

    name, lever = "http_variant", "variant"

    def __init__(self, world: World) -> None:
        self.world = world

    def read(self, service: Service) -> Setting:
        if self.world.control_down:
            raise ControlUnreachable("the control endpoint gives no answer")
        return Setting(lever="variant", values={"variant": self.world.variant})

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        before, wanted = self.read(service).values, str(change.new["variant"])
        self.world.applies.append(dict(change.new))
        self.world.variant = wanted
        return Receipt(
            id="", plan_id="", service=service.name, lever="variant", before=before, after={"variant": wanted},
            applied=True, changed=before["variant"] != wanted, at_s=self.world.now_s, reason="made and read back",
        )  # fmt: skip


class WorldAdmission:
    """The admission lever of the world: absolute, idempotent, read back."""

    name, lever = "http_admission", "admission"

    def __init__(self, world: World) -> None:
        self.world = world

    def read(self, service: Service) -> Setting:
        if self.world.control_down:
            raise ControlUnreachable("the control endpoint gives no answer")
        return Setting(lever="admission", values={"queue_limit": self.world.queue_limit})

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        before, wanted = self.read(service).values, int(change.new["queue_limit"])
        self.world.applies.append(dict(change.new))
        self.world.queue_limit = wanted
        return Receipt(
            id="", plan_id="", service=service.name, lever="admission", before=before, after={"queue_limit": wanted},
            applied=True, changed=before["queue_limit"] != wanted, at_s=self.world.now_s, reason="made and read back",
        )  # fmt: skip


class WorldBatch:
    """The batch lever of the world: absolute, idempotent, read back."""

    name, lever = "http_config", "batch_size"

    def __init__(self, world: World) -> None:
        self.world = world

    def read(self, service: Service) -> Setting:
        if self.world.control_down:
            raise ControlUnreachable("the control endpoint gives no answer")
        return Setting(lever="batch_size", values={"batch_size": self.world.batch_size, "batch_timeout_ms": 0.0})

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        before = self.read(service).values
        self.world.applies.append(dict(change.new))
        if self.world.swallow:
            raise NotApplied("the endpoint said yes and still shows the old batch size")
        self.world.batch_size = int(change.new["batch_size"])
        return Receipt(
            id="",
            plan_id="",
            service=service.name,
            lever="batch_size",
            before={k: before[k] for k in change.new},
            after=dict(change.new),
            applied=True,
            changed=before["batch_size"] != change.new["batch_size"],
            at_s=self.world.now_s,
            reason="made and read back",
        )


class KeptMails:
    """A notifier that keeps what it is given; `error`: raised instead while it is set."""

    name = "kept"

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.error: Exception | None = None

    def send(self, mail: Mail) -> None:
        if self.error is not None:
            raise self.error
        self.mails.append(mail)


def parts(world: World, ledger: Ledger, notifier: Notifier, services: str = SERVICES) -> Parts:
    """The loop on the world, with the production planner, guards and verifier."""
    settings = loads(services)
    lever = WorldBatch(world)
    return Parts(
        settings=settings,
        services={s.name: s for s in settings.service_values()},
        source=WorldSource(world),
        actuator=lambda _service, _lever: lever,
        planner=planner(settings.planning.planner)(settings.planning),
        verifier=verifier(settings.verification.method)(settings.verification),
        ledger=ledger,
        notifiers=[notifier],
    )
