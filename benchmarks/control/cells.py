"""Finished cells (one case, one policy or the ground that all share) are kept under build/, so that a long run can be
taken up again and a change of the planner costs only the planner's cells.

A cell is valid for the code that made it: its folder is named by a digest of the sources.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FOLDER = ROOT / "build" / "control"
WEIGHTS = ROOT / "tuning" / "planning" / "weights"

NOT_GROUND = ("__init__", "__main__", "cells", "cost", "figures", "headline", "real", "report", "tables")
"""They run, keep, show or measure; they do not decide what a cell holds."""

LOOP = ("evolved", "playbook", "ppo", "slotune")
"""The policies that run the production code: their cells depend on all of it."""


def ground_digest() -> str:
    """Of the simulator, the cases, the scoring and the simple policies: 16 hexadecimal digits."""
    files = [p for p in HERE.glob("*.py") if p.stem not in NOT_GROUND]
    return _digest([*files, *(p for p in (HERE / "policies").glob("*.py") if p.stem not in LOOP)])


def loop_digest() -> str:
    """Of every module of this repository that is loaded once the policies are: what slotune's own cells depend on."""
    # What the policies import only when they run.
    import tests.fakes.ledger
    import tuning.planning
    import tuning.verification

    assert tests.fakes.ledger and tuning.planning and tuning.verification
    sources = {Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    ours = [p for p in sources if p.is_relative_to(ROOT) and "site-packages" not in p.parts]
    return _digest(p for p in ours if p.parent != HERE or p.stem not in NOT_GROUND)


def _digest(paths: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return total.hexdigest()[:16]


class Cells:
    """The finished cells of one digest."""

    def __init__(self, key: str, folder: Path = FOLDER) -> None:
        self._folder = folder / key

    def get(self, case: str, seed: int, part: str) -> dict[str, object] | None:
        """What a cell holds; None where it is not finished."""
        try:
            found = json.loads(self._path(case, seed, part).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found if isinstance(found, dict) else None

    def put(self, case: str, seed: int, part: str, holds: dict[str, object]) -> None:
        """Written beside and moved, so that a killed run leaves no half of a cell."""
        path = self._path(case, seed, part)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(holds), encoding="utf-8")
        partial.replace(path)

    def _path(self, case: str, seed: int, part: str) -> Path:
        """A learned policy's cells belong to its weights as well, which are no module."""
        weights = WEIGHTS / f"{part}.json"
        part = f"{part}-{_digest([weights])}" if weights.exists() else part
        name = "".join(c if c.isalnum() else "-" for c in case)
        return self._folder / f"{name}.{seed}.{part}.json"
