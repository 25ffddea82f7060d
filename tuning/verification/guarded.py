"""Guard metrics: a win on P95 that loses elsewhere is no win."""

from __future__ import annotations

import math

import numpy as np

from detection.model import MetricWindow, Objective
from detection.signal import Signal
from detection.signals import of_unit, percentile, title
from tuning.formats import ms
from tuning.model import Guarded, Option
from tuning.ports import Evidence
from tuning.verification import goodput
from tuning.verification.settings import VerificationSettings

Control = tuple[Evidence, Evidence]
_WORSE = 1.1
"""A promise that was broken before the change has to be worse by this factor to count against it."""
_COUNTED = frozenset({"variant", "admission"})
"""Levers of which it counts how much is answered in time."""
GUARDS = ("error_rate", "qps", "accuracy", "agreement")
KNOWN_SHARE = 0.5
"""A signal that has a number at this share of the steps before a change is measured; at less than this share of that
share after it, it no longer is. A scrape or two that fail are no loss of a signal."""
Z98 = 2.33
"""Standard normal quantile of the two-sided confidence of 98 % that "improved" needs."""


def mean_of(window: MetricWindow, signal: str) -> float | None:
    """The mean of a signal, None when it is not there at all."""
    values = window.values.get(signal)
    if values is None:
        return None
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None


def requests_of(evidence: Evidence) -> float | None:
    """Requests seen on one side: from the histogram, else from the rate; None when neither is known."""
    if evidence.buckets is not None and np.isfinite(evidence.buckets.counts).any():
        return float(np.nansum(evidence.buckets.counts))
    rate = mean_of(evidence.window, "qps")
    if rate is None:
        return None
    return rate * float(np.isfinite(evidence.window.values["qps"]).sum()) * evidence.window.span.step_s


def guard_metrics(
    before: Evidence,
    after: Evidence,
    control: Control | None,
    settings: VerificationSettings,
    option: Option = Option(changes=()),
) -> tuple[Guarded, ...]:
    """Every guard metric that both sides export. option: what was done; the quality that it costs was agreed to."""
    agreed = option.quality_loss
    found = [
        _refused(before, after, settings, option) or _errors(before, after, control, settings),
        _throughput(before, after, control, settings),
        _tokens(before, after, control, settings),
        *(_lost(before, after, control, settings, signal) for signal in ("abort_rate", "unanswered_rate")),
        *(_promise(before, after, one) for one in _others(after)),
        *(_quality(before, after, control, settings, signal, agreed) for signal in ("accuracy", "agreement")),
        goodput.compared(before, after, settings.throughput_drop) if _COUNTED & set(option.levers) else None,
        _agreement(before, after),
        *(_own(before, after, control, settings, signal) for signal in after.guarded),
        *(_utilisation(before, after, signal) for signal in ("gpu_util", "busy")),
    ]
    return tuple(guarded for guarded in found if guarded is not None)


def _utilisation(before: Evidence, after: Evidence, signal: str) -> Guarded | None:
    """How much of the machine is used, before and after: told for reviews, and never a reason against a win."""
    old, new = mean_of(before.window, signal), mean_of(after.window, signal)
    if old is None or new is None:
        return None
    return Guarded(signal=signal, before=old, after=new, ok=True, reason=f"{old:.0%} before, {new:.0%} after")


def vanished(before: Evidence, after: Evidence) -> str:
    """Which guard metrics were there before the change and are missing after it, in a sentence; empty when none is.

    What nobody counts any more may be anything: no win rests on it.
    """
    lost = []
    for signal in GUARDS:
        known, left = (_coverage(side.window, signal) for side in (before, after))
        if known >= KNOWN_SHARE and left < KNOWN_SHARE * known:
            lost.append(signal)
    if not lost:
        return ""
    return f"{' and '.join(lost)} {'was' if len(lost) == 1 else 'were'} measured before the change and not after it"


def _coverage(window: MetricWindow, signal: str) -> float:
    """The share of a window's steps for which a signal has a number."""
    values = window.values.get(signal)
    return float(np.isfinite(values).mean()) if values is not None and values.size else 0.0


