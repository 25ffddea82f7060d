"""An open circuit, tended by every sweep: left to rest, probed, closed again or opened again, each step in the ledger
before it is made.

What follows is decided by `tuning.policies.breaker` (pure) from where the route stands, read back, and from its signals
since then. A state that a person has set meanwhile is final.
"""

from __future__ import annotations

import numpy as np

from detection.errors import Temporary
from detection.model import FloatArray, Lever, Span, make_id
from tuning import attempt as attempts
from tuning.attempt import Attempt
from tuning.formats import ms
from tuning.guards import stopped
from tuning.loop import lease, prove, records, tell
from tuning.loop.parts import Parts
from tuning.mail import Tone
from tuning.model import Change, OpenChange
from tuning.orders import to_hand_back
from tuning.planning import breaking
from tuning.planning.breaking import Route
from tuning.policies import breaker
from tuning.policies.lease import found
from tuning.report.notice_mail import notice_mail

_WORDS: dict[breaker.Step, str] = {
    "probe": "a few requests are sent there again, to see",
    "open": "nothing is sent there again",
    "close": "it gets its requests again",
}
_STATE_OF: dict[breaker.Step, breaker.State] = {"probe": "half_open", "open": "open", "close": "closed"}


def tend(parts: Parts, change: OpenChange, at_s: float) -> str | None:
    """What was done about an open circuit now, in a sentence; None when nothing was.

    Raises a SlotuneError where the route cannot be read, or a step that is due may not be made.
    """
    attempt = attempts.of(parts.ledger, change.plan)
    held = lease.held_now(parts, attempt.plan)
    step = lease.last_step(parts, attempt, held, at_s)
    cut = next(one for one in attempt.plan.chosen.changes if one.lever == breaking.LEVER)
    name, service = next(iter(cut.new)), parts.service(change.service)
    stands = found(cut, lease.ours(attempt, step, cut.lever), held[cut.lever].values)
    if stands == "foreign":
        return lease.release(parts, attempt, held, at_s)
    lever = service.levers[cut.lever]
    route = next((one for one in breaking.routes(lever) if one.name == name), None)
    if route is None:
        raise Temporary(f"the route {name} is none of those in services.yaml any more, and slotune has it open")
    state: breaker.State = "closed" if stands == "old" else _state(str(held[cut.lever].values[name]))
    since_s = step.made_s if step is not None and step.made_s is not None else attempt.made_s
    values = [] if since_s is None or state != "half_open" else _values(parts, attempt, lever, route, since_s, at_s)
    seen = breaker.seen(
        state,
        since_s if since_s is not None else change.opened_at_s,
        at_s,
        rests_s=breaker.rest_s(_number(lever, "open_for_s"), _number(lever, "open_max_s"), attempt.renewals),
        probe_s=_number(lever, "probe_for_s"),
        settle_s=_settle_s(parts, lever),
        values=values,
    )
    following = breaker.NEXT[state, seen]
    said = records.orders(parts.ledger, service.name)
    if state != "closed" and (wish := to_hand_back(said, attempt.plan.id)) is not None:
        return _go(parts, attempt, cut, state, "close", at_s, f"{wish.who} asked for it.")
    if following == "end":
        return _end(parts, attempt, name, at_s)
    if following == "wait" or any(other.state != "leased" for other in parts.ledger.open_changes(service.name)):
        return None  # one unproven change at a time, and a probe is one
    if (stop := stopped(service, (cut.lever,), parts.settings.safety, at_s, orders=said)) is not None:
        stands_at = state.replace("_", "-")
        raise Temporary(f"the circuit of {name} is {stands_at}, and what is due is not done: {stop.reason}")
    return _go(parts, attempt, cut, state, following, at_s, _told(route, values, seen))


