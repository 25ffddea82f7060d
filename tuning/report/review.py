"""A review of some stretch of time against targets: what was resolved, how fast, at what cost, and what was learned.

Pure, of the past's fold (tuning.past). Every figure carries its count, and with fewer than FEW there is no rating: too
few data are said, and are neither 0 % nor 100 %.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from tuning import cost
from tuning.labels import Alarm, judged_alarm
from tuning.past import Case, Past, Try, moved

FEW = 5
"""Below so many there is a count and no rating: of four incidents one more or less moves a share by 25 points."""
HOUR_S = 3_600.0
DAY_S = 86_400.0
Unit = Literal["share", "minutes", "change"]


@dataclass(frozen=True)
class Target:
    """What a figure should reach. at_least: the value has to be at least that, else at most."""

    value: float
    at_least: bool


RESOLVED = Target(0.90, at_least=True)
MINUTES = Target(10.0, at_least=False)
FALSE = Target(0.05, at_least=False)
P95 = Target(-0.30, at_least=False)
BUSY = Target(0.25, at_least=True)


@dataclass(frozen=True)
class Figure:
    """value: None where nothing was counted. of: how many it rests on. note: what the number is made of, in words.

    met: None where there is no target or where `of` is too small to rate.
    """

    name: str
    unit: Unit
    value: float | None
    of: int
    target: Target | None
    note: str

    @property
    def met(self) -> bool | None:
        if self.value is None or self.target is None or self.of < FEW:
            return None
        return self.value >= self.target.value if self.target.at_least else self.value <= self.target.value

    @property
    def text(self) -> str:
        """The value in words; "too few to rate" where a bare number would say more than is known."""
        if self.value is None:
            return "no figure"
        text = self._of_unit(self.value)
        return text if self.of >= FEW else f"{text}, too few to rate"

    @property
    def wanted(self) -> str:
        """The target in words; "" without one."""
        if self.target is None:
            return ""
        if self.unit == "change" and not self.target.at_least:
            return f"{self._of_unit(self.target.value)} or lower"
        return f"{'at least' if self.target.at_least else 'at most'} {self._of_unit(self.target.value)}"

    def _of_unit(self, value: float) -> str:
        if self.unit == "minutes":
            return f"{value:.3g} min"
        return f"{100 * value:{'+' if self.unit == 'change' else ''}.0f} %"


@dataclass(frozen=True)
class EffectRow:
    """worked of judged: verdict improved. ratio: median of P95 after over before, None without a number.

    inside of predicted: how many observed P95s lay in the predicted interval.
    """

    lever: str
    cause: str
    judged: int
    worked: int
    rolled_back: int
    ratio: float | None
    predicted: int
    inside: int


@dataclass(frozen=True)
class ServiceRow:
    """One of the worst services. broken_min: minutes from onset to end of its act-tier incidents."""

    name: str
    incidents: int
    resolved: int
    broken_min: float


@dataclass(frozen=True)
class CostRow:
    """What requests of a service cost before its first and after its last kept change, and what these saved within the
    review, in the prices' unit (negative: they cost more)."""

    name: str
    moved: str
    saved: float


@dataclass(frozen=True)
class Out:
    """A change that is not handed back. until_s: the end of its lease, None for one that is not proven yet."""

    service: str
    change: str
    state: str
    until_s: float | None
    cost_per_hour: float

    @classmethod
    def of(cls, service: str, plan: Mapping[str, Any], state: str, until_s: float | None) -> Out:
        """Of an open change; plan: its JSON."""
        chosen = plan.get("chosen") or {}
        text = " and ".join(map(moved, chosen.get("changes") or ())) or "hold"
        return cls(service, text, state, until_s, float(chosen.get("cost_per_hour") or 0.0))


@dataclass(frozen=True)
class Day:
    """The act-tier incidents of one day of the calendar (UTC) by what became of them. start_s: its beginning."""

    start_s: float
    resolved: int
    held: int
    false: int
    other: int