def _errors(
    before: Evidence, after: Evidence, control: Control | None, settings: VerificationSettings
) -> Guarded | None:
    old, new = mean_of(before.window, "error_rate"), mean_of(after.window, "error_rate")
    if old is None or new is None:
        return None
    rise = new - old - _control_shift(control, "error_rate")
    noise = _error_noise(before, after, old, new)
    ok = not (rise > settings.error_rate_floor and rise > 2 * noise)
    return Guarded(
        signal="error_rate",
        before=old,
        after=new,
        ok=ok,
        reason="" if ok else f"the share of failed requests rose from {old:.2%} to {new:.2%}",
    )


def _refused(
    before: Evidence, after: Evidence, settings: VerificationSettings, option: Option
) -> Guarded | None:
    """What a limit refuses was agreed to, as long as no less is answered in time; None for every other change."""
    agreed = option.refusal
    old, new = mean_of(before.window, "error_rate"), mean_of(after.window, "error_rate")
    if agreed is None or old is None or new is None:
        return None
    won = goodput.compared(before, after, settings.throughput_drop)
    ok = won is not None and won.ok
    planned = f"{agreed.share.low:.0%} to {agreed.share.high:.0%} planned"
    reason = f"{new:.1%} of the requests refused or failed, {old:.1%} before ({planned})"
    return Guarded(signal="error_rate", before=old, after=new, ok=ok, reason=reason)


def _error_noise(before: Evidence, after: Evidence, old: float, new: float) -> float:
    """Standard error of the difference of both shares: of the series, and of two binomial counts."""
    noise = _difference_error(before, after, "error_rate")
    requests = [requests_of(side) for side in (before, after)]
    if not all(requests):
        return noise
    share = 0.5 * (old + new)
    return max(noise, math.sqrt(max(share * (1 - share), 0.0) * sum(1 / n for n in requests if n)))


def serves_again(
    before: Evidence, after: Evidence, settings: VerificationSettings, *, at_any_load: bool = False
) -> str:
    """What to say where the share of failed requests was over its objective, and clearly fell under it while no less
    was asked for; empty where not.

    A queue that refuses at its limit keeps P95 where it is: what a change does shows in what is no longer refused.
    at_any_load: what failed did not fail for want of capacity, so that a lower load explains nothing.
    """
    old, new = mean_of(before.window, "error_rate"), mean_of(after.window, "error_rate")
    rates = [mean_of(side.window, "qps") for side in (before, after)]
    if old is None or new is None or after.slo is None or not (rates[0] and rates[1]):
        return ""
    if not new <= after.slo.error_rate < old or old >= 1 or new >= 1:
        return ""
    if not at_any_load and rates[1] / (1 - new) < (1 - settings.load_tolerance) * rates[0] / (1 - old):
        return ""
    if old - new <= Z98 * _error_noise(before, after, old, new):
        return ""
    return f"the share of failed requests fell from {old:.2%} to {new:.2%}"


def right_again(before: Evidence, after: Evidence, settings: VerificationSettings) -> str:
    """What to say where the answers clearly became right again, by more than the loss that is allowed; empty where not.

    A version that answers wrongly answers no slower: what its revert does shows in the answers.
    """
    allowed = after.slo.accuracy_drop if after.slo is not None else settings.accuracy_drop
    for signal in ("accuracy", "agreement"):
        old, new = mean_of(before.window, signal), mean_of(after.window, signal)
        if old is None or new is None:
            continue
        if new - old > max(allowed, Z98 * _difference_error(before, after, signal)):
            return f"{signal} rose from {old:.4g} to {new:.4g}"
    return ""


def still_refuses(before: Evidence, after: Evidence) -> bool:
    """The share of failed requests clearly fell, and is still over its objective by two standard errors: fewer are
    refused, not none. Failures that the change did not move are another matter."""
    old, new, requests = mean_of(before.window, "error_rate"), mean_of(after.window, "error_rate"), requests_of(after)
    if old is None or new is None or after.slo is None or not requests:
        return False
    limit = after.slo.error_rate
    over = new > limit + 2 * math.sqrt(limit * (1 - limit) / requests)
    return over and old - new > Z98 * _error_noise(before, after, old, new)


