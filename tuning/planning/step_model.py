"""How long one iteration of a language model's engine takes, learned online, with what is not known said.

    step(n, p, kv) = base + sequence * n + prefill * p + kv * k          [ms], all four >= 0

for n running sequences, p prompt tokens in the same iteration and k tokens in the cache. The first two are the decode
time of llm-d's queue analyser (pkg/analyzer/queueanalyzer.go); `prefill` is what its c + d * (tokens in) and Dynamo's
profiled time to first token hold; AIConfigurator (sdk/backends/base_backend.py) mixes the same two kinds of iterations.
They profile; here the four are learned from what every server exports, three equations a window:

    inter-token latency  y = base + sequence * n' + prefill * P y + kv * n' l         n' as a token sees it
    time of an iteration y = base + sequence * n  + prefill * P y + kv * n l          y = 1 / iterations per second
    prefill time         y = c base + sequence * c n + prefill * (m + P t) + kv * c n l

P: prompt tokens computed per ms, l: mean context, m: mean prompt, c: iterations that a prompt takes, t: how long the
iteration lasts in which a request comes. By Little's law
n = (tokens generated per ms) * y; a token's own sequence is one of those that it sees, so n' = n + 1 - n / limit, which
is exact for Poisson arrivals without a limit (arrivals see time averages) and for a server at its limit. The equation
of the iteration holds only where the engine never rests. Each is linear in the four, so that the state is the
information form of recursive least squares (Bjorck 1996, ch. 2) under a wide prior, and what data leave open (sequence
against kv at one mix of lengths) stays open: draws vary along it. A measurement passes the same innovation gate as the
batch times of `latency_model`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from detection.model import FloatArray
from tuning.planning import thresholds as th
from tuning.planning.latency_model import normal_quantiles
from tuning.planning.token_queue import StepTime

_SIZE = 4
_ROOTS = (2**0.5, 3**0.5, 5**0.5, 7**0.5)
_ZEROS = (0.0,) * _SIZE


@dataclass(frozen=True)
class Measured:
    """One equation of one window: `y_ms` = features @ (base, sequence, prefill, kv). sequences, prompt: what was in
    the iterations, for how far the line is known. exact: it holds for the means of any iterations, however requests
    come; the others take arrivals to be Poisson."""

    at_s: float
    y_ms: float
    features: tuple[float, float, float, float]
    sequences: float
    prompt: float
    exact: bool = False


@dataclass(frozen=True)
class StepModel:
    """What is known of one (service, version, precision).

    gram: weighted sums of products of features, row by row (16 numbers). cross: of features and milliseconds. n:
    measurements taken in (older ones fade). scale_ms: the first measurement, which scales the prior. sequences_max,
    prompt_max: the most that was seen in an iteration. overhead_ms: time to first token outside queue and engine.
    rejected: measurements refused in a row.
    """

    n: float = 0.0
    scale_ms: float = 0.0
    gram: tuple[float, ...] = (0.0,) * (_SIZE * _SIZE)
    cross: tuple[float, ...] = _ZEROS
    sequences_max: float = 0.0
    prompt_max: float = 0.0
    overhead_ms: float = 0.0
    rejected: int = 0
    updated_s: float = 0.0

    @property
    def known(self) -> bool:
        return self.n >= 1.0

    def _posterior(self) -> tuple[FloatArray, FloatArray]:
        """Mean and covariance of the four under the prior, signs not yet looked at. Needs `known`."""
        prior, width = (np.array(values) * self.scale_ms for values in th.STEP_PRIOR)
        precision = np.diag(1 / width**2) + np.array(self.gram).reshape(_SIZE, _SIZE)
        # Scaled to its diagonal: the four differ by four orders of magnitude.
        scale = np.sqrt(np.diag(precision))
        covariance = np.linalg.inv(precision / np.outer(scale, scale)) / np.outer(scale, scale)
        return covariance @ (prior / width**2 + np.array(self.cross)), covariance

    def _best(self) -> FloatArray:
        """The most probable four with none below 0."""
        mean, covariance = self._posterior()
        return _nonnegative(mean, np.asarray(np.linalg.inv(covariance), dtype=np.float64))

    def step(self) -> StepTime:
        """The most probable iteration time. Needs `known`."""
        return StepTime(*(float(value) for value in self._best()))

    def draws(self, count: int) -> tuple[StepTime, ...]:
        """`count` iteration times that the data allow, at Kronecker points of the four quantiles. Needs `known`.

        A draw with a part below 0 becomes the nearest one without, as the data see nearness: what one part gives up
        another takes over, so that what was measured stays as it was measured.
        """
        mean, covariance = self._posterior()
        precision = np.asarray(np.linalg.inv(covariance), dtype=np.float64)
        scale = np.sqrt(np.diag(covariance))
        root = np.linalg.cholesky(covariance / np.outer(scale, scale) + 1e-12 * np.eye(_SIZE))
        levels = (np.arange(count) + 0.5) / count
        z = np.array([normal_quantiles(levels)[np.argsort(np.arange(count) * r % 1.0)] for r in _ROOTS])
        found = mean[:, None] + scale[:, None] * (root @ z)
        return tuple(StepTime(*(float(v) for v in _nonnegative(one, precision))) for one in found.T)

    def predict(self, features: Sequence[float]) -> tuple[float, float]:
        """Mean and standard deviation in ms of an equation's left side. Needs `known`."""
        x = np.array(features)
        mean = float(x @ self._best())
        variance = float(x @ self._posterior()[1] @ x)
        return max(mean, 1e-6), math.sqrt(variance + (th.MISFIT * mean) ** 2)

    def doubt(self, sequences: float) -> float:
        """Relative doubt that the line holds there: the misfit, more per doubling past what was seen."""
        return math.hypot(th.MISFIT, th.BEYOND * _doublings(sequences, self.sequences_max))

    def beyond_prompts(self, prompt: float) -> float:
        """Relative doubt of what a token of such prompts costs: attention over longer ones grows faster than a line."""
        return th.BEYOND_PROMPT * _doublings(prompt, self.prompt_max)

    def is_guess(self, sequences: float, context: float) -> bool:
        """Whether the time of an iteration with so many sequences of mean length `context` rests on the prior alone."""
        if sequences <= self.sequences_max:
            return False
        x = np.array((1.0, sequences, 0.0, sequences * context))
        return math.sqrt(float(x @ self._posterior()[1] @ x)) > th.GUESS * float(x @ self._best())

    def add(self, seen: Measured) -> StepModel:
        """The state after one measurement; the old one with `rejected` counted up when it fails the gate."""
        if not (seen.y_ms > 0 and all(math.isfinite(v) for v in (seen.y_ms, *seen.features))):
            return self
        base = self if self.scale_ms else replace(self, scale_ms=seen.y_ms)
        if base.n >= th.STEP_GATE_FROM:
            mean, sd = base.predict(seen.features)
            if (seen.y_ms - mean) ** 2 / (sd**2 + (th.STEP_NOISE * seen.y_ms) ** 2) > th.NIS_LIMIT:
                if base.rejected + 1 < th.STEP_REGIME:
                    return replace(base, rejected=base.rejected + 1)
                base = replace(base.faded(0.02 / max(base.n, 1.0)), scale_ms=seen.y_ms, sequences_max=seen.sequences)
        weight = 1 / (th.STEP_NOISE * seen.y_ms) ** 2
        x = np.array(seen.features)
        gram = np.array(base.gram) + weight * np.outer(x, x).ravel()
        cross = np.array(base.cross) + weight * seen.y_ms * x
        grown = replace(
            base,
            n=base.n + 1,
            gram=tuple(float(v) for v in gram),
            cross=tuple(float(v) for v in cross),
            sequences_max=max(base.sequences_max, seen.sequences),
            prompt_max=max(base.prompt_max, seen.prompt),
            rejected=0,
            updated_s=max(base.updated_s, seen.at_s),
        )
        return grown.faded(th.STEP_POINTS_MAX / grown.n) if grown.n > th.STEP_POINTS_MAX else grown

    def faded(self, factor: float) -> StepModel:
        """The same line with `factor` of the confidence."""
        gram, cross = (tuple(factor * v for v in values) for values in (self.gram, self.cross))
        return replace(self, n=factor * self.n, gram=gram, cross=cross)

    def with_overhead(self, overhead_ms: float) -> StepModel:
        """The state with a newly seen overhead: the mean of the old and the new, so that one odd window does little."""
        old = self.overhead_ms
        return replace(self, overhead_ms=overhead_ms if old <= 0 else (1 - th.OVERHEAD_WEIGHT) * old
                       + th.OVERHEAD_WEIGHT * overhead_ms)  # fmt: skip

    def dump(self) -> dict[str, object]:
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name in self.__dataclass_fields__
            for value in (getattr(self, name),)
        }