@dataclass(frozen=True)
class Review:
    """figures: in the order of reading. predictions: (predicted P95, observed P95, inside the interval), ms.

    lease_cost: of the leases, in the prices' unit. quality: points times minutes that the degraded ones lost.
    """

    start_s: float
    end_s: float
    incidents: int
    resolved: int
    figures: tuple[Figure, ...]
    predictions: tuple[tuple[float, float, bool], ...]
    effects: tuple[EffectRow, ...]
    worst: tuple[ServiceRow, ...]
    out: tuple[Out, ...]
    lease_cost: float
    leases: int
    costs: tuple[CostRow, ...]
    quality: float
    degraded: int
    refusals: tuple[tuple[str, int], ...]
    days: tuple[Day, ...]
    learned: tuple[str, ...]


@dataclass(frozen=True)
class _Story:
    case: Case
    tries: Sequence[Try]
    alarm: Alarm
    solved_s: float | None

    @property
    def held(self) -> bool:
        return self.case.held and self.solved_s is None


def review(
    past: Past,
    labels: Mapping[str, str],
    out: Sequence[Out],
    start_s: float,
    end_s: float,
    drift: Sequence[str] = (),
) -> Review:
    """Of all that began in [start_s, end_s). labels: people's words by incident. drift: as sentences."""
    stories = [s for s in _stories(past, labels) if start_s <= s.case.opened_at_s < end_s]
    tries = [one for one in past.tries.values() if one.planned and start_s <= one.at_s < end_s]
    judged = [one for one in tries if one.made and one.verdict is not None]
    rows = effects_of(tries)
    leased = [cost for one in past.tries.values() if (cost := _lease_cost(one, start_s, end_s)) is not None]
    lost = [points for one in past.tries.values() if (points := _quality_lost(one, start_s, end_s)) is not None]
    return Review(
        start_s=start_s,
        end_s=end_s,
        incidents=len(stories),
        resolved=sum(s.solved_s is not None for s in stories),
        figures=(*_of_incidents(stories), *_of_changes(judged)),
        predictions=tuple(_predictions(judged)),
        effects=tuple(rows),
        worst=tuple(_worst(stories, end_s)),
        out=tuple(out),
        lease_cost=sum(leased),
        leases=len(leased),
        costs=tuple(_costs(past.tries.values(), start_s, end_s)),
        quality=sum(lost),
        degraded=len(lost),
        refusals=tuple(Counter(guard for one in tries for guard in one.refused).most_common()),
        days=tuple(_days(stories, start_s, end_s)),
        learned=tuple(_learned(rows, stories, drift)),
    )


def _stories(past: Past, labels: Mapping[str, str]) -> Iterable[_Story]:
    tries = past.tries_of()
    for case in past.incidents.values():
        if case.counts:
            mine = tries.get(case.id, [])
            solved = [one.verdict.at_s for one in mine if one.verdict is not None and one.verdict.solved]
            yield _Story(case, mine, judged_alarm(case, mine, labels.get(case.id, "")), min(solved, default=None))


def _of_incidents(stories: Sequence[_Story]) -> Iterable[Figure]:
    idle = [s for s in stories if s.tries and all(t.mode == "observe" or t.dry_run for t in s.tries)]
    real = [s for s in stories if not s.alarm.false and s not in idle]
    solved = [s for s in real if s.solved_s is not None]
    asked = sum(any(t.mode == "approve" for t in s.tries) for s in solved)
    held, still = sum(s.held for s in real), sum(s.alarm.by == "open" for s in real)
    parts = [f"{len(solved)} of {len(real)}"]
    parts += [f"{asked} of them after a person's yes"] if asked else []
    parts += [f"{held} held for a reason"] if held else []
    parts += [f"{still} still open"] if still else []
    parts += [f"{len(idle)} more in observe, where nothing is changed"] if idle else []
    share = len(solved) / len(real) if real else None
    yield Figure("Incidents resolved automatically", "share", share, len(real), RESOLVED, "; ".join(parts))
    minutes = sorted((s.solved_s - s.case.opened_at_s) / 60 for s in solved if s.solved_s is not None)
    slowest = f"; slowest {minutes[-1]:.1f} min" if minutes else ""
    typical = median(minutes) if minutes else None
    note = f"median of {len(minutes)}, from onset to proof{slowest}"
    yield Figure("Time to resolve", "minutes", typical, len(minutes), MINUTES, note)
    known = [s for s in stories if s.alarm.known]
    false = [s for s in known if s.alarm.false]
    by = Counter(s.alarm.by for s in false)
    parts = [f"{len(false)} of {len(known)}"]
    if false:
        parts.append(f"{by['label']} said so by people, {by['alone']} closed by themselves without a change")
    unknown = len(stories) - len(known)
    parts += [f"{unknown} more cannot be told: open, or nothing was allowed to be changed"] if unknown else []
    share = len(false) / len(known) if known else None
    yield Figure("False alarms", "share", share, len(known), FALSE, "; ".join(parts))


