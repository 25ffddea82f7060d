"""The re-ranker: from what a sweep knows of an anomaly to the probability that it is a real problem.

Gradient-boosted trees (XGBoost) over `detection.evidence`, learned from labelled incidents, calibrated by a logistic
curve (Platt) on services that the trees had not seen. A value: bytes without pickle, and an id of its content.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.errors import SlotuneError
from detection.model import make_id

FORMAT = 2
_HEAD_BYTES = 8
TOP = 3
BY_LUCK = 0.05
PRICE = 4
"""Thresholds are chosen at no more false alarms; on services left out there may be one more or two for luck's sake."""
_ONLY_WORSE = ("band_", "joint_", "own_")
_LEVELS = ("level_warn", "level_act", "act_reach", "tier_act", "top", "agreeing")
_WORSE = frozenset((*_LEVELS, "change", "seen", "age_s", "beyond_week", "from_median"))
"""What can only speak for a real problem: a detector that is surer never lowers the probability."""


class RankerUnusable(SlotuneError):
    """A stored re-ranker cannot be used; detection goes on as without one."""


@dataclass(frozen=True)
class Held:
    """How it did on labelled incidents whose services neither its trees nor the choice of its thresholds had seen.

    real, false: how many of each. found_before, alarms_before: real and false ones that the detectors alone called act.
    found, alarms: the same with what was learned. right, wrong: the incidents about which it said otherwise than the
    detectors, by who was right.
    """

    real: int
    false: int
    found_before: int
    alarms_before: int
    found: int
    alarms: int
    right: int
    wrong: int

    @property
    def better(self) -> bool:
        """No fewer found; no more false alarms, or at least PRICE real problems more for each; so much oftener right
        than wrong, where it said otherwise than the detectors, that it is no luck (a sign test at BY_LUCK)."""
        gained, more = self.found - self.found_before, self.alarms - self.alarms_before
        if gained < 0 or PRICE * more > gained:
            return False
        said = self.right + self.wrong
        return said > 0 and sum(comb(said, k) for k in range(self.right, said + 1)) / 2**said <= BY_LUCK


@dataclass(frozen=True)
class Ranker:
    """names: the evidence that the trees ask for, in their order. trees: XGBoost's own binary format (UBJSON).

    slope, offset: of the logistic curve over the trees' margin. keep_at: an anomaly of the act tier stays one from this
    probability on. raise_at: a warning becomes one from there on. learned_at_s: epoch seconds.
    """

    learned_at_s: float
    names: tuple[str, ...]
    trees: bytes
    slope: float
    offset: float
    keep_at: float
    raise_at: float
    held: Held

    @property
    def id(self) -> str:
        """Of its content: the same labels give the same model and the same id."""
        return make_id("ranker", self.names, self.trees.hex(), self.slope, self.offset, self.keep_at, self.raise_at)

    @property
    def used(self) -> bool:
        """Whether it may move anything: only where it did better on services that it had not seen."""
        return self.held.better

    def to_bytes(self) -> bytes:
        """from_bytes(to_bytes()) is the same."""
        told = asdict(self) | {"format": FORMAT}
        del told["trees"]
        head = json.dumps(told).encode()
        return len(head).to_bytes(_HEAD_BYTES, "big") + head + self.trees

    @staticmethod
    def from_bytes(data: bytes) -> Ranker:
        """Raises RankerUnusable for anything that to_bytes of this format did not write."""
        try:
            size = int.from_bytes(data[:_HEAD_BYTES], "big")
            told = json.loads(data[_HEAD_BYTES : _HEAD_BYTES + size])
            if told.pop("format") != FORMAT:
                raise RankerUnusable("the stored re-ranker has another format; it will be learned again")
            told |= {"names": tuple(told["names"]), "held": Held(**told["held"])}
            return Ranker(trees=data[_HEAD_BYTES + size :], **told)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise RankerUnusable("the stored re-ranker cannot be read; it will be learned again") from error


class Judge:
    """A re-ranker ready to be asked: loading the trees takes milliseconds, so once a sweep."""

    def __init__(self, ranker: Ranker) -> None:
        self.ranker = ranker
        xgboost = library()
        self._booster = xgboost.Booster({"nthread": 1})
        try:
            self._booster.load_model(bytearray(ranker.trees))
        except xgboost.core.XGBoostError as error:
            raise RankerUnusable("the stored re-ranker's trees cannot be read; it will be learned again") from error

    def probabilities(self, known: Sequence[Mapping[str, float]]) -> NDArray[np.float64]:
        """Calibrated, of shape (len(known),)."""
        margin = self._booster.predict(matrix(known, self.ranker.names), output_margin=True)
        return logistic(margin, self.ranker.slope, self.ranker.offset)

    def because(self, known: Mapping[str, float]) -> dict[str, float]:
        """What moved the probability most, strongest first, in log odds: exact SHAP values of the trees."""
        shares = self._booster.predict(matrix([known], self.ranker.names), pred_contribs=True)[0, :-1]
        order = np.argsort(-np.abs(shares), kind="stable")[:TOP]
        scale = self.ranker.slope
        return {self.ranker.names[i]: round(float(scale * shares[i]), 3) for i in order if shares[i]}


def library() -> Any:
    """XGBoost. RankerUnusable with the way to it where it is not installed."""
    try:
        import xgboost
    except ImportError as error:
        raise RankerUnusable(
            "learning from labels needs XGBoost: pip install 'slotune[learning]' (or detection.learning.rerank: false)"
        ) from error
    return xgboost


def matrix(known: Sequence[Mapping[str, float]], names: Sequence[str], **more: Any) -> Any:
    """The evidence as the trees take it; what is not known is missing, not 0."""
    rows = np.array([[one.get(name, np.nan) for name in names] for one in known], np.float32)
    return library().DMatrix(rows.reshape(len(known), len(names)), feature_names=list(names), nthread=1, **more)


def logistic(margin: NDArray[Any], slope: float, offset: float) -> NDArray[np.float64]:
    """The calibrated probability of a margin."""
    return np.asarray(1.0 / (1.0 + np.exp(-(slope * np.asarray(margin, np.float64) + offset))), np.float64)


def direction(name: str) -> int:
    """1 where more of it can only speak for a real problem, 0 where it may speak for either."""
    return int(name in _WORSE or name.startswith(_ONLY_WORSE))
