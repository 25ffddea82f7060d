"""Windows between two tasks: packed arrays in the ledger's blob store, because they are too big for XCom."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import cast

import numpy as np

from detection.model import MetricWindow, PercentileSource, Span

Replicas = Mapping[str, Mapping[str, MetricWindow]]


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
            )
            if window.replica is None:
                windows[window.service] = window
            else:
                replicas.setdefault(window.service, {})[window.replica] = window
        return windows, replicas, float(header["at_s"])