def _of_changes(judged: Sequence[Try]) -> Iterable[Figure]:
    effects = [r - 1 for one in judged if (r := _ratio(one)) is not None]
    note = f"median of {len(effects)} judged changes, at equal load where that is known"
    yield Figure("P95 by a change", "change", median(effects) if effects else None, len(effects), P95, note)
    busy = [b[1] / b[0] - 1 for one in judged if one.verdict and (b := one.verdict.busy) and b[0] > 0]
    note = f"median of {len(busy)} judged changes whose service exports it" if busy else "no judged change measured it"
    yield Figure("Utilisation by a change", "change", median(busy) if busy else None, len(busy), BUSY, note)
    found = list(_predictions(judged))
    inside = sum(hit for _, _, hit in found)
    errors = [abs(seen - told) / told for told, seen, _ in found]
    note = f"{inside} of {len(found)} inside the interval" + (f"; median error {median(errors):.0%}" if errors else "")
    yield Figure("Predictions that held", "share", inside / len(found) if found else None, len(found), None, note)


def _ratio(one: Try) -> float | None:
    """P95 after over before: at equal load where the verdict knows that, else as measured."""
    if one.verdict is None:
        return None
    if one.verdict.effect is not None:
        return one.verdict.effect
    before, after = one.verdict.before_ms, one.verdict.after_ms
    return after / before if before and after is not None else None


def _predictions(judged: Iterable[Try]) -> Iterable[tuple[float, float, bool]]:
    for one in judged:
        if one.predicted is not None and one.verdict is not None and one.verdict.after_ms is not None:
            seen = one.verdict.after_ms
            yield one.predicted.value, seen, one.predicted.low <= seen <= one.predicted.high


def effects_of(tries: Iterable[Try]) -> list[EffectRow]:
    """One row per lever and cause over all judged plans, the most used first."""
    groups: dict[tuple[str, str], list[Try]] = defaultdict(list)
    for one in tries:
        if one.planned and one.verdict is not None:
            groups[" and ".join(one.levers) or "none", one.cause.replace("_", " ")].append(one)
    rows = [_row(lever, cause, mine) for (lever, cause), mine in groups.items()]
    return sorted(rows, key=lambda row: (-row.judged, row.lever, row.cause))


def _row(lever: str, cause: str, mine: Sequence[Try]) -> EffectRow:
    ratios = [ratio for one in mine if (ratio := _ratio(one)) is not None]
    predictions = list(_predictions(mine))
    return EffectRow(
        lever=lever,
        cause=cause,
        judged=len(mine),
        worked=sum(one.verdict is not None and one.verdict.verdict == "improved" for one in mine),
        rolled_back=sum(one.undone for one in mine),
        ratio=median(ratios) if ratios else None,
        predicted=len(predictions),
        inside=sum(hit for _, _, hit in predictions),
    )


def _lease_cost(one: Try, start_s: float, end_s: float) -> float | None:
    """What a temporary change cost within the review, in the prices' unit; None where it was not in force in it."""
    lasted_s = _lasted_s(one, start_s, end_s) if one.lease else 0.0
    return one.cost_per_hour * lasted_s / HOUR_S if lasted_s > 0 else None


