"""Many services, each rehearsed by itself in a process of its own, so that memory does not grow with their number.

What one service does can hold another up only through the caps over all services. Those that would have met there are
rehearsed again, together in one loop, until nobody meets anybody outside. Every result is kept as soon as it is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from detection.errors import ConfigError, SlotuneError
from slotune.rehearsal.counterfactual import History
from slotune.rehearsal.kept import Folder, code, digest
from slotune.rehearsal.processes import Progress, in_processes
from slotune.rehearsal.result import Made, Rehearsal, ServiceResult
from slotune.rehearsal.shared_caps import crowded, merged
from slotune.rehearsal.study import study
from tuning.settings import Settings

_log = logging.getLogger(__name__)
_ROUNDS = 4
"""So often those that meet are put together; who then still meets others is told."""
_SAME_S = 60.0
Company = frozenset[str]


@dataclass(frozen=True)
class Held:
    """A history that is read when it is needed. digest: of its content."""

    digest: str
    load: Callable[[], History]


@dataclass(frozen=True)
class Rehearsing:
    """One rehearsal of a fleet. jobs: processes at once. say: is told what a person should know on the way."""

    settings: Settings
    histories: Mapping[str, Held]
    label: str
    folder: Folder
    jobs: int
    say: Callable[[str], None]
    rivals: bool = True

    def run(self, progress: Progress) -> Rehearsal:
        """ConfigError when no service can be rehearsed."""
        names = [service.name for service in self.settings.services]
        left_out = [f"There is no history of {name}." for name in names if name not in self.histories]
        companies = [frozenset({name}) for name in names if name in self.histories]
        found = self._rehearsed(companies, progress)
        for _ in range(_ROUNDS):
            meeting = [group for group in _meeting(found, self.settings) if not _apart(group, found)]
            together = merged(companies, meeting)
            if together == sorted(companies, key=sorted):
                break
            again = [one for one in together if one not in companies]
            self.say(_told(again))
            found = {one: done for one, done in found.items() if one in together} | self._rehearsed(again, progress)
            companies = together
        return self._whole(found, left_out)

    def _rehearsed(self, companies: Sequence[Company], progress: Progress) -> dict[Company, Rehearsal]:
        keys = {one: self._key(one) for one in companies}
        found = {one: done for one, key in keys.items() if (done := self.folder.result(key)) is not None}
        if found:
            self.say(f"{len(found)} of {len(companies)} were worked out before and are kept in {self.folder.path}.")
        tasks = {key: partial(self._work, one, key) for one, key in keys.items() if one not in found}
        of_key = {key: one for one, key in keys.items()}
        known = len(found) / max(len(companies), 1)
        for key, result in in_processes(tasks, self.jobs, lambda share: progress(known + (1 - known) * share)):
            one = of_key[key]
            if isinstance(result, Exception):
                found[one] = Rehearsal(self.label, 0.0, (), (_failed(one, result),))
            elif (done := self.folder.result(key)) is not None:
                found[one] = done
        return found

    def _key(self, company: Company) -> str:
        return digest(
            code(), self._only(company).model_dump_json(), str(self.rivals),
            *(f"{name} {self.histories[name].digest}" for name in sorted(company)),
        )  # fmt: skip

    def _only(self, company: Company) -> Settings:
        services = tuple(service for service in self.settings.services if service.name in company)
        return self.settings.model_copy(update={"services": services})

    def _work(self, company: Company, key: str, progress: Progress) -> None:
        """In a process of its own: from the history to the file."""
        recorded = {name: self.histories[name].load() for name in sorted(company)}
        found = study(self._only(company), recorded, self.label, progress, rivals=self.rivals)
        self.folder.keep(key, found.rehearsal)

    def _whole(self, found: Mapping[Company, Rehearsal], left_out: Sequence[str]) -> Rehearsal:
        parts = [found[one] for one in sorted(found, key=sorted)]
        out = [*left_out, *(text for part in parts for text in part.left_out)]
        services = tuple(sorted((s for part in parts for s in part.services), key=lambda s: s.service))
        if not services:
            raise ConfigError("nothing can be rehearsed: " + " ".join(out or ["there is no history"]))
        for group in _meeting(found, self.settings):
            out.append(
                f"{', '.join(sorted(group))} would have been changed close together, where the caps over all services "
                "hold one up for the other: they were rehearsed apart, because their histories are of different times."
            )
        return Rehearsal(self.label, max(part.days for part in parts), services, tuple(dict.fromkeys(out)))


def _meeting(found: Mapping[Company, Rehearsal], settings: Settings) -> list[frozenset[str]]:
    """Those that would have been held up by services outside of their company."""
    made: dict[str, Sequence[Made]] = {one.service: one.made for done in found.values() for one in done.services}
    groups = crowded(made, settings.safety)
    return [group for group in dict.fromkeys(groups) if not any(group <= company for company in found)]


def _apart(group: frozenset[str], found: Mapping[Company, Rehearsal]) -> bool:
    """Whether their histories are of different times, so that one loop would leave a part of them out."""
    mine: list[ServiceResult] = [one for done in found.values() for one in done.services if one.service in group]
    spans = ((a.start_s - b.start_s, a.end_s - b.end_s) for a, b in pairwise(mine))
    return any(abs(before) > _SAME_S or abs(after) > _SAME_S for before, after in spans)


def _told(again: Sequence[Company]) -> str:
    several = "; ".join(", ".join(sorted(one)) for one in again)
    return (
        f"The caps over all services would have held one up for another: {several} are rehearsed again, in one loop "
        "for those that meet."
    )


def _failed(company: Company, error: Exception) -> str:
    if isinstance(error, ConfigError):
        return str(error).removeprefix("nothing can be rehearsed: ")
    if not isinstance(error, SlotuneError):
        _log.error("rehearsing %s", ", ".join(sorted(company)), exc_info=error)
    return f"{', '.join(sorted(company))} could not be rehearsed: {error}."