def _throughput(
    before: Evidence, after: Evidence, control: Control | None, settings: VerificationSettings
) -> Guarded | None:
    """Served against offered: a fall of the served rate is a loss, unless less was offered."""
    old, new = mean_of(before.window, "qps"), mean_of(after.window, "qps")
    if old is None or new is None or old <= 0:
        return None
    ratio = new / old
    if control is not None:
        pair = [mean_of(side.window, "qps") for side in control]
        if pair[0] and pair[1]:
            ratio /= pair[1] / pair[0]
    fell = ratio < 1 - settings.throughput_drop and old - new > 2 * _difference_error(before, after, "qps")
    words = f"served requests fell from {old:.3g}/s to {new:.3g}/s"
    if not fell:
        return Guarded(signal="qps", before=old, after=new, ok=True)
    if control is None and (offered := _less_offered(before, after, 1 - settings.throughput_drop)):
        return Guarded(signal="qps", before=old, after=new, ok=True, reason=f"{words}, {offered}")
    return Guarded(signal="qps", before=old, after=new, ok=False, reason=words)


def _tokens(
    before: Evidence, after: Evidence, control: Control | None, settings: VerificationSettings
) -> Guarded | None:
    """Generated tokens per request that was asked for: fewer of them is a loss, however fast they come.

    A request that is cut short, or never ended, makes fewer; where less was asked for, less is generated.
    """
    signal = "generation_tokens_per_s"
    old, new = mean_of(before.window, signal), mean_of(after.window, signal)
    if old is None or new is None or old <= 0:
        return None
    ratio = new / old
    if control is not None:
        pair = [mean_of(side.window, signal) for side in control]
        if pair[0] and pair[1]:
            ratio /= pair[1] / pair[0]
    fell = ratio < 1 - settings.throughput_drop and old - new > 2 * _difference_error(before, after, signal)
    words = f"generated tokens fell from {old:,.0f}/s to {new:,.0f}/s"
    if not fell:
        return Guarded(signal=signal, before=old, after=new, ok=True)
    if control is None and (offered := _less_offered(before, after, 1 - settings.throughput_drop)):
        return Guarded(signal=signal, before=old, after=new, ok=True, reason=f"{words}, {offered}")
    return Guarded(signal=signal, before=old, after=new, ok=False, reason=words)


def _lost(
    before: Evidence, after: Evidence, control: Control | None, settings: VerificationSettings, signal: str
) -> Guarded | None:
    """Requests that ended without an answer: more of them is a loss."""
    old, new = mean_of(before.window, signal), mean_of(after.window, signal)
    if old is None or new is None:
        return None
    rise = new - old - _control_shift(control, signal)
    allowed = after.slo.abort_rate if after.slo is not None else settings.error_rate_floor
    noise = _difference_error(before, after, signal)
    ok = not (new > allowed and rise > settings.error_rate_floor and rise > 2 * noise)
    reason = "" if ok else f"{title(signal)} rose from {old:.2%} to {new:.2%}"
    return Guarded(signal=signal, before=old, after=new, ok=ok, reason=reason)


def _others(after: Evidence) -> tuple[Objective, ...]:
    """What the service promises beside the promise that is judged."""
    return () if after.slo is None else tuple(one for one in after.slo.objectives if one.signal != after.signal)


def _promise(before: Evidence, after: Evidence, one: Objective) -> Guarded | None:
    """Another promise that was kept before the change and is broken after it, by more than noise: no win."""
    old, new = mean_of(before.window, one.signal), mean_of(after.window, one.signal)
    if old is None or new is None:
        return None
    error = _difference_error(before, after, one.signal)
    worse = new > one.limit_ms and new > (_WORSE * old if old > one.limit_ms else old)
    ok = not (worse and new - old > 2 * error)
    name = percentile(one.signal)
    reason = "" if ok else f"{name} rose from {ms(old)} to {ms(new)}, over its limit of {ms(one.limit_ms)}"
    return Guarded(signal=one.signal, before=old, after=new, ok=ok, reason=reason)


def _less_offered(before: Evidence, after: Evidence, enough: float) -> str:
    """Why a fall of the served rate is the callers' doing and not ours; empty when nothing says so.

    What is asked for is what is served plus the growth of the queue; `enough`: the share of it that has to be served.
    """
    asked, served = _asked(after), mean_of(after.window, "qps")
    if asked is not None and served is not None:
        return "and the queue does not grow: less was asked for" if served >= enough * asked else ""
    old, new = mean_of(before.window, "queue_ms"), mean_of(after.window, "queue_ms")
    if old is not None and new is not None and new > 1.1 * old:
        return ""
    if before.expected_p95_ms is not None and after.expected_p95_ms is not None:
        return "which the latency model's expectation accounts for"
    return ""


