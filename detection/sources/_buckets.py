"""Histograms from the series of their buckets. A bucket's bound is a number: "0.5", "0.50" and "5e-1" are one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from detection.model import BucketWindow, FloatArray, Span
from detection.sources._client import Row
from detection.sources._queries import Group


def _columns(group: Group, rows: Sequence[Row]) -> Mapping[tuple[str, ...], Mapping[float, FloatArray]]:
    """Cumulative series by the services' labels and the bound in ms; what is spelt in several ways is added up."""
    found: dict[tuple[str, ...], dict[float, FloatArray]] = defaultdict(dict)
    owners = group.owners()
    scale_ms = float(group.names.get("duration_ms", group.preset.bucket_scale_ms))
    for row in rows:
        key = tuple(row.labels.get(label, "") for label in group.keys)
        bound = _bound(row.labels.get("le"))
        if key not in owners or bound is None:
            continue
        edge_ms = bound * scale_ms
        known = found[key].get(edge_ms)
        found[key][edge_ms] = row.values if known is None else _added(known, row.values)
    return found


def _bound(text: str | None) -> float | None:
    try:
        bound = float(text or "")
    except ValueError:
        return None
    return bound if not np.isnan(bound) else None


def _added(some: FloatArray, others: FloatArray) -> FloatArray:
    """The sum where either is known: replicas that spell the bound differently come and go apart."""
    total = np.nansum(np.stack([some, others]), axis=0)
    return np.where(np.isnan(some) & np.isnan(others), np.nan, total)


def bounds_ms(group: Group, rows: Sequence[Row]) -> dict[str, tuple[float, ...]]:
    """The upper edges of the finite buckets by service name, ascending."""
    owners = group.owners()
    return {
        name: tuple(sorted(edge for edge in columns if np.isfinite(edge)))
        for key, columns in _columns(group, rows).items()
        for name in owners[key]
    }


def windows(group: Group, rows: Sequence[Row], span: Span, factor: float) -> dict[str, BucketWindow]:
    """What fell into each bucket by service name. factor: from the query's window to one step."""
    owners = group.owners()
    found = {}
    for key, columns in _columns(group, rows).items():
        upper = np.array(sorted(columns))
        cumulative = np.stack([columns[edge] for edge in upper], axis=1) * factor
        counts = np.diff(cumulative, axis=1, prepend=0.0)
        for name in owners[key]:
            # extrapolation of increase() can leave tiny negative differences between buckets
            found[name] = BucketWindow(name, span, upper, np.where(counts < 0, 0.0, counts))
    return found
