"""What a rehearsal has worked out, kept in a folder, so that one that was stopped goes on where it was.

A file for every result, named by the digest of everything that it follows from (history, settings, this code), and one
for every history that was read. A file that is damaged or of another form is as good as none.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from detection import errors as of_detection
from detection.errors import ConfigError
from slotune import places as of_slotune
from slotune.rehearsal.result import Amount, Curves, Happened, Incident, Made, Rehearsal, Rival, ServiceResult
from tuning import errors as of_tuning

KEPT_S = 7 * 86_400.0
"""A result that was not asked for within this time is thrown away."""
_ENDS = (".result.json", ".history.npz", ".read.json")


def digest(*parts: str | bytes) -> str:
    """A name for what follows from all of the parts."""
    found = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        found.update(len(raw).to_bytes(8, "big") + raw)
    return found.hexdigest()[:32]


@cache
def code() -> str:
    """Of all that decides: with other code nothing that was kept is of use."""
    roots = [Path(one.__file__ or "").parent for one in (of_detection, of_slotune, of_tuning)]
    return digest(*(file.read_bytes() for root in roots for file in sorted(root.rglob("*.py"))))


def usual_folder() -> Path:
    """Where things are kept unless somebody says otherwise."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "slotune" / "rehearse"


class Folder:
    """A folder of what was worked out. ConfigError where it cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self.write("probe", b"")
            (path / "probe").unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot be written: {error.strerror or error}", where=str(path)) from error

    def write(self, name: str, body: bytes) -> None:
        """Whole or not at all."""
        half = self.path / f"{name}.{os.getpid()}.half"
        half.write_bytes(body)
        half.replace(self.path / name)

    def prune(self, now_s: float) -> None:
        """Throws away what was not asked for in KEPT_S; only files of these names."""
        for file in self.path.iterdir():
            if file.name.endswith((*_ENDS, ".half")) and now_s - file.stat().st_mtime > KEPT_S:
                file.unlink(missing_ok=True)

    def keep(self, key: str, found: Rehearsal) -> None:
        self.write(f"{key}.result.json", json.dumps(_plain(found)).encode())

    def result(self, key: str) -> Rehearsal | None:
        """None where there is none."""
        file = self.path / f"{key}.result.json"
        try:
            found = _rehearsal(json.loads(file.read_bytes()))
            os.utime(file, (time.time(), time.time()))
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return found


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def _rehearsal(body: dict[str, Any]) -> Rehearsal:
    services = tuple(_service(one) for one in body["services"])
    return Rehearsal(str(body["label"]), float(body["days"]), services, tuple(body["left_out"]))


def _service(body: dict[str, Any]) -> ServiceResult:
    values = {
        "incidents": tuple(_incident(one) for one in body["incidents"]),
        "minutes": Amount(**body["minutes"]),
        "rivals": _each(Rival, body["rivals"]),
        "notes": tuple(body["notes"]),
        "made": _each(Made, body["made"]),
        "curves": Curves(**{name: np.array(v, dtype=np.float64) for name, v in body["curves"].items()}),
    }
    return ServiceResult(**{**body, **values})


def _incident(body: dict[str, Any]) -> Incident:
    values = {
        "changes": tuple(body["changes"]),
        "steps": _each(Happened, body["steps"]),
        "rehearsed_min": Amount(**body["rehearsed_min"]),
        "not_lent": tuple(body["not_lent"]),
    }
    return Incident(**{**body, **values})


def _each(kind: type[Any], bodies: Sequence[dict[str, Any]]) -> tuple[Any, ...]:
    return tuple(kind(**body) for body in bodies)
