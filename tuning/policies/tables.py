"""Decisions as data: a table from every state to its row. A state without a row, or with two, is an error at import."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

ANY = object()
"""Stands for every value of its axis."""
R = TypeVar("R")
State = tuple[Hashable, ...]


def table(axes: Sequence[Sequence[Hashable]], rows: Sequence[tuple[Sequence[object], R]]) -> Mapping[State, R]:
    """Each state of the axes with its row. A row's pattern names, axis by axis, a value, a set of values, or ANY.

    Raises ValueError for a state that no row or more than one row covers, and for a value that is on no axis.
    """
    found: dict[State, list[R]] = {state: [] for state in itertools.product(*axes)}
    for pattern, row in rows:
        places = [_values(axis, wanted) for axis, wanted in zip(axes, pattern, strict=True)]
        for state in itertools.product(*places):
            found[state].append(row)
    for state, its in found.items():
        if len(its) != 1:
            raise ValueError(f"the state {state} has {len(its)} rows, and one is right")
    return {state: its[0] for state, its in found.items()}


def _values(axis: Sequence[Hashable], wanted: object) -> Sequence[Hashable]:
    if wanted is ANY:
        return axis
    values = sorted(wanted, key=str) if isinstance(wanted, set | frozenset) else [wanted]
    unknown = [value for value in values if value not in axis]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {list(axis)}")
    return values
