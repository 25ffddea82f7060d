"""Presets that are data: of services.yaml, and of packages by the entry-point group `slotune.presets`.

Either names a preset that it is like and says what differs, or says all of it. Both are held to what ours are held to.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points

import pydantic

from detection.errors import ConfigError
from detection.model import OwnPreset
from detection.presets._preset import MS_OF_UNIT, Preset
from detection.signals import SIGNALS

_log = logging.getLogger(__name__)
GROUP = "slotune.presets"
"""Entry points of packages: each is a mapping with the keys of `presets` in services.yaml, without its name."""


def made(name: str, data: OwnPreset, ours: Mapping[str, Preset]) -> Preset:
    """The preset that the data say. ConfigError with the first thing that is wrong (see `problems`)."""
    for place, sentence in problems(name, data, ours):
        raise ConfigError(f"the preset {name!r}: {'.'.join(place)}: {sentence}")
    base = ours[data.like] if data.like else Preset(name=name, title=name, signals={})
    found = dataclasses.replace(
        base,
        name=name,
        title=data.title or (f"{base.title}, as {name}" if data.like else name),
        signals={**base.signals, **data.signals},
        names={**base.names, **data.names},
        units={**base.units, **data.units},
        native={signal: query for signal, query in base.native.items() if signal not in data.signals},
        replica_label=data.replica_label or base.replica_label,
        presence=data.presence or base.presence,
        percentile_source=data.percentiles or base.percentile_source,
    )
    if not (data.buckets or "p95_ms" in data.signals):
        return found
    # the buckets of another metric than the percentile's would say where that one ends
    return dataclasses.replace(found, buckets=data.buckets, bucket_scale_ms=MS_OF_UNIT[data.buckets_unit])


def problems(name: str, data: OwnPreset, ours: Mapping[str, Preset]) -> Iterator[tuple[tuple[str, ...], str]]:
    """(place below the preset, sentence) of everything that is wrong with it."""
    if name in ours:
        yield ("name",), f"{name!r} is a preset of slotune: give yours another name (and say `like: {name}`)"
    if data.like and data.like not in ours:
        yield ("like",), f"there is no preset {data.like!r}{_nearest(data.like, ours)}"
        return
    base = ours[data.like] if data.like else Preset(name=name, title=name, signals={})
    if not data.like and not {"p95_ms", "ttft_p95_ms"} & set(data.signals):
        yield ("signals",), "has no p95_ms (or ttft_p95_ms), so that no SLO can be held: add it, or say `like`"
    units = {**base.units, **data.units}
    names = {**base.names, **data.names}
    whole = dataclasses.replace(base, name=name, names=names, units={k: u for k, u in units.items() if u in MS_OF_UNIT})
    for key, metric in data.names.items():
        try:
            dataclasses.replace(whole, names={key: "x"}, units={}).resolved({f"metric.{key}": metric})
        except ConfigError as error:
            yield ("names", key), str(error)
    for key, unit in data.units.items():
        if unit not in MS_OF_UNIT:
            yield ("units", key), f"{unit!r} is no unit of a duration: write {', '.join(MS_OF_UNIT)}"
        elif key not in names:
            yield ("units", key), f"no name {key!r} whose unit this could be{_nearest(key, names)}"
    for signal, template in data.signals.items():
        if signal not in SIGNALS:
            yield ("signals", signal), f"there is no signal {signal!r}{_nearest(signal, SIGNALS)}"
        elif problem := whole.query_problem(template):
            yield ("signals", signal), problem
    if data.buckets and (problem := whole.query_problem(data.buckets)):
        yield ("buckets",), problem


def packaged(ours: Mapping[str, Preset]) -> dict[str, Preset]:
    """The presets that installed packages bring. One that cannot be used is named in the log, and left out."""
    found = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            found[point.name] = made(point.name, OwnPreset.model_validate(point.load()), ours)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            _log.warning("the preset %r of the package %s cannot be used: %s", point.name, point.value, why)
        except Exception as error:  # whatever somebody else's package raises when it is imported
            _log.warning("the preset %r of the package %s cannot be used: %s", point.name, point.value, error)
    return found


def _nearest(word: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known)) or 'none'}"