def _asked(side: Evidence) -> float | None:
    """Requests per second that came over the look: answered, plus what the queue grew by; None without its length."""
    served, depth = mean_of(side.window, "qps"), side.window.values.get("queue_depth")
    known = np.flatnonzero(np.isfinite(depth)) if depth is not None else np.empty(0, dtype=int)
    if served is None or depth is None or known.size < 2:
        return None
    seconds = float(known[-1] - known[0]) * side.window.span.step_s
    return served + float(depth[known[-1]] - depth[known[0]]) / seconds


def _quality(
    before: Evidence,
    after: Evidence,
    control: Control | None,
    settings: VerificationSettings,
    signal: str,
    agreed: float,
) -> Guarded | None:
    old, new = mean_of(before.window, signal), mean_of(after.window, signal)
    if old is None or new is None:
        return None
    allowed = after.slo.accuracy_drop if after.slo is not None else settings.accuracy_drop
    drop = old - new + _control_shift(control, signal) - agreed
    ok = not (drop > allowed and drop > 2 * _difference_error(before, after, signal))
    reason = "" if ok else f"{signal} fell from {old:.4g} to {new:.4g}"
    return Guarded(signal=signal, before=old, after=new, ok=ok, reason=reason)


def _own(
    before: Evidence, after: Evidence, control: Control | None, settings: VerificationSettings, signal: Signal
) -> Guarded | None:
    """A signal that the service defines: worse by as much as is news, and by more than noise, is a loss. One that shows
    nothing says nothing, which is told and holds against no change."""
    old, new = mean_of(before.window, signal.name), mean_of(after.window, signal.name)
    if control is not None and (old is None or new is None):
        return None  # one replica does not show what the service is worth
    if old is None or new is None:
        when = "before or after" if old is None and new is None else "before" if old is None else "after"
        reason = f"no data {when} the change: it says nothing about it"
        return Guarded(signal=signal.name, before=old, after=new, ok=True, reason=reason)
    moved = new - old - _control_shift(control, signal.name)
    loss = moved if signal.worse == "up" else -moved
    news = signal.floor or settings.min_effect * abs(old)
    ok = not (loss > news and loss > 2 * _difference_error(before, after, signal.name))
    was, now = of_unit(signal.unit, old), of_unit(signal.unit, new)
    words = f"{signal.title} {'rose' if new > old else 'fell'} from {was} to {now}"
    reason = f"{was} before, {now} after" if ok else words
    return Guarded(signal=signal.name, before=old, after=new, ok=ok, reason=reason)


def _agreement(before: Evidence, after: Evidence) -> Guarded | None:
    """Shadowed live answers against the bound: there is no "before", shadowing begins with the new version."""
    new, bound = mean_of(after.window, "agreement"), after.min_agreement
    if new is None or bound is None or mean_of(before.window, "agreement") is not None:
        return None
    values = after.window.values["agreement"]
    finite = values[np.isfinite(values)]
    error = math.sqrt(float(finite.var(ddof=1)) / max(1.0, finite.size / 3)) if finite.size > 1 else 0.0
    ok = new + 2 * error >= bound
    text = f"{new:.2%} of the shadowed answers agree with the old version (at least {bound:.2%} are asked for)"
    return Guarded(signal="agreement", before=None, after=new, ok=ok, reason=text)


def _control_shift(control: Control | None, signal: str) -> float:
    if control is None:
        return 0.0
    old, new = (mean_of(side.window, signal) for side in control)
    return 0.0 if old is None or new is None else new - old


def _difference_error(before: Evidence, after: Evidence, signal: str) -> float:
    """Standard error of the difference of means; points of a rolling window count for a third of their number."""
    total = 0.0
    for side in (before, after):
        values = side.window.values[signal]
        finite = values[np.isfinite(values)]
        if finite.size > 1:
            total += float(finite.var(ddof=1)) / max(1.0, finite.size / 3)
    return math.sqrt(total)
