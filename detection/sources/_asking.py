"""Many questions to one source, of which each may fail on its own.

A question that is refused, too large, or answered in part is divided: halves of its services are asked apart until the
ones that cannot be answered are found, so that one service's query (or the store that holds its series) blinds no
other. The number of further questions is bounded. Where the server as a whole does not answer, asking ends early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from detection.errors import AnswerTooLarge, ConfigError, QueryRefused, SlotuneError, SourcePartial
from detection.sources._queries import Group

MAX_DIVISIONS = 160
"""Further questions of one read that finding the culprits may cost: ten per culprit of a thousand, for sixteen."""
MAX_SUSPECTS = 320
"""Further questions of one read to services that were culprits before: sixteen of them for twenty signals."""
_FRUITLESS = 12
"""Refusals in a row after which a question is taken to be wrong for everybody: 2^12 services have one culprit."""
_THREADS = 4
_SERVER_FAILURES = 3
"""After so many failures of the server itself nothing more is asked: each costs its whole deadline."""
_DIVISIBLE = (QueryRefused, AnswerTooLarge, SourcePartial)
_R = TypeVar("_R")


@dataclass(frozen=True)
class Job:
    """One question: a signal (or another name for what is asked) of a group of services."""

    group: Group
    signal: str
    template: str


@dataclass
class Answers(Generic[_R]):
    """What came of the jobs: results in order, and per service and signal the error where none came."""

    results: list[tuple[Job, _R]] = field(default_factory=list)
    failures: dict[str, dict[str, SlotuneError]] = field(default_factory=dict)

    def fail(self, job: Job, error: SlotuneError) -> None:
        for service in job.group.services:
            self.failures.setdefault(service.name, {})[job.signal] = error


def ask(run: Callable[[Job], _R], jobs: Sequence[Job]) -> Answers[_R]:
    """Runs every job; raises nothing of the error tree."""
    answers: Answers[_R] = Answers()
    refused: list[tuple[Job, SlotuneError]] = []
    broken = 0  # failures of the server, not of a question
    for job, result in _concurrently(run, jobs):
        if not isinstance(result, SlotuneError):
            answers.results.append((job, result))
        elif isinstance(result, _DIVISIBLE) and len(job.group.services) > 1:
            refused.append((job, result))
        else:
            answers.fail(job, result)
            broken += not isinstance(result, (*_DIVISIBLE, ConfigError))
    if broken < _SERVER_FAILURES:
        _divide(run, refused, answers)
    else:
        for job, error in refused:
            answers.fail(job, error)
    return answers


def _divide(run: Callable[[Job], _R], refused: Sequence[tuple[Job, SlotuneError]], answers: Answers[_R]) -> None:
    """Culprits of one question probably are those of the next: others are asked without them, they one by one."""
    left, fruitless, suspected, broken = MAX_DIVISIONS, 0, MAX_SUSPECTS, 0
    culprits: set[str] = set()
    for job, first_error in refused:
        suspects = [service for service in job.group.services if service.name in culprits]
        others = [service for service in job.group.services if service.name not in culprits]
        # (services, whether the question is a suspect's own); the last is asked first
        waiting = [([service], True) for service in suspects]
        waiting += [(part, False) for part in ([others] if suspects else _halves(others)) if part]
        while waiting:
            services, own = waiting.pop()
            part = Job(job.group.of(services), job.signal, job.template)
            spent = suspected <= 0 if own else left <= 0 or fruitless >= _FRUITLESS
            if spent or broken >= _SERVER_FAILURES:
                answers.fail(part, first_error)
                continue
            if own:
                suspected -= 1
            else:
                left, fruitless = left - 1, fruitless + 1
            try:
                answers.results.append((part, run(part)))
                fruitless = fruitless if own else 0
            except _DIVISIBLE as error:
                if len(services) > 1:
                    waiting += [(half, False) for half in _halves(services)]
                else:
                    answers.fail(part, error)
                    culprits.add(services[0].name)
            except SlotuneError as error:
                answers.fail(part, error)
                broken += 1


def _halves(services: Sequence[_R]) -> list[list[_R]]:
    middle = len(services) // 2
    return [list(part) for part in (services[:middle], services[middle:]) if part]


def _concurrently(run: Callable[[Job], _R], jobs: Sequence[Job]) -> Iterator[tuple[Job, _R | SlotuneError]]:
    """(job, result or error) in order. After _SERVER_FAILURES the rest fails unasked, with the first of them."""
    dead: list[SlotuneError] = []

    def once(job: Job) -> _R | SlotuneError:
        if len(dead) >= _SERVER_FAILURES:
            return dead[0]
        try:
            return run(job)
        except (*_DIVISIBLE, ConfigError) as error:
            return error
        except SlotuneError as error:
            dead.append(error)
            return error

    pool = ThreadPoolExecutor(max_workers=_THREADS)
    try:
        yield from zip(jobs, pool.map(once, jobs), strict=True)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def reasons(failures: Mapping[str, SlotuneError]) -> str:
    """The failures of one service's signals in one sentence."""
    by_error: dict[str, list[str]] = {}
    for signal, error in failures.items():
        by_error.setdefault(str(error), []).append(signal)
    return "; ".join(f"{', '.join(signals)}: {error}" for error, signals in by_error.items())
