"""Windows between two tasks: packed arrays in the ledger's blob store, because they are too big for XCom."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from detection.model import FloatArray, MetricWindow, PercentileSource, Span

Replicas = Mapping[str, Mapping[str, MetricWindow]]
DIGEST = "sweep/latest"
"""Where `digest` is kept: what pages and metrics show of the last sweep."""
_TREND_POINTS = 48
_RECENT_S = 600.0


def pack(windows: Mapping[str, MetricWindow], replicas: Replicas, at_s: float) -> bytes:
    """One compressed archive: a (rows, points) array per signal and an index in JSON. No pickle."""
    flat = [*windows.values(), *(w for inner in replicas.values() for w in inner.values())]
    index = [
        {
            "service": w.service,
            "replica": w.replica,
            "span": [w.span.start_s, w.span.end_s, w.span.step_s],
            "percentile_source": w.percentile_source,
            "stale_s": dict(w.stale_s),
            "bounds_ms": list(w.bounds_ms),
            "unread": dict(w.unread),
            "signals": sorted(w.values),
        }
        for w in flat
    ]
    arrays = {
        f"w{i}": np.array([w.values[s] for s in sorted(w.values)], dtype=np.float64).reshape(len(w.values), -1)
        for i, w in enumerate(flat)
    }
    header = np.frombuffer(json.dumps({"at_s": at_s, "index": index}).encode(), dtype=np.uint8)
    out = io.BytesIO()
    np.savez_compressed(out, header=header, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def digest(
    windows: Mapping[str, MetricWindow],
    unreadable: Mapping[str, str],
    asleep: Sequence[str],
    at_s: float,
    promised: Mapping[str, str] | None = None,
) -> bytes:
    """The newest number of each signal and the course of P95, as JSON: a thousand services are read in milliseconds.

    promised: the signal whose course is kept, by service, where that is not p95_ms.
    unreadable: why a service could not be read. asleep: those that are scaled to zero on purpose. A signal without a
    number in the last ten minutes (or two steps) is absent; a gap in the trend is null.
    """
    services = {}
    for name, window in windows.items():
        within_s = max(_RECENT_S, 2 * window.span.step_s)
        newest = {signal: window.last(signal, within_s) for signal in window.values}
        services[name] = {
            "values": {signal: round(v, 6) for signal, v in newest.items() if v is not None},
            "trend": _thinned(window.values.get((promised or {}).get(name, "p95_ms"))),
            "percentile_source": window.percentile_source,
        }
    body = {"at_s": at_s, "services": services, "unreadable": dict(unreadable), "asleep": sorted(asleep)}
    return json.dumps(body).encode()


def _thinned(values: FloatArray | None) -> list[float | None]:
    """At most _TREND_POINTS values, the highest of each stretch: a peak must not fall between two points. It begins
    with the first number: a service that was just added shows what there is of it."""
    known = np.flatnonzero(np.isfinite(values)) if values is not None else np.empty(0, dtype=int)
    if values is None or not known.size:
        return []
    values = np.where(np.isfinite(values), values, np.nan)[known[0] :]
    size, parts = values.size, min(_TREND_POINTS, values.size)
    # The first of them are one longer, as numpy.array_split has it; fmax leaves gaps out.
    each, longer = divmod(size, parts)
    begins = np.arange(parts) * each + np.minimum(np.arange(parts), longer)
    highest = np.fmax.reduceat(values, begins).tolist()
    return [round(one, 3) if math.isfinite(one) else None for one in highest]


def unpack(data: bytes) -> tuple[dict[str, MetricWindow], dict[str, dict[str, MetricWindow]], float]:
    """(windows by service, windows by service and replica, at_s)."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        header = json.loads(bytes(archive["header"]))
        windows: dict[str, MetricWindow] = {}
        replicas: dict[str, dict[str, MetricWindow]] = {}
        for i, row in enumerate(header["index"]):
            values = archive[f"w{i}"]
            window = MetricWindow(
                service=row["service"],
                span=Span(*row["span"]),
                values=dict(zip(row["signals"], values, strict=True)),
                percentile_source=cast(PercentileSource, row["percentile_source"]),
                replica=row["replica"],
                stale_s=row["stale_s"],
                bounds_ms=tuple(row.get("bounds_ms", ())),
                unread=row.get("unread", {}),
            )
            if window.replica is None:
                windows[window.service] = window
            else:
                replicas.setdefault(window.service, {})[window.replica] = window
        return windows, replicas, float(header["at_s"])
