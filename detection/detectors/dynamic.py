"""Dynamic thresholds by STL or ARIMA for chosen series: precise, and far too dear for all of them.

0.1 to 0.3 CPU seconds a series (a robust STL 2 s): a thousand services would take the better part of an hour, which
is why `series` names the few that are worth it. Needs the extra `seasonal` (statsmodels).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from detection.errors import ConfigError
from detection.model import FloatArray, MetricWindow, Score
from detection.panel import signal_of
from detection.ports import Baseline

DAY_S = 86_400.0
AHEAD_S = DAY_S
WIDTH = 4.0
Method = Literal["stl", "arima"]


class DynamicThreshold:
    """Forecasts each chosen series a day ahead, with a band of 4 residual standard deviations.

    series: "service/signal" names. Abstains on all others, on points beyond the forecast, and where the history is
    shorter than two days (STL) or 100 points (ARIMA).
    """

    name = "dynamic"

    def __init__(self, series: Sequence[str], method: Method = "stl") -> None:
        self._series = frozenset(series)
        self._method = method

    def learn(self, history: Mapping[str, MetricWindow]) -> Baseline:
        """By "service/signal": the forecast (centre, width) on a grid from start_s on."""
        learned: dict[str, Any] = {}
        for service, window in history.items():
            for signal, values in window.values.items():
                if f"{service}/{signal}" in self._series:
                    forecast = self._forecast(_scaled(values, signal), window.span.step_s)
                    if forecast is not None:
                        start_s = window.span.end_s + window.span.step_s
                        learned[f"{service}/{signal}"] = {"start_s": start_s, "step_s": window.span.step_s, **forecast}
        return learned

    def score(self, windows: Mapping[str, MetricWindow], baseline: Baseline, at_s: float) -> Sequence[Score]:
        """One score for each chosen series that is there."""
        return [
            self._one(
                service, signal, window.between(window.span.start_s, at_s), baseline.get(f"{service}/{signal}"), at_s
            )
            for service, window in windows.items()
            for signal in window.values
            if f"{service}/{signal}" in self._series
        ]

    def _forecast(self, x: FloatArray, step_s: float) -> dict[str, FloatArray] | None:
        known = np.isfinite(x)
        if known.sum() < 100:
            return None
        x = np.interp(np.arange(x.size), np.flatnonzero(known), x[known])
        steps = max(1, round(AHEAD_S / step_s))
        return self._stl(x, round(DAY_S / step_s), steps) if self._method == "stl" else self._arima(x, steps)

    def _stl(self, x: FloatArray, period: int, steps: int) -> dict[str, FloatArray] | None:
        stl = _statsmodels("statsmodels.tsa.seasonal").STL
        if period < 2 or x.size < 2 * period + 1:
            return None
        fit = stl(x, period=period).fit()
        sd = _robust_sd(fit.resid)
        season = np.asarray(fit.seasonal)[-period:]
        center = float(fit.trend[-1]) + season[np.arange(steps) % period]
        return {"center": center, "width": np.full(steps, WIDTH * sd)}

    def _arima(self, x: FloatArray, steps: int) -> dict[str, FloatArray]:
        arima = _statsmodels("statsmodels.tsa.arima.model").ARIMA
        with warnings.catch_warnings():
            # a fit that did not quite converge still forecasts; its residuals say how well
            warnings.simplefilter("ignore")
            forecast = arima(x[-576:], order=(2, 0, 1)).fit().get_forecast(steps)
        return {"center": np.asarray(forecast.predicted_mean), "width": WIDTH * np.asarray(forecast.se_mean)}

    def _one(self, service: str, signal: str, window: MetricWindow, learned: Any, at_s: float) -> Score:
        base = {"service": service, "detector": self.name, "signal": signal, "at_s": at_s}
        if learned is None:
            return Score(**base, score=None, reason="no forecast: the history is too short or the series is new")
        index = round((at_s - learned["start_s"]) / learned["step_s"])
        value = window.last(signal, within_s=2 * learned["step_s"])
        if value is None or not 0 <= index < len(learned["center"]):
            return Score(**base, score=None, reason="no sample to judge" if value is None else "beyond the forecast")
        center, width = float(learned["center"][index]), max(float(learned["width"][index]), 1e-9)
        x = float(_scaled(np.array([value]), signal)[0])
        back = np.expm1 if signal_of(signal).log else float
        signed, worse = (x - center) / width, signal_of(signal).worse
        score = {"up": max(0.0, signed), "down": max(0.0, -signed)}.get(worse, abs(signed))
        low, high = float(back(center - width)), float(back(center + width))
        reason = f"{self._method}: expected {low:.4g} to {high:.4g}"
        return Score(**base, score=score, observed=value, expected_low=low, expected_high=high, reason=reason)


def _scaled(values: FloatArray, signal: str) -> FloatArray:
    return np.log1p(np.maximum(values, 0.0)) if signal_of(signal).log else values


def _robust_sd(residual: FloatArray) -> float:
    return max(1.4826 * float(np.median(np.abs(residual - np.median(residual)))), 1e-9)


def _statsmodels(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError("dynamic thresholds need statsmodels: install slotune with the extra `seasonal`") from error
