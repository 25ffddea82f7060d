"""Targets that are scraped twice: found by two monitors, every series is there twice and every sum is doubled.

A series is there twice where two of one instance differ in nothing but labels that scraping adds. Such a service is
read through one value of such a label that covers all its instances, and named, so that a person can say which.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from detection.errors import AnswerTooLarge, QueryRefused, SlotuneError
from detection.model import Span
from detection.outside_text import printable
from detection.sources._client import Row
from detection.sources._queries import Group, label

SCRAPE_LABELS = ("job", "endpoint", "container", "pod", "service", "prometheus", "prometheus_replica", "replica")
"""Labels that scraping adds and that the exporter does not know."""


_Rows = Callable[[str, Span], list[Row]]


def once(asked: Sequence[Group], span: Span, rows: _Rows) -> tuple[list[Group], dict[str, str]]:
    """The groups with such services asked for through one of their scrapes, and a sentence for each."""
    found: list[Group] = []
    notes: dict[str, str] = {}
    answering = True
    for group in asked:
        try:
            chosen = _chosen(group, span, rows) if group.preset.presence and answering else {}
        except SlotuneError as error:
            # what cannot be asked here fails in the signals' own queries, with its reason
            chosen, answering = {}, isinstance(error, QueryRefused | AnswerTooLarge)
        for service in group.services:
            if service.name in chosen:
                name, value, values = chosen[service.name]
                notes[service.name] = (
                    f"its targets are scraped {len(values)} times, told apart by {name} "
                    f"({', '.join(printable(v, 60) for v in values)}); counted once, by {name}={printable(value, 60)}: "
                    "remove one of the monitors or add this label to the selectors"
                )
                only = service.model_copy(update={"selectors": {**service.selectors, name: value}})
                found.append(Group(group.preset, group.names, tuple(sorted(only.selectors)), (only,)))
        rest = [service for service in group.services if service.name not in chosen]
        if rest:
            found.append(group.of(rest))
    return found, notes


def _chosen(group: Group, span: Span, rows: _Rows) -> Mapping[str, tuple[str, str, Sequence[str]]]:
    """By service: the label, the value through which it is counted, and all values."""
    removed = [name for name in SCRAPE_LABELS if name not in group.keys and name != group.preset.replica_label]
    at_end = Span(span.end_s, span.end_s, span.step_s)
    without = f"count without ({', '.join(removed)}) ({group.preset.presence}) > 1"
    doubled = _names(group, [row for row in rows(group.query(without, 0.0), at_end) if row.labels.get("instance")])
    if not doubled:
        return {}
    part = group.of([service for service in group.services if service.name in doubled])
    by = ", ".join([*map(label, group.keys), "instance", *removed])
    series = rows(part.query(f"group by ({by}) ({group.preset.presence})", 0.0), at_end)
    return _covering(part, series, removed)


def _names(group: Group, rows: Sequence[Row]) -> set[str]:
    owners = group.owners()
    hot = [row for row in rows if np.nanmax(row.values, initial=-np.inf) > 1]
    return {name for row in hot for name in owners.get(tuple(row.labels.get(key, "") for key in group.keys), ())}


def _covering(group: Group, rows: Sequence[Row], names: Sequence[str]) -> dict[str, tuple[str, str, Sequence[str]]]:
    owners = group.owners()
    series: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        for name in owners.get(tuple(row.labels.get(key, "") for key in group.keys), ()):
            series[name].append(row)
    found: dict[str, tuple[str, str, Sequence[str]]] = {}
    for service, its in series.items():
        instances = {row.labels.get("instance", "") for row in its}
        for name in names:
            values = sorted({row.labels.get(name, "") for row in its} - {""})
            covers = [value for value in values if _instances(its, name, value) == instances]
            if len(values) > 1 and covers:
                found[service] = (name, covers[0], values)
                break
    return found


def _instances(rows: Sequence[Row], name: str, value: str) -> set[str]:
    return {row.labels.get("instance", "") for row in rows if row.labels.get(name) == value}
