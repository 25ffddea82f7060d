"""Finished cells (one scenario and seed, every policy) are kept under build/, so that a long run can be taken up again.

A cell is valid for the code that made it: the folder is named by a digest of the sources of every module of this
repository that is loaded once the policies are.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "build" / "control"


def digest(policies: Sequence[str]) -> str:
    """Of the loaded sources and the names of the policies: 16 hexadecimal digits."""
    # What the policies import only when they run.
    import tests.fakes.ledger
    import tuning.planning
    import tuning.verification

    assert tests.fakes.ledger and tuning.planning and tuning.verification
    sources = {Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    total = hashlib.sha256(",".join(policies).encode())
    for path in sorted(p for p in sources if p.is_relative_to(ROOT) and "site-packages" not in p.parts):
        if path.parent == Path(__file__).parent and path.stem in ("__main__", "cells", "cost", "real"):
            continue  # they run, keep or measure; they do not decide what a cell holds
        total.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return total.hexdigest()[:16]


class Cells:
    """The finished cells of one digest."""

    def __init__(self, key: str, folder: Path = FOLDER) -> None:
        self._folder = folder / key

    def get(self, scenario: str, seed: int) -> list[dict[str, object]] | None:
        """The results of a cell; None where it is not finished."""
        try:
            found = json.loads(self._path(scenario, seed).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found if isinstance(found, list) else None

    def put(self, scenario: str, seed: int, results: list[dict[str, object]]) -> None:
        """Written beside and moved, so that a killed run leaves no half of a cell."""
        path = self._path(scenario, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(results), encoding="utf-8")
        part.replace(path)

    def _path(self, scenario: str, seed: int) -> Path:
        name = "".join(c if c.isalnum() else "-" for c in scenario)
        return self._folder / f"{name}.{seed}.json"
