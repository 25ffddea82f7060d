"""The signals of one service: what each is asked with, what it shows, and what rests on it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detection import own_signals, presets
from detection.model import MetricWindow, Service
from detection.presets import Preset
from detection.signal import Signal
from detection.signals import SIGNALS, of_unit
from detection.sources.prometheus import query_of
from detection.windows import PERCENTILES, last_shown
from tuning.planning.causes import CAUSES

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_METRIC = re.compile(rf"{_NAME}(?=\{{)|(?<=\) \(){_NAME}(?=\))")
"""A name before its selector, or alone behind an aggregation: `avg by (instance) (NAME)`."""


@dataclass(frozen=True)
class SignalRow:
    """query: as Prometheus is asked for this service alone. metrics: what it is made of. value: now, None where nothing
    was shown in the window. found: the window holds at least one value. reason: why it could not be read, where that
    is known. without: what is off without it. causes: what can only be told with it, by name."""

    signal: str
    title: str
    query: str
    metrics: tuple[str, ...]
    value: str | None
    found: bool
    reason: str
    without: str
    causes: tuple[str, ...]


def metrics_of(preset: Preset, signal: str, names: Mapping[str, str]) -> tuple[str, ...]:
    """The metrics that a signal's query reads, sorted. names: of `Preset.resolved`."""
    filled = preset.query(preset.signals[signal], selector="", by="", window="1m", names=names)
    return tuple(sorted(set(_METRIC.findall(filled))))


def rows(service: Service, window: MetricWindow | None, rate_window_s: float) -> list[SignalRow]:
    """One row for each signal that the service's preset knows, in the order of the one table of signals.

    Raises ConfigError: no such preset, or the service overrides a name that it does not have.
    """
    preset = presets.of(service)
    names = dict(preset.resolved(service.labels))
    own = own_signals.table(service)
    known = [signal for signal in SIGNALS if signal in preset.signals]
    found = [_row(service, preset, names, SIGNALS[signal], window, rate_window_s) for signal in known]
    found += [_row(service, preset, names, own[name], window, rate_window_s) for name in own if name in preset.signals]
    return found + [_off(own.get(name), name, why) for name, why in presets.signals_off(service).items()]


def causes_with(signal: str, known: Sequence[str]) -> tuple[str, ...]:
    """The causes that `known` signals can tell and cannot without this one."""
    left = set(known) - {signal}
    return tuple(
        cause.name
        for cause in CAUSES.values()
        if any(set(group) <= set(known) for group in cause.told_by)
        and not any(set(group) <= left for group in cause.told_by)
    )


def _row(
    service: Service,
    preset: Preset,
    names: Mapping[str, str],
    entry: Signal,
    window: MetricWindow | None,
    rate_window_s: float,
) -> SignalRow:
    signal = entry.name
    found = window is not None and signal in window.values
    value = window.last(signal) if window is not None and found else None
    text = None if value is None else of_unit(entry.unit, value)
    if window is not None and value is not None and signal in PERCENTILES:
        text = last_shown(window, signal)
    return SignalRow(
        signal=signal,
        title=entry.title,
        query=query_of(service, preset.signals[signal], rate_window_s),
        metrics=metrics_of(preset, signal, names),
        value=text,
        found=found,
        reason="" if window is None else window.unread.get(signal, ""),
        without=entry.without or "it is not watched",
        causes=causes_with(signal, list(preset.signals)),
    )


def _off(entry: Signal | None, name: str, why: str) -> SignalRow:
    title = entry.title if entry is not None else name
    return SignalRow(name, title, "", (), None, False, why, "it is not watched", ())
