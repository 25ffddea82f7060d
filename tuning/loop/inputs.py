"""The checks of what a service is fed: made with the hourly learning, kept in the store, and read as signals by sweeps.

A sample that cannot be read is named and says nothing; every other service is checked all the same.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from detection.errors import SlotuneError
from detection.inputs import Finding, Rows, check
from detection.model import MetricWindow, Service, Value
from tuning.loop.parts import Parts
from tuning.ports import Ledger

_log = logging.getLogger(__name__)
KEY = "inputs"
DRIFT_SIGNAL = "inputs"
"""What the drift of the inputs is called among the drift of signals."""
LASTS_S = 3 * 3600.0
"""A check is known for so long: the next ones are due within the hour."""


class Checked(Value):
    """The newest checks of one service's inputs. ratios: by signal (`data_drift`, ...), in times of the limit.

    odd: sentences of what is beyond its limit. said: of every check. drift: figures like those of drifted signals.
    """

    at_s: float
    ratios: dict[str, float] = {}
    odd: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    drift: dict[str, object] | None = None


def check_inputs(parts: Parts, at_s: float) -> dict[str, Checked]:
    """Check the inputs of every service that names a sample; what was found goes to the store."""
    found = {}
    for name, service in parts.services.items():
        if service.inputs is None:
            continue
        try:
            found[name] = _checked(parts, service, at_s)
        except SlotuneError as error:
            _log.warning("%s: its inputs cannot be checked: %s", name, error)
            found[name] = Checked(at_s=at_s, said=(f"the inputs cannot be checked: {error}",))
    if found:
        body = {name: one.model_dump(mode="json") for name, one in found.items()}
        parts.ledger.put_blob(KEY, json.dumps(body).encode(), at_s=at_s)
    return found


def _checked(parts: Parts, service: Service, at_s: float) -> Checked:
    wanted = service.inputs
    assert wanted is not None  # noqa: S101 - asked by the caller
    sample = parts.inputs(wanted.sample, wanted.time_column, wanted.ignore)
    if wanted.reference:
        reference = parts.inputs(wanted.reference, wanted.time_column, wanted.ignore)
    else:
        newest: Rows = sample.newest()
        reference = sample.before(float(newest.times.min()) - 1e-6) if newest.count else sample
    findings = check(reference, sample, now_s=at_s, fresh_s=wanted.fresh_s)
    drift = next((one for one in findings if one.check == "drift" and one.odd), None)
    return Checked(
        at_s=at_s,
        ratios={f"data_{one.check}": round(one.ratio, 4) for one in findings if one.ratio is not None},
        odd=tuple(one.sentence for one in findings if one.odd),
        said=tuple(one.sentence for one in findings),
        drift=None if drift is None else _figure(service.name, drift, at_s),
    )


def _figure(service: str, drift: Finding, at_s: float) -> dict[str, object]:
    return {
        "service": service,
        "signal": DRIFT_SIGNAL,
        "psi": drift.psi,
        "psi_limit": drift.psi_limit,
        "drifted": True,
        "reason": f"the inputs have changed: {drift.sentence}",
        "at_s": at_s,
    }


def last_checked(ledger: Ledger, at_s: float) -> dict[str, Checked]:
    """The newest checks by service, as far as they are no older than LASTS_S."""
    stored = ledger.get_blob(KEY)
    try:
        body: Any = json.loads(stored) if stored else {}
        found = {str(name): Checked.model_validate(one, extra="ignore") for name, one in dict(body).items()}
    except (ValueError, TypeError, AttributeError) as error:
        _log.warning("the checks of inputs that were stored cannot be read and are passed over: %s", error)
        return {}
    return {name: one for name, one in found.items() if 0 <= at_s - one.at_s <= LASTS_S}


def with_inputs(
    ledger: Ledger, services: Sequence[Service], windows: Mapping[str, MetricWindow], at_s: float
) -> Mapping[str, MetricWindow]:
    """The windows with what was checked as signals: one number each, at the window's end. The store is asked only
    where a service names a sample."""
    wanted = [service.name for service in services if service.inputs is not None and service.name in windows]
    if not wanted:
        return windows
    found, checked = dict(windows), last_checked(ledger, at_s)
    for name in wanted:
        window, one = windows[name], checked.get(name)
        if one is None or not one.ratios or not window.span.points:
            continue
        more = {signal: np.full(window.span.points, np.nan) for signal in one.ratios}
        for signal, value in one.ratios.items():
            more[signal][-1] = value
        found[name] = replace(window, values={**window.values, **more})
    return found


def odd_inputs(ledger: Ledger, service: Service, at_s: float) -> tuple[str, ...]:
    """What is odd about the inputs of a service, in sentences."""
    if service.inputs is None:
        return ()
    found = last_checked(ledger, at_s).get(service.name)
    return found.odd if found is not None else ()
