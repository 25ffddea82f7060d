"""The latency model: how long a batch of b rows takes, learned online, with what is not known said.

    s(b) = alpha + beta * b          [ms], alpha, beta >= 0

A batch pays a fixed cost (weights streamed once, kernel launches) and a cost per row: the model of dynamic batching in
Inoue, "Queueing analysis of GPU-based inference servers with dynamic batching" (2021), eq. 1. It is written here as

    s(b) = s1 * ((1 - kappa) + kappa * b),   kappa = beta / (alpha + beta) in [0, 1]

because kappa is what data may leave open: a service that only ever ran batches of one row tells s1 and nothing of
kappa. For each kappa on a grid the best s1 is weighted least squares in closed form (Bjorck, "Numerical methods for
least squares problems", 1996, ch. 2) from six sums, and the grid's weights are prior x likelihood: alpha and beta
never go negative, and an unidentified model is wide instead of wrong. The six sums are the whole state (information
form of recursive least squares), so it is a small value that the ledger keeps as JSON.

A measurement is taken in only if its normalised innovation squared (NIS) is at most 6.63, the 99 % quantile of
chi-square with one degree of freedom (Bar-Shalom, "Estimation with applications to tracking and navigation", 2001,
sec. 5.4); otherwise the state stays as it was and the rejection is counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from detection.model import FloatArray
from tuning.planning import thresholds as th

_KAPPA = np.linspace(0.0, 1.0, 41)
# Measured gains of batching run from 1.05 (convolutions on a CPU) to 20 (wide layers): alpha over beta may be anything
# between 1/20 and 50, each order of magnitude as likely as the next, which is 1 / (kappa (1 - kappa)) between them.
_LOG_PRIOR = -np.log(np.clip(_KAPPA, 1 / 51, 1.0)) - np.log(np.clip(1 - _KAPPA, 1 / 21, 1.0))


@dataclass(frozen=True)
class Curve:
    """One draw of the model: s(b) = alpha_ms + beta_ms * b."""

    alpha_ms: float
    beta_ms: float

    def at(self, rows: float) -> float:
        return self.alpha_ms + self.beta_ms * rows


@dataclass(frozen=True)
class LatencyModel:
    """What is known of one (service, version, precision).

    w, wb, wbb, wy, wby, wyy: weighted sums over the measurements (rows b, milliseconds y, weight 1/(relative noise *
    y)^2). n: measurements taken in (at most 60 count: older ones fade). rows_max: the largest batch seen. spread: the
    coefficient of variation of single batches around the line. rejected: measurements refused in a row.
    """

    n: float = 0.0
    w: float = 0.0
    wb: float = 0.0
    wbb: float = 0.0
    wy: float = 0.0
    wby: float = 0.0
    wyy: float = 0.0
    rows_max: float = 0.0
    spread: float = 0.1
    rejected: int = 0
    updated_s: float = 0.0

    @property
    def known(self) -> bool:
        return self.n >= 1.0

    @cached_property
    def _grid(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """For each kappa: its weight (sums to 1), the best s1 and the variance of s1."""
        rest = 1.0 - _KAPPA
        gram = self.w * rest**2 + 2 * self.wb * rest * _KAPPA + self.wbb * _KAPPA**2
        cross = self.wy * rest + self.wby * _KAPPA
        log_weight = _LOG_PRIOR - 0.5 * np.maximum(self.wyy - cross**2 / gram, 0.0)
        weight = np.exp(log_weight - log_weight.max())
        return weight / weight.sum(), cross / gram, 1.0 / gram

    def predict(self, rows: float) -> tuple[float, float]:
        """Mean and standard deviation of s(rows) in ms, misfit and extrapolation included. Needs `known`."""
        weight, s1, var = self._grid
        shape = (1 - _KAPPA) + _KAPPA * rows
        mean = float(weight @ (s1 * shape))
        spread = float(weight @ ((s1 * shape - mean) ** 2 + var * shape**2))
        return mean, math.sqrt(spread + (self.doubt(rows) * mean) ** 2)

    def at(self, rows: float) -> tuple[FloatArray, FloatArray]:
        """The posterior of s(rows): weights (sum 1) and milliseconds, one per kappa of the grid. Needs `known`."""
        weight, s1, _ = self._grid
        return weight, s1 * ((1 - _KAPPA) + _KAPPA * rows)

    def doubt(self, rows: float) -> float:
        """Relative doubt that the line holds at `rows`: the misfit, growing by 6 % per doubling past what was seen."""
        beyond = math.log2(rows / self.rows_max) if self.rows_max and rows > self.rows_max else 0.0
        return math.hypot(th.MISFIT, th.BEYOND * beyond)

    def unknown_beyond(self, rows: float) -> bool:
        """Whether the time of larger batches than those seen is a guess: the line's slope rests on the prior alone."""
        weight, batch_ms = self.at(rows)
        mean = float(weight @ batch_ms)
        return rows > self.rows_max and math.sqrt(float(weight @ (batch_ms - mean) ** 2)) > th.GUESS * mean

    def nis(self, rows: float, batch_ms: float) -> float:
        """Normalised innovation squared of one measurement."""
        mean, sd = self.predict(rows)
        return (batch_ms - mean) ** 2 / (sd**2 + (th.BATCH_NOISE * batch_ms) ** 2)

    def add(self, rows: float, batch_ms: float, at_s: float, weight: float = 1.0) -> LatencyModel:
        """The state after one measurement; the old sums with `rejected` counted up when it fails the gate.

        Eight refusals in a row are no outliers: the service has changed, and the old sums fade to almost nothing.
        """
        if not (rows > 0 and batch_ms > 0 and math.isfinite(rows + batch_ms)):
            return self
        base = self
        if self.n >= 3 and self.nis(rows, batch_ms) > th.NIS_LIMIT:
            if self.rejected + 1 < th.REGIME:
                return replace(self, rejected=self.rejected + 1)
            base = replace(self.faded(0.02 / max(self.n, 1.0)), rows_max=rows)
        g = weight / (th.BATCH_NOISE * batch_ms) ** 2
        grown = replace(
            base,
            n=base.n + weight,
            w=base.w + g,
            wb=base.wb + g * rows,
            wbb=base.wbb + g * rows * rows,
            wy=base.wy + g * batch_ms,
            wby=base.wby + g * rows * batch_ms,
            wyy=base.wyy + g * batch_ms**2,
            rows_max=max(base.rows_max, rows),
            rejected=0,
            updated_s=max(base.updated_s, at_s),
        )
        return grown.faded(th.POINTS_MAX / grown.n) if grown.n > th.POINTS_MAX else grown

    def faded(self, factor: float) -> LatencyModel:
        """The same line with `factor` of the confidence."""
        sums = {name: getattr(self, name) * factor for name in ("n", "w", "wb", "wbb", "wy", "wby", "wyy")}
        return replace(self, **sums)

    def scaled(self, factor: float) -> LatencyModel:
        """The line `factor` times as slow."""
        return replace(self, w=self.w / factor**2, wb=self.wb / factor**2, wbb=self.wbb / factor**2,
                       wy=self.wy / factor, wby=self.wby / factor)  # fmt: skip

    def draws(self, count: int) -> tuple[Curve, ...]:
        """`count` curves at equal steps of the posterior of kappa, s1 spread within each. Needs `known`."""
        weight, s1, var = self._grid
        levels = (np.arange(count) + 0.5) / count
        kappas = np.interp(levels, np.cumsum(weight) - weight / 2, _KAPPA)
        # The order of the s1 quantiles is mixed against that of kappa (golden ratio), so that both vary.
        mixed = np.argsort((np.arange(count) * 0.618034) % 1.0)
        z = normal_quantiles(levels)[mixed]
        best = np.interp(kappas, _KAPPA, s1)
        scale = np.maximum(best + z * np.sqrt(np.interp(kappas, _KAPPA, var)), 0.2 * best)
        return tuple(Curve(float(s * (1 - k)), float(s * k)) for s, k in zip(scale, kappas, strict=True))

    def curve(self) -> Curve:
        """The posterior mean curve. Needs `known`."""
        weight, s1, _ = self._grid
        return Curve(float(weight @ (s1 * (1 - _KAPPA))), float(weight @ (s1 * _KAPPA)))

    def dump(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def normal_quantiles(levels: FloatArray) -> FloatArray:
    """Standard normal quantiles (Tukey's lambda approximation, error below 0.01 for 0.01 < p < 0.99)."""
    return np.asarray(4.91 * (levels**0.14 - (1 - levels) ** 0.14), dtype=np.float64)


def key(version: str, precision: str) -> str:
    """The key of a model in the state: a new version or precision starts anew."""
    return f"{version or '?'}/{precision or '?'}"


def load(state: Mapping[str, object] | None) -> dict[str, LatencyModel]:
    """The models of a stored state by `key`; what cannot be read is left out (it is learned again)."""
    models = state.get("models") if isinstance(state, Mapping) else None
    if not isinstance(models, Mapping):
        return {}
    loaded = {}
    for name, body in models.items():
        if not isinstance(body, Mapping):
            continue
        fields = {k: v for k, v in body.items() if k in LatencyModel.__dataclass_fields__}
        if all(isinstance(v, (int, float)) and math.isfinite(v) for v in fields.values()):
            loaded[str(name)] = LatencyModel(**fields)
    return loaded


def dump(models: Mapping[str, LatencyModel]) -> dict[str, object]:
    """The state as JSON: {"format": 1, "models": {"<version>/<precision>": {...}}}."""
    return {"format": 1, "models": {name: model.dump() for name, model in sorted(models.items())}}


def learn(model: LatencyModel, points: Sequence[tuple[float, float, float]], weight: float = 1.0) -> LatencyModel:
    """The model after measurements (at_s, rows, batch_ms), oldest first; those it already has are skipped."""
    for at_s, rows, batch_ms in points:
        if at_s > model.updated_s:
            model = model.add(rows, batch_ms, at_s, weight)
    return model
