"""Where the histories of a rehearsal come from, read a few services at a time and only when they are needed.

A recording is read by whoever rehearses it. What Prometheus has is read in groups of services and kept as a file for
each, so that a month of fifty services is never in memory at once; a run that was stopped reads what is missing, up to
the moment up to which it was reading.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from detection.errors import ConfigError
from detection.model import BucketWindow, FloatArray, MetricWindow, Service, Span
from detection.ports import MetricsSource
from slotune.rehearsal import history
from slotune.rehearsal.counterfactual import History
from slotune.rehearsal.fleet import Held
from slotune.rehearsal.kept import KEPT_S, Folder, digest
from slotune.rehearsal.processes import Progress
from slotune.rehearsal.words import clock

AT_ONCE = 5
"""Services that are read together: one query for each signal of them all."""


def recordings(path: Path, services: Mapping[str, Service]) -> dict[str, Held]:
    """By service, of a file or a folder of them. ConfigError with the file and what is wrong with it."""
    found = {}
    for file in history.files(path):
        name = history.name_of(file)
        if name not in services:
            known = ", ".join(sorted(services))
            raise ConfigError(f"there is no service {name!r} in services.yaml; it has: {known}", where=str(file))
        beside = file.parent / name
        content = [file.read_bytes()] + [one.read_bytes() for one in sorted(beside.rglob("*.csv"))]
        found[name] = Held(digest(*content), partial(history.from_recording, file))
    return found


@dataclass(frozen=True)
class Reading:
    """Reading of Prometheus' history. asked: what it follows from (the settings, how much), as a text."""

    source: MetricsSource
    services: Sequence[Service]
    folder: Folder
    asked: str
    say: Callable[[str], None]

    def span(self, length_s: float, step_s: float, now_s: float) -> Span:
        """What is read: the last `length_s`, or what a run that was stopped was reading."""
        end_s = now_s // step_s * step_s
        file = self.folder.path / f"{self._key()}.read.json"
        try:
            begun_s = float(json.loads(file.read_bytes())["end_s"])
            if 0 < end_s - begun_s < KEPT_S:
                end_s = begun_s
                self.say(f"Going on with a run that was stopped: the history up to {clock(end_s)}.")
        except (OSError, ValueError, KeyError, TypeError):
            pass
        self.folder.write(file.name, json.dumps({"end_s": end_s}).encode())
        return Span(end_s - length_s // step_s * step_s, end_s, step_s)

    def histories(self, span: Span, progress: Progress) -> dict[str, Held]:
        """By service; one without any series is absent."""
        missing = [service for service in self.services if not self._file(service.name).exists()]
        if missing and len(missing) < len(self.services):
            self.say(f"{len(self.services) - len(missing)} of {len(self.services)} services were read before.")
        for first in range(0, len(missing), AT_ONCE):
            group = missing[first : first + AT_ONCE]
            found = history.from_source(self.source, group, span)
            for service in group:
                self.folder.write(
                    self._file(service.name).name,
                    b"" if (one := found.get(service.name)) is None else packed(one),
                )
            progress(min(1.0, (first + AT_ONCE) / len(missing)))
        files = {service.name: self._file(service.name) for service in self.services}
        return {
            name: Held(digest(file.read_bytes()), partial(_loaded, file))
            for name, file in files.items()
            if file.stat().st_size
        }

    def done(self) -> None:
        """The next run reads anew."""
        for service in self.services:
            self._file(service.name).unlink(missing_ok=True)
        (self.folder.path / f"{self._key()}.read.json").unlink(missing_ok=True)

    def _key(self) -> str:
        return digest(self.asked)

    def _file(self, name: str) -> Path:
        return self.folder.path / f"{digest(self.asked, name)}.history.npz"


def _loaded(file: Path) -> History:
    return unpacked(file.read_bytes())


def packed(found: History) -> bytes:
    """A history as bytes, its numbers as they are."""
    windows = {"": found.window, **{f"replica {name}": one for name, one in found.replicas.items()}}
    arrays = {f"{name}/{signal}": v for name, one in windows.items() for signal, v in one.values.items()}
    head: dict[str, Any] = {name: _head(one) for name, one in windows.items()}
    if (held := found.buckets) is not None:
        head["buckets"] = {"service": held.service, "span": _span(held.span)}
        arrays |= {"buckets/upper_ms": held.upper_ms, "buckets/counts": held.counts}
    out = io.BytesIO()
    np.savez_compressed(out, head=np.frombuffer(json.dumps(head).encode(), dtype=np.uint8), **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def unpacked(body: bytes) -> History:
    """What `packed` made of a history."""
    with np.load(io.BytesIO(body), allow_pickle=False) as stored:
        arrays = dict(stored)
    head = json.loads(arrays.pop("head").tobytes())
    held = head.pop("buckets", None)
    values: dict[str, dict[str, FloatArray]] = {name: {} for name in head}
    for key, array in arrays.items():
        name, _, signal = key.rpartition("/")
        values.setdefault(name, {})[signal] = array
    windows = {name: _window(one, values[name]) for name, one in head.items()}
    buckets = None
    if held is not None:
        of = values["buckets"]
        buckets = BucketWindow(held["service"], Span(*held["span"]), of["upper_ms"], of["counts"])
    whole = windows.pop("")
    return History(whole, {name.removeprefix("replica "): one for name, one in windows.items()}, buckets)


def _head(window: MetricWindow) -> dict[str, Any]:
    return {
        "service": window.service, "span": _span(window.span), "percentile_source": window.percentile_source,
        "replica": window.replica, "stale_s": dict(window.stale_s), "bounds_ms": list(window.bounds_ms),
        "unread": dict(window.unread),
    }  # fmt: skip


def _window(head: dict[str, Any], values: dict[str, FloatArray]) -> MetricWindow:
    return MetricWindow(
        **{**head, "span": Span(*head["span"]), "bounds_ms": tuple(head["bounds_ms"]), "values": values}
    )


def _span(span: Span) -> list[float]:
    return [span.start_s, span.end_s, span.step_s]
