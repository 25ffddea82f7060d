"""Learning a re-ranker from labelled incidents, and what is still missing for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.ranker import Held, Ranker, direction, library, logistic, matrix
from detection.settings import LearningSettings

FOLDS = 5
_TREES = 150
_PARAMETERS = {
    "objective": "binary:logistic",
    "eta": 0.05,
    "max_depth": 2,
    "num_parallel_tree": 3,
    "subsample": 0.8,
    "colsample_bytree": 0.5,
    "lambda": 2.0,
    "tree_method": "hist",
    "nthread": 1,
    "seed": 0,
}
"""Small trees, many, slowly: some dozen labels are few. Not searched for on any labels."""
_STEPS = 200
"""Thresholds that are tried, at equal shares of the incidents."""
NEVER = 2.0
"""A threshold that no probability reaches."""


@dataclass(frozen=True)
class Example:
    """One judgement of an anomaly of a labelled incident. weight: of the label, 1 a person's word, less a weak one."""

    incident_id: str
    service: str
    at_s: float
    evidence: Mapping[str, float]
    real: bool
    weight: float = 1.0


def missing(examples: Sequence[Example], settings: LearningSettings) -> str:
    """What is still missing before anything can be learned, in words; "" where nothing is."""
    labels = {one.incident_id: one.real for one in examples}
    real = sum(labels.values())
    wanted = {
        "labelled incidents": settings.min_labels - len(labels),
        "of them real problems": settings.min_each - real,
        "of them no real problems": settings.min_each - (len(labels) - real),
    }
    short = [f"{count} more {what}" for what, count in wanted.items() if count > 0]
    return f"{len(labels)} incidents are labelled ({real} real); needed: {', '.join(short)}" if short else ""


def learn(examples: Sequence[Example], at_s: float, unseen: Unseen | None = None) -> Ranker:
    """Trees over all examples; the curve and the thresholds come from services that the trees had not seen.

    Both kinds of label have to be there. unseen: out_of_fold(examples), where it is known already. Raises
    RankerUnusable where XGBoost is not installed.
    """
    unseen = unseen or out_of_fold(examples)
    incidents, chance = unseen.incidents, unseen.chance
    keep_at, raise_at = thresholds(incidents.real, incidents.act, chance)
    held = held_out(incidents, chance)
    booster = _fitted(examples, unseen.names)
    trees = bytes(booster.save_raw("ubj"))
    return Ranker(at_s, unseen.names, trees, unseen.slope, unseen.offset, keep_at, raise_at, held)


def out_of_fold(examples: Sequence[Example]) -> Unseen:
    """What trees say that were learned from the other folds, and the curve that makes probabilities of it."""
    names = tuple(sorted({name for one in examples for name in one.evidence}))
    folds = folds_of(examples)
    margin = np.zeros(len(examples))
    for fold in range(int(folds.max()) + 1):
        inside = np.flatnonzero(folds != fold).tolist()
        outside = np.flatnonzero(folds == fold).tolist()
        if inside and outside:
            trees = _fitted([examples[i] for i in inside], names)
            margin[outside] = trees.predict(matrix([examples[i].evidence for i in outside], names), output_margin=True)
    incidents = _by_incident(examples, margin, folds)
    return Unseen(names, incidents, *_curve(incidents))


@dataclass(frozen=True)
class Incidents:
    """Arrays of shape (incidents,). margin: the highest of its judgements. act: the detectors alone called it act.
    fold: with which others it was left out."""

    margin: NDArray[np.float64]
    real: NDArray[np.bool_]
    act: NDArray[np.bool_]
    weight: NDArray[np.float64]
    fold: NDArray[np.int64]


@dataclass(frozen=True)
class Unseen:
    """The incidents by trees that had not seen them. names: the evidence. slope, offset: of the logistic curve."""

    names: tuple[str, ...]
    incidents: Incidents
    slope: float
    offset: float

    @property
    def chance(self) -> NDArray[np.float64]:
        """The calibrated probability of each incident's highest judgement: (incidents,)."""
        return logistic(self.incidents.margin, self.slope, self.offset)