def _go(
    parts: Parts, attempt: Attempt, cut: Change, state: breaker.State, following: breaker.Step, at_s: float, why: str
) -> str:
    name = next(iter(cut.new))
    step = Change(lever=cut.lever, old={name: state}, new={name: _STATE_OF[following]})
    reason = f"{name}: {_WORDS[following]}. {why}".strip()
    if following == "open":
        # The count of failed probes goes first: the next probe is another one, and comes later.
        lease.renew(parts, attempt.plan, at_s, reason)
        attempt = attempts.of(parts.ledger, attempt.plan)
    made = lease.make_step(parts, attempt, step, None, at_s, reason)
    if following == "open":
        title = f"{attempt.plan.service}: the probe of {name} failed, its circuit is open again"
        _tell(parts, attempt, title, reason, at_s)
    return made.replace("handing back: ", "", 1)


def _end(parts: Parts, attempt: Attempt, name: str, at_s: float) -> str:
    by_us = bool(attempt.steps_back)
    reason = f"{name} gets its requests again{'' if by_us else ', and somebody else did that'}."
    minutes = (at_s - attempt.first_made_s) / 60 if attempt.first_made_s is not None else 0.0
    prove.close(parts, attempt, at_s, "keep", reason)
    failed = f", after {attempt.renewals} failed probe{'s' if attempt.renewals > 1 else ''}" if attempt.renewals else ""
    title = f"{attempt.plan.service}: {name} gets its requests again after {minutes:.1f} min{failed}"
    _tell(parts, attempt, title, reason, at_s, good=True)
    return reason


def _tell(parts: Parts, attempt: Attempt, title: str, reason: str, at_s: float, *, good: bool = False) -> None:
    plan = attempt.plan
    lines = [f"{plan.service}: {reason}", f"slotune show {plan.id}"]
    url = parts.incident_url(plan.incident_id)
    name = make_id(plan.id, "circuit", title, attempt.renewals)
    tone: Tone = "good" if good else "quiet"
    tell.tell_all(parts, notice_mail(name, title, lines, at_s, service=plan.service, url=url, tone=tone))


def _state(shown: str) -> breaker.State:
    found = next((state for state in breaker.STATES if state == shown), None)
    if found is None:
        raise Temporary(f"the route shows {shown}, which is no state of a circuit")
    return found


def _values(
    parts: Parts, attempt: Attempt, lever: Lever, route: Route, since_s: float, at_s: float
) -> list[tuple[FloatArray, float]]:
    """Of each of the route's signals, the values since the state was in effect, and the limit."""
    step_s, service = parts.settings.prometheus.step_s, parts.service(attempt.plan.service)
    begin_s = -(-(since_s + _settle_s(parts, lever)) // step_s) * step_s
    span = Span(begin_s, max(begin_s, at_s // step_s * step_s), step_s)
    window = parts.source.read([service], tuple(name for name, _ in route.signals), span).get(service.name)
    nothing = np.empty(0)
    return [((nothing if window is None else window.values.get(name, nothing)), limit) for name, limit in route.signals]


def _settle_s(parts: Parts, lever: Lever) -> float:
    """Before it has passed, a rate over a window still sees what was before."""
    return lever.effect_delay_s + parts.settings.prometheus.rate_window_s


def _told(route: Route, values: list[tuple[FloatArray, float]], seen: breaker.Seen) -> str:
    """The figures of a probe, for people."""
    if seen == "silent":
        return "The probe was not measured, so that it proves nothing."
    told = []
    for (signal, limit), (found_, _) in zip(route.signals, values, strict=False):
        known = found_[np.isfinite(found_)]
        if known.size:
            now = float(np.median(known))
            share = signal == route.failed
            told.append(f"{now:.0%} failed (limit {limit:.0%})" if share else f"P95 {ms(now)} (limit {ms(limit)})")
    return f"In the probe: {' and '.join(told)}." if told else ""


def _number(lever: Lever, option: str) -> float:
    value = lever.options.get(option)
    return float(value) if isinstance(value, int | float) else 0.0