def _quality_lost(one: Try, start_s: float, end_s: float) -> float | None:
    """Points times minutes of quality that a variant cost within the review; None where it cost none in it."""
    if one.quality_loss <= 0:
        return None
    # It is closed once the way back is proven; what was lost ended with the way back itself.
    back_s = one.back_s if one.over_s is not None else None
    lasted_s = _lasted_s(one, start_s, end_s if back_s is None else min(back_s, end_s))
    return 100 * one.quality_loss * lasted_s / 60 if lasted_s > 0 else None


def _lasted_s(one: Try, start_s: float, end_s: float) -> float:
    """For how much of the review a change was in force."""
    if one.made_s is None:
        return 0.0
    return min(end_s if one.over_s is None else one.over_s, end_s) - max(one.made_s, start_s)


def _costs(tries: Iterable[Try], start_s: float, end_s: float) -> Iterable[CostRow]:
    """Of the changes that were kept and whose cost was measured, the services that saved or cost most first."""
    mine: dict[str, list[tuple[Try, float]]] = defaultdict(list)
    for one in tries:
        if one.verdict is None or one.verdict.cost is None or one.undone or (made_s := one.made_s) is None:
            continue
        # A change that is no lease is closed when it is kept, and stays in force.
        ended_s = one.over_s if one.lease and one.over_s is not None else end_s
        hours = (min(ended_s, end_s) - max(made_s, start_s)) / HOUR_S
        if hours > 0:
            before, after = one.verdict.cost
            mine[one.service].append((one, (before.per_hour - after.per_hour) * hours))
    rows = []
    for name, found in mine.items():
        found.sort(key=lambda pair: pair[0].made_s or 0.0)
        first, last = found[0][0].verdict, found[-1][0].verdict
        if first is not None and last is not None and first.cost is not None and last.cost is not None:
            rows.append(CostRow(name, cost.moved(first.cost[0], last.cost[1]), sum(saved for _, saved in found)))
    return sorted(rows, key=lambda row: (-abs(row.saved), row.name))


def _worst(stories: Sequence[_Story], end_s: float, most: int = 10) -> list[ServiceRow]:
    mine: dict[str, list[_Story]] = defaultdict(list)
    for story in stories:
        mine[story.case.service].append(story)
    rows = [
        ServiceRow(
            name,
            len(found),
            sum(s.solved_s is not None for s in found),
            sum(max(0.0, _ended(s, end_s) - s.case.opened_at_s) for s in found) / 60,
        )
        for name, found in mine.items()
    ]
    return sorted(rows, key=lambda row: (-row.broken_min, row.name))[:most]


def _ended(story: _Story, end_s: float) -> float:
    return min(at_s for at_s in (story.solved_s, story.case.closed_at_s, end_s) if at_s is not None)


def _days(stories: Sequence[_Story], start_s: float, end_s: float) -> Iterable[Day]:
    of: dict[int, list[_Story]] = defaultdict(list)
    for story in stories:
        of[int(story.case.opened_at_s // DAY_S)].append(story)
    first = int(start_s // DAY_S)
    for number in range(first, max(first + 1, -int(-end_s // DAY_S))):
        mine = of[number]
        false, held = sum(s.alarm.false for s in mine), sum(s.held and not s.alarm.false for s in mine)
        resolved = sum(s.solved_s is not None and not s.alarm.false for s in mine)
        yield Day(number * DAY_S, resolved, held, false, len(mine) - resolved - held - false)


def _learned(rows: Sequence[EffectRow], stories: Sequence[_Story], drift: Sequence[str]) -> Iterable[str]:
    for row in rows:
        if row.judged >= FEW and row.lever != "none":
            moved = f", P95 {row.ratio - 1:+.0%} in the median" if row.ratio is not None else ""
            lever = row.lever.replace("_", " ")
            yield f"{lever} on {row.cause}: worked {row.worked} of {row.judged} times{moved}"
    told = Counter(s.alarm.false for s in stories if s.alarm.by == "label")
    if told:
        yield f"people said of {told[False]} incidents that they were real, and of {told[True]} that they were not"
    yield from (f"drift: {sentence}" for sentence in drift)
