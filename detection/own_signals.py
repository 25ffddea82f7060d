"""Signals that a service defines by PromQL: what is wrong with one, how it is asked, and what is said of it. Pure.

A query holds `$sel` and `$by` like a preset's and is then shared by all services that have the same; or it holds
neither (a shop's conversion knows no label of a model server), and is asked for its service alone and has to give one
series. One that cannot be used is off and named, and nothing else is. Its values are compared as they are (never on a
log scale); it warns, and only a limit of `detection.limits` on it may start anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from detection.exporters import queries_of
from detection.model import OwnSignal, Score, Service
from detection.outside_text import printable, quoted
from detection.signal import CLASSES, DIRECTIONS, Signal
from detection.signals import SIGNALS, of_unit

_PAIRS = {")": "(", "]": "[", "}": "{"}
_SYMPTOMS = {"model": "quality", "resource": "resources", "data": "data", "business": "business"}
QueryProblem = Callable[[str], str | None]


def problems(name: str, own: OwnSignal, query_problem: QueryProblem) -> Iterator[tuple[str, str]]:
    """(key, sentence) of everything that is wrong with it. query_problem: of the service's preset."""
    if name in SIGNALS:
        yield "", f"{name!r} is a signal of slotune: give yours another name, or write the query alone ({name}: QUERY)"
    if not name.isidentifier() or len(name) > 60:
        yield (
            "",
            f"{printable(name, 60)!r} is no name of a signal: write letters, digits and _, such as conversion_rate",
        )
    if own.kind not in CLASSES:
        yield "class", f"there is no class {printable(own.kind, 60)!r}; known: {', '.join(CLASSES)}"
    if own.worse not in DIRECTIONS:
        yield "worse", f"{printable(own.worse, 60)!r} is no direction; known: {', '.join(DIRECTIONS)}"
    if problem := _query_problem(own.promql, query_problem):
        yield "promql", problem


def _query_problem(promql: str, of_preset: QueryProblem) -> str | None:
    if not promql.strip():
        return "is empty: write a query, such as avg by ($by) (shop_conversion_ratio{$sel})"
    if unbalanced := _unbalanced(promql):
        return unbalanced
    places = [place for place in ("$sel", "$by") if place in promql]
    if len(places) == 1:
        other = "$by" if places == ["$sel"] else "$sel"
        return (
            f"has {places[0]} and no {other}: write both, as in avg by ($by) (metric{{$sel}}), or neither where the "
            "metric knows no label of the service, and then one series has to come of it"
        )
    return of_preset(promql if places else f"{promql} $sel $by")


def _unbalanced(promql: str) -> str | None:
    """What is open or closed once too often, outside of strings."""
    waiting: list[str] = []
    quote = ""
    letters = iter(promql)
    for letter in letters:
        if quote:
            if letter == "\\" and quote != "`":
                next(letters, "")
            elif letter == quote:
                quote = ""
        elif letter in "\"'`":
            quote = letter
        elif letter in "([{":
            waiting.append(letter)
        elif letter in _PAIRS and (not waiting or waiting.pop() != _PAIRS[letter]):
            return f"is no PromQL: there is a {letter} that nothing opens"
    if quote:
        return f"is no PromQL: a text that begins with {quote} does not end"
    return f"is no PromQL: there is a {waiting[-1]} that nothing closes" if waiting else None


def off(service: Service, query_problem: QueryProblem) -> dict[str, str]:
    """The service's signals that cannot be used, by name, with why."""
    found: dict[str, str] = {}
    for name, own in service.own_signals.items():
        for key, sentence in problems(name, own, query_problem):
            found.setdefault(name, f"{key} {sentence}".strip())
    return found


def templates(service: Service, query_problem: QueryProblem) -> dict[str, str]:
    """The queries of the service's own signals and of its exporters, as templates of its preset."""
    wrong = off(service, query_problem)
    found = {name: own.promql for name, own in service.own_signals.items() if name not in wrong}
    found = {name: query if "$sel" in query else _labelled(query, service) for name, query in found.items()}
    return found | {name: _labelled(query, service) for name, query in queries_of(service.exporters).items()}


def _labelled(query: str, service: Service) -> str:
    """The query with the service's selectors as the labels of its answer: how an answer is given to its service."""
    for key, value in sorted(service.selectors.items()):
        # "$" begins a reference to a part of the match there
        query = f'label_replace({query}, "{key}", {quoted(value.replace("$", "$$"))}, "", "")'
    return query


def table(service: Service) -> dict[str, Signal]:
    """The service's own signals as entries of the table of signals, without those that are off for their words."""
    found = {}
    for name, own in service.own_signals.items():
        kind = next((kind for kind in CLASSES if kind == own.kind), None)
        worse = next((worse for worse in DIRECTIONS if worse == own.worse), None)
        if kind is not None and worse is not None and name not in SIGNALS:
            title = own.title or name.replace("_", " ")
            found[name] = Signal(
                name, own.unit, worse, title, floor=own.floor, kind=kind, without="it is not watched"
            )
    return found


def guards(service: Service) -> tuple[Signal, ...]:
    """Those that a change may not make worse: what the model answers and what the business makes of it, where nothing
    else is said."""
    wanted = table(service)
    return tuple(
        signal
        for name, signal in wanted.items()
        if signal.worse in ("up", "down")
        and (signal.kind in ("model", "business") if (said := service.own_signals[name].guard) is None else said)
    )


def names(services: Sequence[Service]) -> tuple[str, ...]:
    """The names of all of them, of exporters as well, each once."""
    found = [name for s in services for name in (*table(s), *queries_of(s.exporters))]
    return tuple(dict.fromkeys(found))


def held_to(services: Mapping[str, Service], scores: Sequence[Score]) -> list[Score]:
    """The scores, where those of own signals are what their definitions make of them: in the direction that hurts, by
    as much as is news, a warning, and called by title and class. What a rule says is said by whoever wrote the rule."""
    tables = {name: table(service) for name, service in services.items() if service.own_signals}
    found = []
    for score in scores:
        signal = tables.get(score.service, {}).get(score.signal or "")
        if signal is None or score.score is None:
            found.append(score)
            continue
        symptom = _SYMPTOMS.get(signal.kind, "") or score.symptom
        if score.kind == "rule":
            found.append(score.model_copy(update={"symptom": symptom}))
        elif _hurts(signal, score):
            reason = _reason(signal, score)
            # without evidence nothing that is learned from labels ever makes more of it than a warning
            said = {"tier": "warn" if score.tier else None, "symptom": symptom, "reason": reason}
            found.append(score.model_copy(update={**said, "evidence": {}}))
    return found


def _hurts(signal: Signal, score: Score) -> bool:
    """A joint score knows neither direction nor floor: where one of these stands out in it, its votes say it all."""
    if signal.worse == "none" or score.kind == "joint":
        return False
    low, high, seen = score.expected_low, score.expected_high, score.observed
    if low is None or high is None or seen is None:
        return True  # how it moves, not where it is
    if signal.worse == "up":
        return seen - high >= signal.floor
    if signal.worse == "down":
        return low - seen >= signal.floor
    return max(seen - high, low - seen) >= signal.floor


def _reason(signal: Signal, score: Score) -> str:
    if score.observed is None or score.expected_low is None or score.expected_high is None:
        return score.reason.replace(signal.name, signal.title)
    now, low, high = (of_unit(signal.unit, v) for v in (score.observed, score.expected_low, score.expected_high))
    return f"{signal.title} is {now}, expected {low} to {high}"
