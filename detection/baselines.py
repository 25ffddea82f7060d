"""What was learned, as a value: plain arrays by group of services, kept as .npz without pickle."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.errors import SlotuneError
from detection.ports import Baseline

FORMAT = 4
POOLED = "pooled/"
"""Arrays under this prefix are of all services of a group together."""


class BaselineUnreadable(SlotuneError):
    """The stored baselines are damaged or from another format; learning again mends it."""


@dataclass(frozen=True)
class GroupBaseline:
    """Baselines of services with the same signals.

    step_s: resolution that was learned at. learned_at_s, history_s: per service, shape (services,). arrays: by
    "detector/name"; the first axis is services * signals for "series/..." and "threshold/...", the method's own for
    "pooled/...", services for all others.
    """

    services: tuple[str, ...]
    signals: tuple[str, ...]
    step_s: float
    learned_at_s: NDArray[np.float64]
    history_s: NDArray[np.float64]
    arrays: Mapping[str, NDArray[np.float32]]

    def part(self, prefix: str) -> dict[str, NDArray[np.float32]]:
        """The arrays of one detector, without the prefix."""
        cut = prefix + "/"
        return {name[len(cut) :]: values for name, values in self.arrays.items() if name.startswith(cut)}

    def select(self, rows: Sequence[int]) -> GroupBaseline:
        """The baselines of some of its services. What is pooled is of all services and stays whole."""
        index = np.asarray(rows, dtype=np.int64)
        m = len(self.signals)
        flat = (index[:, None] * m + np.arange(m)).ravel()
        arrays = {}
        for name, values in self.arrays.items():
            if name.startswith(("series/", "threshold/")):
                arrays[name] = values[flat]
            elif name.startswith(POOLED):
                arrays[name] = values
            else:
                arrays[name] = values[index]
        services = tuple(self.services[i] for i in rows)
        return GroupBaseline(
            services, self.signals, self.step_s, self.learned_at_s[index], self.history_s[index], arrays
        )


@dataclass(frozen=True)
class BaselineSet:
    """All baselines of an installation at one time.

    abstained: why a service has none. spoken: what each detector that speaks for itself learned, by its name.
    """

    groups: tuple[GroupBaseline, ...] = ()
    abstained: Mapping[str, str] = field(default_factory=dict)
    spoken: Mapping[str, Baseline] = field(default_factory=dict)

    def trust(self, service: str, wanted_s: float) -> float:
        """How much of the wanted history a service's baseline rests on, 0..1; 0 without one."""
        for group in self.groups:
            if service in group.services:
                return float(min(1.0, group.history_s[group.services.index(service)] / wanted_s))
        return 0.0

    def to_bytes(self) -> bytes:
        """The set as an .npz; from_bytes(to_bytes()) is the same set."""
        arrays: dict[str, NDArray[np.float32] | NDArray[np.float64]] = {}
        meta: dict[str, object] = {"format": FORMAT, "abstained": dict(self.abstained)}
        meta["spoken"] = _to_json(self.spoken)
        meta["groups"] = [
            {"services": group.services, "signals": group.signals, "step_s": group.step_s} for group in self.groups
        ]
        for index, group in enumerate(self.groups):
            arrays[f"{index}|learned_at_s"] = group.learned_at_s
            arrays[f"{index}|history_s"] = group.history_s
            arrays |= {f"{index}|a|{name}": values for name, values in group.arrays.items()}
        packed: dict[str, NDArray[np.generic]] = {name: np.asarray(values) for name, values in arrays.items()}
        packed["meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, **packed)  # type: ignore[arg-type]  # the stub takes savez's keywords for its own flags
        return buffer.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> BaselineSet:
        """Reads what to_bytes wrote. Raises BaselineUnreadable for anything else."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                meta = json.loads(stored["meta"].tobytes())
                _check_format(meta)
                arrays = {name: stored[name] for name in stored.files if name != "meta"}
            groups = tuple(_group(index, item, arrays) for index, item in enumerate(meta["groups"]))
            return BaselineSet(groups, dict(meta["abstained"]), _from_json(meta["spoken"]))
        except BaselineUnreadable:
            raise
        except Exception as error:
            raise BaselineUnreadable("the stored baselines cannot be read; they will be learned again") from error


def _to_json(value: Any) -> Any:
    """Plain values and arrays as JSON; an array is marked, so that it comes back as one."""
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    if isinstance(value, Mapping):
        return {"items": {key: _to_json(part) for key, part in value.items()}}
    return [_to_json(part) for part in value] if isinstance(value, list | tuple) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(part) for part in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return np.array(value["array"], dtype=value["dtype"])
    return {key: _from_json(part) for key, part in value["items"].items()}


def _check_format(meta: Mapping[str, object]) -> None:
    if meta["format"] != FORMAT:
        raise BaselineUnreadable(f"the stored baselines have format {meta['format']}, not {FORMAT}")


def _group(index: int, item: dict[str, object], arrays: Mapping[str, NDArray[np.float32]]) -> GroupBaseline:
    prefix = f"{index}|a|"
    services, signals, step_s = item["services"], item["signals"], item["step_s"]
    if not isinstance(services, list) or not isinstance(signals, list) or not isinstance(step_s, int | float):
        raise BaselineUnreadable("the stored baselines do not say what they are for")
    return GroupBaseline(
        tuple(services),
        tuple(signals),
        float(step_s),
        arrays[f"{index}|learned_at_s"].astype(np.float64),
        arrays[f"{index}|history_s"].astype(np.float64),
        {name[len(prefix) :]: values for name, values in arrays.items() if name.startswith(prefix)},
    )