def _doublings(wanted: float, seen: float) -> float:
    return math.log2(wanted / seen) if 0 < seen < wanted else 0.0


def _nonnegative(mean: FloatArray, precision: FloatArray) -> FloatArray:
    """The point nearest to `mean` in the metric of `precision` with no part below 0: the best of the 16 choices of
    which are 0 (Lawson and Hanson, "Solving least squares problems", 1974, ch. 23)."""
    if (mean >= 0).all():
        return mean
    best, least = np.maximum(mean, 0.0), math.inf
    for kept in itertools.product((False, True), repeat=_SIZE):
        on = np.array(kept)
        value = np.zeros(_SIZE)
        if on.any():
            pull = precision[np.ix_(on, ~on)] @ mean[~on]
            value[on] = mean[on] + np.linalg.solve(precision[np.ix_(on, on)], pull)
        lost = float((value - mean) @ precision @ (value - mean))
        if (value >= 0).all() and lost < least:
            best, least = value, lost
    return best


def load(state: Mapping[str, object] | None) -> dict[str, StepModel]:
    """The models of a stored state by key; what cannot be read is left out (it is learned again)."""
    models = state.get("steps") if isinstance(state, Mapping) else None
    loaded = {str(name): _read(body) for name, body in models.items()} if isinstance(models, Mapping) else {}
    return {name: model for name, model in loaded.items() if model is not None}


def _read(body: object) -> StepModel | None:
    if not isinstance(body, Mapping):
        return None
    wanted = {"gram": _SIZE * _SIZE, "cross": _SIZE}
    fields: dict[str, object] = {}
    for name, value in body.items():
        if name in wanted:
            if not isinstance(value, list) or len(value) != wanted[name] or not all(_finite(v) for v in value):
                return None
            fields[name] = tuple(float(v) for v in value)
        elif name in StepModel.__dataclass_fields__:
            if not _finite(value):
                return None
            fields[name] = value
    return replace(StepModel(), **fields)  # type: ignore[arg-type]


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def dump(models: Mapping[str, StepModel]) -> dict[str, object]:
    """The state as JSON: {"format": 1, "steps": {"<version>/<precision>": {...}}}."""
    return {"format": 1, "steps": {name: model.dump() for name, model in sorted(models.items())}}


def learn(model: StepModel, seen: Sequence[Measured]) -> StepModel:
    """The model after measurements, oldest first; those that it already has are skipped."""
    fresh = [one for one in seen if one.at_s > model.updated_s]
    for one in fresh:
        model = model.add(one)
    if fresh:
        model = replace(model, updated_s=max(model.updated_s, fresh[-1].at_s))
    return model
