"""Two sides of a service for `slotune compare`: what they are named by, and how they are read.

A side is label matchers (`version=7`, `instance=10.0.0.7:8000`), a time range (`-2h/-1h`, ISO 8601), both with a
comma between them, or a recorded CSV file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from detection.errors import ConfigError
from detection.model import MetricWindow, Service, Span
from detection.ports import MetricsSource
from tuning import cost
from tuning.verification.comparison import COMPARED

_AGO = re.compile(r"^-(\d+(?:\.\d+)?)([smhd])$")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_LABEL = re.compile(r"^([A-Za-z_][A-Za-z0-9_.]*)=(.+)$")
_SELECTORS = "$sel"


@dataclass(frozen=True)
class Wanted:
    """One side as it was asked for. labels: added to the service's selectors. start_s, end_s: None: the last hour, or
    what --last says. file: a recording instead."""

    text: str
    labels: tuple[tuple[str, str], ...] = ()
    start_s: float | None = None
    end_s: float | None = None
    file: Path | None = None


def parse(text: str, now_s: float) -> Wanted:
    """What a side means. ConfigError with what can be written, where it means nothing."""
    labels: list[tuple[str, str]] = []
    start_s = end_s = file = None
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        if part.endswith((".csv", ".csv.gz")) and file is None:
            file = Path(part)
        elif match := _LABEL.match(part):
            labels.append((match[1], match[2]))
        elif "/" in part and start_s is None:
            first, _, last = part.partition("/")
            start_s, end_s = _moment(first, text, now_s), _moment(last or "now", text, now_s)
            if start_s >= end_s:
                raise ConfigError(f"{text!r} ends before it starts")
            if end_s > now_s + 1.0:
                raise ConfigError(f"{text!r} reaches into the future")
        else:
            raise ConfigError(
                f"{text!r} names no side: write label=value (version=7), a time range (-2h/-1h, or two ISO 8601 "
                "times with / between), both with a comma, or a .csv file"
            )
    if file is not None and labels:
        raise ConfigError(f"{text!r}: a recording has no labels; give the file, and a time range at most")
    if not labels and start_s is None and file is None:
        raise ConfigError("a side is empty: write label=value, a time range, or a .csv file")
    return Wanted(text, tuple(labels), start_s, end_s, file)


def _moment(text: str, whole: str, now_s: float) -> float:
    text = text.strip()
    if text == "now":
        return now_s
    if match := _AGO.match(text):
        return now_s - float(match[1]) * _UNITS[match[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} in {whole!r} is no time: write -2h, now, or 2026-11-30T10:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def read(
    wanted: Wanted,
    service: Service | None,
    source: Callable[[], MetricsSource],
    *,
    now_s: float,
    last_s: float,
    step_s: float,
) -> tuple[MetricWindow, tuple[str, ...]]:
    """The window of a side, and sentences on what it could not show. source: made when a side needs it.

    step_s: at least the window of the rates, so that neighbouring points share no samples.
    """
    if wanted.file is not None:
        return _recorded(wanted, wanted.file)
    if service is None:
        raise ConfigError(f"{wanted.text!r} is read from Prometheus: say which --service of services.yaml it is of")
    start_s = now_s - last_s if wanted.start_s is None else wanted.start_s
    end_s = now_s if wanted.end_s is None else wanted.end_s
    # On multiples of the step, so that two sides of one time share their points.
    first, last = -(-start_s // step_s) * step_s, end_s // step_s * step_s
    if last <= first:
        raise ConfigError(f"{wanted.text!r} is shorter than two points {step_s:g} s apart")
    narrowed, left_out = _narrowed(service, dict(wanted.labels))
    signals = tuple(name for name in dict.fromkeys((*COMPARED, *cost.NEEDED)) if name not in left_out)
    found = source().read([narrowed], signals, Span(first, last, step_s))
    unreadable = getattr(found, "unreadable", {})
    if service.name in unreadable:
        raise ConfigError(f"{wanted.text!r} cannot be read: {unreadable[service.name]}")
    window = found.get(service.name)
    if window is None or not any(np.isfinite(values).any() for values in window.values.values()):
        raise ConfigError(f"Prometheus has no series of {service.name} for {wanted.text!r} in that time")
    why = "is left out: its query takes no selectors, so it cannot tell the sides apart."
    return window, tuple(f"{name} {why}" for name in left_out)


def _narrowed(service: Service, labels: dict[str, str]) -> tuple[Service, tuple[str, ...]]:
    """The service with more selectors, and the signals whose own query would not heed them."""
    if not labels:
        return service, ()
    deaf = tuple(sorted(name for name, query in service.queries.items() if _SELECTORS not in query))
    return service.model_copy(update={"selectors": {**service.selectors, **labels}}), deaf


def _recorded(wanted: Wanted, file: Path) -> tuple[MetricWindow, tuple[str, ...]]:
    from detection.backtest.recorded import of_service

    recording = of_service(file)
    window = recording.window
    if not any(name in COMPARED for name in window.values):
        raise ConfigError(
            f"none of its columns is a signal that can be compared: {', '.join(COMPARED)}", where=str(file)
        )
    if wanted.start_s is not None and wanted.end_s is not None:
        window = window.between(wanted.start_s, wanted.end_s)
        if not window.span.points:
            raise ConfigError("it has no point in that time", where=wanted.text)
    odd = tuple(f"{file.name}: {number} {kind}." for kind, number in sorted(recording.odd.items()))
    return window, odd