def folds_of(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Which examples are judged by trees that have not seen them: services apart; where there are too few of them,
    stretches of time apart. Shape (examples,)."""
    services = sorted({one.service for one in examples})
    if len(services) >= FOLDS:
        count = {name: sum(one.service == name for one in examples) for name in services}
        size, fold_of = [0] * FOLDS, {}
        for name in sorted(services, key=lambda name: (-count[name], name)):
            fold_of[name] = int(np.argmin(size))
            size[fold_of[name]] += count[name]
        return np.array([fold_of[one.service] for one in examples])
    first: dict[str, float] = {}
    for one in examples:
        first[one.incident_id] = min(one.at_s, first.get(one.incident_id, one.at_s))
    order = {name: i for i, name in enumerate(sorted(first, key=lambda name: (first[name], name)))}
    return np.array([order[one.incident_id] * FOLDS // len(order) for one in examples])


def _fitted(examples: Sequence[Example], names: Sequence[str]):  # type: ignore[no-untyped-def]  # XGBoost's Booster
    """Each incident counts once, however long it stood."""
    rows: dict[str, int] = {}
    for one in examples:
        rows[one.incident_id] = rows.get(one.incident_id, 0) + 1
    weight = np.array([one.weight / rows[one.incident_id] for one in examples], np.float32)
    real = np.array([one.real for one in examples], np.float32)
    monotone = "(" + ",".join(str(direction(name)) for name in names) + ")"
    data = matrix([one.evidence for one in examples], names, label=real, weight=weight)
    return library().train({**_PARAMETERS, "monotone_constraints": monotone}, data, _TREES)


def _by_incident(examples: Sequence[Example], margin: NDArray[np.float64], folds: NDArray[np.int64]) -> Incidents:
    rows: dict[str, list[int]] = {}
    for i, one in enumerate(examples):
        rows.setdefault(one.incident_id, []).append(i)
    found = list(rows.values())
    return Incidents(
        np.array([margin[i].max() for i in found]),
        np.array([examples[i[0]].real for i in found]),
        np.array([any(examples[k].evidence.get("tier_act", 0.0) > 0 for k in i) for i in found]),
        np.array([examples[i[0]].weight for i in found]),
        np.array([folds[i[0]] for i in found]),
    )


def _curve(incidents: Incidents) -> tuple[float, float]:
    """Platt: slope (never below 0) and offset of the logistic curve over margins that no tree had seen."""
    from sklearn.linear_model import LogisticRegression

    fit = LogisticRegression(C=10.0).fit(incidents.margin[:, None], incidents.real, incidents.weight)
    return max(0.0, float(fit.coef_[0, 0])), float(fit.intercept_[0])


def held_out(incidents: Incidents, chance: NDArray[np.float64]) -> Held:
    """How thresholds that were chosen on all other folds do on each fold: on the incidents that they were chosen on
    they always do well."""
    real, act = incidents.real, incidents.act
    on = act.copy()
    for fold in np.unique(incidents.fold):
        mine = incidents.fold == fold
        keep_at, raise_at = thresholds(real[~mine], act[~mine], chance[~mine])
        on[mine] = np.where(act[mine], chance[mine] >= keep_at, chance[mine] >= raise_at)
    otherwise = on != act
    return Held(
        real=int(real.sum()),
        false=int((~real).sum()),
        found_before=int((act & real).sum()),
        alarms_before=int((act & ~real).sum()),
        found=int((on & real).sum()),
        alarms=int((on & ~real).sum()),
        right=int((otherwise & (on == real)).sum()),
        wrong=int((otherwise & (on != real)).sum()),
    )


def thresholds(real: NDArray[np.bool_], act: NDArray[np.bool_], chance: NDArray[np.float64]) -> tuple[float, float]:
    """(keep_at, raise_at) with the most real incidents at no more false alarms than without them; arrays (incidents,).

    One probability for both: two thresholds fit a few dozen incidents too well to hold elsewhere. Of several that find
    as many, those with fewest false alarms, and of these the highest. To leave everything as it is, is one of the
    choices (0 and NEVER).
    """
    alarms_before = int((act & ~real).sum())
    before = (int((act & real).sum()), -alarms_before)
    at = threshold_at(real, chance, alarms_before)
    on = chance >= at
    better = (int((on & real).sum()), -int((on & ~real).sum())) > before
    return (at, at) if better else (0.0, NEVER)


def threshold_at(real: NDArray[np.bool_], chance: NDArray[np.float64], alarms: int) -> float:
    """The probability from which on most real incidents are found at no more than that many false alarms; of several,
    the one with fewest false alarms, and of these the highest. NEVER where none finds any."""
    best, found_at = (0, 0, 0.0), NEVER
    for at in np.unique(np.quantile(chance, np.linspace(0, 1, _STEPS + 1))) if chance.size else ():
        on = chance >= at
        found, false = int((on & real).sum()), int((on & ~real).sum())
        if false <= alarms and (found, -false, float(at)) > best:
            best, found_at = (found, -false, float(at)), float(at)
    return found_at
