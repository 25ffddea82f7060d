"""One thing that a check tried."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """text: what was tried and what came of it, in a sentence. warning: fine as such, and worth a look."""

    ok: bool
    text: str
    warning: bool = False

    @property
    def mark(self) -> str:
        """What stands before the sentence."""
        return "warn" if self.ok and self.warning else "ok  " if self.ok else "FAIL"
