"""A whole rehearsal: histories and settings in, what the loop would have done and how sure that is out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection.errors import ConfigError
from detection.model import FloatArray
from slotune.rehearsal import history as histories
from slotune.rehearsal import words
from slotune.rehearsal.counterfactual import Counterfactual, Draw, History, possible, usual
from slotune.rehearsal.drivers import drivers
from slotune.rehearsal.episodes import Episode, episodes
from slotune.rehearsal.levers import not_lent
from slotune.rehearsal.loop import Again, Progress, Rehearsed, rehearse, settings_for
from slotune.rehearsal.result import AROUND_S, Amount, Curves, Incident, Rehearsal, Rival, ServiceResult
from slotune.rehearsal.rivals import autoscaled, foreseen
from tuning.settings import Settings

OFF_LIMIT = 0.3
"""The modelled P95 of the recorded setting may be off by this share; beyond it nothing is said about an incident."""
DRAWS = 12
"""Services that the history leaves possible, each tried with the same decisions, for every interval."""
_LOOPS = 8
"""Draws of a service with which the loop decides anew, shared out over its incidents: each costs a loop."""
WARM_UP_S = 300.0
"""A loop that begins sees this much of the past."""
_MARGIN_S = 300.0
_AHEAD_S = 300.0
_PIECES = 24
_NEAR_SLO, _DRAWN_AFTER_S = 0.7, 1800.0
"""Other draws are run until P95, recorded and rehearsed, has stayed below this share of the SLO for so long."""
_DAY_S = 86_400.0
Mask = NDArray[np.bool_]
_LOOP_SHARE = 0.5
"""The loop's share of a rehearsal's time, for the progress bar."""
_FLOOR_MIN = 0.25
_Z90 = 1.645


@dataclass(frozen=True)
class Found:
    """A rehearsal and the ledger that it wrote."""

    rehearsal: Rehearsal
    rehearsed: Rehearsed


def study(
    settings: Settings,
    recorded: Mapping[str, History],
    label: str,
    progress: Progress,
    *,
    rivals: bool = True,
) -> Found:
    """Rehearse every service that has a history, all in one loop. rivals: also what others would have done.
    ConfigError when none can be rehearsed."""
    services = {service.name: service for service in settings.service_values()}
    left_out = [f"There is no history of {name}." for name in services if name not in recorded]
    kept: dict[str, History] = {}
    for name, one in recorded.items():
        if why := histories.problem(one, services[name]):
            left_out.append(f"{why[0].upper()}{why[1:]}.")
        else:
            kept[name] = one
    if not kept:
        raise ConfigError("nothing can be rehearsed: " + " ".join(left_out or ["there is no history"]))
    step_s = max(one.window.span.step_s for one in kept.values())
    start_s = max(one.window.span.start_s for one in kept.values()) + WARM_UP_S
    end_s = min(one.window.span.end_s for one in kept.values())
    if end_s - start_s < histories.LEAST_S - WARM_UP_S:
        names, least_min = ", ".join(sorted(kept)), histories.LEAST_S / 60
        raise ConfigError(
            f"the histories of {names} have under {least_min:.0f} minutes in common: rehearse each alone (--service)"
        )
    told = settings_for(settings, step_s, end_s - start_s)
    rate_window_s = told.prometheus.rate_window_s
    worlds = {}
    for name, one in kept.items():
        causes = drivers(one.window, services[name], rate_window_s)
        worlds[name] = Counterfactual(
            services[name], one, causes, usual(causes, services[name]), rate_window_s, start_s
        )
    done = rehearse(told, worlds, start_s, end_s, lambda share: progress(_LOOP_SHARE * share))
    by_service: dict[str, list[Episode]] = {name: [] for name in kept}
    for episode in episodes(done.records):
        by_service[episode.service].append(episode)
    results = []
    for name, world in sorted(worlds.items()):
        again = done.again if len(worlds) == 1 else None
        results.append(_service(world, kept[name], by_service[name], start_s, end_s, again, rivals=rivals))
        progress(_LOOP_SHARE + (1 - _LOOP_SHARE) * len(results) / len(worlds))
    if done.failures:
        left_out.append(f"{done.failures} sweeps failed: {next(s for s in done.said if 'failed' in s)}")
    return Found(Rehearsal(label, (end_s - start_s) / _DAY_S, tuple(results), tuple(left_out)), done)


def minutes_over(values: FloatArray, slo_ms: float, step_s: float) -> float:
    """Minutes whose P95 is over the SLO; a gap is none."""
    return float((values > slo_ms).sum()) * step_s / 60.0


def _service(
    world: Counterfactual,
    recorded: History,
    found: Sequence[Episode],
    start_s: float,
    end_s: float,
    again: Again | None,
    *,
    rivals: bool,
) -> ServiceResult:
    span, slo_ms = world.window.span, float(world.service.slo.p95_ms or 0.0)
    times = span.times()
    inside = (times >= start_s - 1e-6) & (times <= end_s + 1e-6)
    was, now = recorded.window.values["p95_ms"], world.window.values["p95_ms"]
    draws = possible(world.drivers, world.service, DRAWS)
    ends = _ends(found, was, times, slo_ms, end_s)
    each = 0 if again is None else _LOOPS // max(1, len(found))
    tried = _Tried(world, recorded, draws, again, each)
    incidents = [_incident(tried, one, until_s, slo_ms) for one, until_s in zip(found, ends, strict=True)]
    minutes = minutes_over(now[inside], slo_ms, span.step_s)
    apart = [i.rehearsed_min for i in incidents]
    below = sum((a.value - a.low) ** 2 for a in apart) ** 0.5
    above = sum((a.high - a.value) ** 2 for a in apart) ** 0.5
    over = inside & (now > slo_ms)
    modelled = float(world.departed[over].mean()) if over.any() else float(world.departed[inside].any())
    made = sorted(at_s for one in found for a in one.attempts if (at_s := a.first_made_s) is not None)
    quiet, days = _quiet_days(was, times, inside, slo_ms)
    cost = world.service.levers["replicas"].cost_per_hour if "replicas" in world.service.levers else 0.0
    hours = float((world.ready - world.drivers.ready)[inside].sum()) * span.step_s / 3600.0
    return ServiceResult(
        service=world.service.name,
        slo_ms=slo_ms,
        start_s=start_s,
        end_s=end_s,
        incidents=tuple(incidents),
        recorded_min=minutes_over(was[inside], slo_ms, span.step_s),
        minutes=Amount(minutes, max(0.0, minutes - below), minutes + above, modelled),
        changes=len(made),
        undone=sum(a.undo is not None and a.undo.receipts_changed for one in found for a in one.attempts),
        days=days,
        quiet_days=len(quiet),
        quiet_changes=sum(int(at_s // _DAY_S) in quiet for at_s in made),
        replica_hours_added=hours,
        cost_added=hours * cost,
        modelled=float(world.departed[inside].mean()),
        rivals=_rivals(world, recorded, start_s, end_s, inside, slo_ms, cost) if rivals else (),
        notes=(*histories.oddities(recorded), *_lent(world)),
        made=tuple(sorted((m for one in found for m in one.made(end_s)), key=lambda m: m.at_s)),
        curves=_curves(world, was, inside & _near(incidents, times)),
    )  # fmt: skip


def _near(incidents: Sequence[Incident], times: FloatArray) -> Mask:
    near = np.zeros(times.size, dtype=bool)
    for one in incidents:
        near |= (times >= one.start_s - AROUND_S) & (times <= one.end_s + AROUND_S)
    return near


def _curves(world: Counterfactual, was: FloatArray, part: Mask) -> Curves:
    return Curves(
        world.window.span.times()[part], was[part], world.window.values["p95_ms"][part], world.drivers.ready[part],
        world.ready[part], world.departed[part].astype(np.float64),
    )  # fmt: skip


def _lent(world: Counterfactual) -> tuple[str, ...]:
    lacking = not_lent(world.service)
    return (f"Not lent in a rehearsal: {', '.join(lacking)}.",) if lacking else ()


def _ends(found: Sequence[Episode], was: FloatArray, times: FloatArray, slo_ms: float, end_s: float) -> list[float]:
    """Until when the minutes of each incident are counted: to the next one, the end of the trouble as it was recorded,
    or its own end, whichever of the last two is later."""
    ends = []
    for place, one in enumerate(found):
        next_s = found[place + 1].opened_s if place + 1 < len(found) else end_s
        over = times[(times >= one.opened_s) & (times < next_s) & (was > slo_ms)]
        last_s = max(float(over[-1]) if over.size else one.opened_s, one.closed_s or end_s)
        ends.append(min(next_s, last_s))
    return ends


@dataclass(frozen=True)
class _Tried:
    """What an interval is drawn from. again, loops: with so many of the draws the loop decides anew, with the others it
    decides as it did."""

    world: Counterfactual
    recorded: History
    draws: Sequence[Draw]
    again: Again | None
    loops: int

    def minutes(self, one: Episode, until_s: float, part: Mask, slo_ms: float) -> list[float]:
        decided_s = min((a.plan.decided_at_s for a in one.attempts), default=one.opened_s)
        start_s = None if self.again is None else self.again.last(decided_s)
        found = []
        for place, draw in enumerate(self.draws):
            if self.again is not None and start_s is not None and place < self.loops and start_s < until_s:
                twin = Counterfactual.beside(self.world, draw, self.recorded, start_s)
                self.again.run(twin, start_s, until_s)
            else:
                twin = _redrawn(self.world, self.recorded, draw, one, until_s)
            found.append(minutes_over(twin.window.values["p95_ms"][part], slo_ms, self.world.window.span.step_s))
        return found


def _incident(of: _Tried, one: Episode, until_s: float, slo_ms: float) -> Incident:
    world, recorded = of.world, of.recorded
    times, step_s = world.window.span.times(), world.window.span.step_s
    part = (times >= one.opened_s - _MARGIN_S) & (times <= until_s)
    was, now = recorded.window.values["p95_ms"][part], world.window.values["p95_ms"][part]
    departed = bool(world.departed[part].any())
    value = minutes_over(now, slo_ms, step_s)
    off = _off(world, recorded, one, until_s) if departed else None
    amount = Amount(value, value, value)
    if departed:
        # Where neither was near the SLO for long, no other draw is over it either: nothing is drawn there.
        near = np.flatnonzero(part)[(np.fmax(was, now) > _NEAR_SLO * slo_ms)]
        drawn_s = min(until_s, float(times[near[-1]]) + _DRAWN_AFTER_S) if near.size else one.opened_s
        drawn, rest = part & (times <= drawn_s), minutes_over(now[times[part] > drawn_s], slo_ms, step_s)
        tried = [rest + minutes for minutes in of.minutes(one, drawn_s, drawn, slo_ms)]
        share = float(world.departed[part].mean())
        # The recorded setting's own misfit is a doubt of every modelled minute as well.
        doubt = max(_FLOOR_MIN, 0.5 * min(off or 0.0, OFF_LIMIT) * value)
        low, high = (float(np.quantile([*tried, value], q)) for q in (0.05, 0.95))
        amount = Amount(value, max(0.0, min(low, value) - doubt), max(high, value) + doubt, share)
    known = off is None or off <= OFF_LIMIT
    reason = one.reason if known else f"the model is {off:.0%} off on the recorded setting. {one.reason}".strip()
    lacking = () if one.how in ("cured", "passed") else not_lent(world.service)
    if lacking:
        reason = f"{reason} {words.untold(lacking)}".strip()
    return Incident(
        id=one.id,
        service=one.service,
        symptom=one.symptom,
        cause=one.cause.replace("_", " "),
        start_s=one.opened_s,
        end_s=until_s,
        how=one.how if known else "cannot tell",
        reason=reason,
        changes=one.changes,
        steps=one.steps,
        off=off,
        recorded_min=minutes_over(was, slo_ms, step_s),
        rehearsed_min=amount,
        not_lent=lacking,
    )


def _redrawn(world: Counterfactual, recorded: History, draw: Draw, one: Episode, until_s: float) -> Counterfactual:
    """The incident with the same decisions on another service that the history leaves possible."""
    begin_s = one.opened_s - _MARGIN_S
    twin = Counterfactual.under(world, draw, recorded, begin_s)
    for at_s, lever, value in world.made:
        if begin_s <= at_s <= until_s:
            twin.advance(at_s)
            twin.put(lever, value)
    twin.advance(until_s)
    return twin


def _off(world: Counterfactual, recorded: History, one: Episode, until_s: float) -> float:
    """How far the modelled P95 of the recorded setting is from the measured one over an incident, the median of their
    ratio: predicted from the recorded queue, up to _AHEAD_S ahead, as the model stands in for a service after a change.
    """
    times = world.window.span.times()
    model = np.full(times.size, np.nan)
    begins = np.arange(one.opened_s - _MARGIN_S, until_s, _AHEAD_S)
    chosen = np.unique(np.linspace(0, begins.size - 1, min(_PIECES, begins.size)).round().astype(int))
    for begin_s in begins[chosen].tolist():
        end_s = min(begin_s + _AHEAD_S, until_s)
        twin = Counterfactual.under(world, world.draw, recorded, begin_s, modelled=True)
        twin.advance(end_s)
        part = (times > begin_s) & (times <= end_s)
        model[part] = twin.window.values["p95_ms"][part]
    measured = recorded.window.values["p95_ms"]
    good = (times >= one.opened_s) & np.isfinite(model) & (model > 0) & (measured > 0)
    if not good.any():
        return 1.0
    return float(np.exp(abs(np.median(np.log(model[good] / measured[good]))))) - 1.0


def _quiet_days(was: FloatArray, times: FloatArray, inside: Mask, slo_ms: float) -> tuple[set[int], int]:
    """The UTC days on which P95 was never recorded over the SLO for two points in a row, and all days."""
    over = np.zeros(times.size, dtype=bool)
    over[1:] = (was[1:] > slo_ms) & (was[:-1] > slo_ms)
    days = np.floor(times / _DAY_S).astype(int)
    everyone = set(days[inside].tolist())
    return everyone - set(days[inside & over].tolist()), len(everyone)


def _rivals(
    world: Counterfactual,
    recorded: History,
    start_s: float,
    end_s: float,
    inside: Mask,
    slo_ms: float,
    cost: float,
) -> tuple[Rival, ...]:
    step_s = world.window.span.step_s

    def make(at_s: float) -> Counterfactual:
        return Counterfactual(
            world.service, recorded, world.drivers, world.draw, world.rate_window_s, at_s, world.steady
        )

    def rival(name: str, other: Counterfactual) -> Rival:
        hours = float(other.ready[inside].sum()) * step_s / 3600.0
        minutes = minutes_over(other.window.values["p95_ms"][inside], slo_ms, step_s)
        return Rival(name, minutes, hours, hours * cost, len(other.made))

    found = [rival("as recorded", make(start_s)), rival("slotune", world)]
    for name, other in (
        ("HPA at its defaults", autoscaled(world.service, make, start_s, end_s)),
        ("oracle on replicas", foreseen(world.service, make, start_s, end_s)),
    ):
        if other is not None:
            found.append(rival(name, other))
    return tuple(found)
