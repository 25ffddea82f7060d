"""What judging yields: scores of services, signals and detectors over columns of time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from detection.methods import View
from detection.panel import Floats


@dataclass(frozen=True)
class Judged:
    """Scores over judged columns in units of the calibrated thresholds: a tier is reached above 1.

    warn, act: (services, signals, C). joint: by detector, (warn, act) each (services, C). rows: joint features.
    own: by detector of its own series, (services, the signals it watches, C).
    """

    view: View
    warn: Floats
    act: Floats
    joint: Mapping[str, tuple[Floats, Floats]]
    rows: Floats | None
    own: Mapping[str, Floats]

    def against(self, strictness: Floats) -> Judged:
        """The same scores where each service's act tier is reached at `strictness` times its threshold: (services,)."""
        by = strictness[:, None]
        joint = {name: (warn, act / by) for name, (warn, act) in self.joint.items()}
        return replace(self, act=self.act / by[..., None], joint=joint)
