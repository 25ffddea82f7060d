"""The loaded versions of the one served model, and which of them answers.

Layout (Triton's): DIRECTORY/<model>/<version>/model.onnx, beside it an optional manifest.json with at least
{"precision": "fp32" | "int8"}. A newly loaded version is warmed before it serves and the old one stays loaded, so that
going back is only a pointer.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

from demo.server.engines import Engine, Loaded
from demo.server.protocol import BadRequest


class Busy(Exception):
    """The wish is sound but not now; the text is the sentence for the caller."""


@dataclass(frozen=True)
class Version:
    """One loaded version: its name, precision, and the model that computes."""

    name: str
    precision: str
    model: Loaded


class Repository:
    """Versions by name. `active` is read once per batch, so that no batch mixes two versions."""

    def __init__(self, engine: Engine, directory: Path | None, model: str) -> None:
        self._engine, self._directory, self.model = engine, directory, model
        self._loaded: dict[str, Version] = {}
        self._lock = asyncio.Lock()
        self.active: Version | None = None

    def on_disk(self) -> list[str]:
        """Names of the versions in the directory, oldest first."""
        if self._directory is None:
            return ["1"]
        folder = self._directory / self.model
        names = [p.name for p in folder.iterdir() if p.is_dir() and p.name.isdigit()] if folder.is_dir() else []
        return sorted(names, key=int)

    def loaded(self) -> dict[str, Version]:
        return dict(self._loaded)

    async def load(self, name: str | None = None) -> Version:
        """Load a version (default: the newest on disk) beside the others, then serve it. Raises BadRequest."""
        async with self._lock:
            known = self.on_disk()
            if name is None and known:
                name = known[-1]
            if name is None or name not in known:
                listed = ", ".join(known) or "none"
                raise BadRequest(f"model {self.model!r} has no version {name!r}; there are: {listed}")
            if name not in self._loaded:
                self._loaded[name] = await asyncio.to_thread(self._load, name)
            self.active = self._loaded[name]
            return self.active

    async def unload(self, name: str) -> None:
        """Forget a version that does not serve. Raises BadRequest (not loaded) or Busy (it serves)."""
        async with self._lock:
            if name not in self._loaded:
                raise BadRequest(f"version {name!r} is not loaded; loaded: {', '.join(self._loaded) or 'none'}")
            if self.active is not None and name == self.active.name:
                raise Busy(f"version {name!r} is the one that serves; load another first")
            del self._loaded[name]

    def _load(self, name: str) -> Version:
        if self._directory is None:
            return Version(name, "fp32", self._engine.load(None, "fp32"))
        folder = self._directory / self.model / name
        precision = _precision(folder / "manifest.json")
        return Version(name, precision, self._engine.load(folder / "model.onnx", precision))


def _precision(manifest: Path) -> str:
    if not manifest.is_file():
        return "fp32"
    try:
        precision = json.loads(manifest.read_text()).get("precision", "fp32")
    except (ValueError, AttributeError, OSError):
        raise BadRequest(f"{manifest.parent.name}/{manifest.name} is not a JSON object") from None
    if precision not in ("fp32", "fp16", "int8"):
        raise BadRequest(f"{manifest.parent.name}/{manifest.name} has the unknown precision {str(precision)[:40]!r}")
    return str(precision)
