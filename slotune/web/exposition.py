"""Prometheus' text format, version 0.0.4: written fast, because ten thousand lines change with every sweep."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Kind = Literal["gauge", "counter", "histogram"]
_TROUBLE = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class Family:
    """One metric with its samples. name: as it is exposed, so a counter's ends in _total. labels: of every sample."""

    def __init__(self, kind: Kind, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self._name = f"slotune_{name}"
        pairs = ",".join(f'{label}="%s"' for label in labels)
        self._form = f"{self._name}{{{pairs}}} %s" if labels else f"{self._name} %s"
        self._lines = [f"# HELP {self._name} {text}", f"# TYPE {self._name} {kind}"]

    def add(self, values: Sequence[str], value: float) -> None:
        """A sample; values: one per label."""
        self._lines.append(self._form % (*map(_escaped, values), _number(value)))

    def add_histogram(self, observed: Iterable[float], edges: Sequence[float]) -> None:
        """The whole distribution of what was observed; edges: the buckets' upper bounds, ascending."""
        seen = sorted(observed)
        for edge in (*edges, math.inf):
            count = sum(value <= edge for value in seen)
            shown = _number(edge) if math.isinf(edge) else f"{edge:g}"
            self._lines.append(f'{self._name}_bucket{{le="{shown}"}} {count}')
        self._lines += [f"{self._name}_sum {_number(sum(seen))}", f"{self._name}_count {len(seen)}"]

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"


@lru_cache(maxsize=65_536)
def _escaped(value: str) -> str:
    return value.translate(_TROUBLE)


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
