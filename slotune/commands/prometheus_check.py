"""What `slotune check --live` asks of Prometheus: who is read, who is not, what is missing or unseen.

Each service's signals are held against its preset, its SLO against the histogram's bounds and against P95 now, and
Prometheus' clock against ours.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence

from detection import own_signals, presets
from detection.errors import SlotuneError
from detection.model import MetricWindow, Objective, Reading, Service, Span
from detection.outside_text import printable
from detection.signals import SIGNALS, percentile
from detection.sources.prometheus import PrometheusSource
from detection.windows import last_shown
from slotune.commands.check_result import Result
from slotune.signal_table import metrics_of
from tuning.settings import Settings

POINTS = 20
MOST_SKEW_S = 5.0
_ENDINGS = re.compile(r"_(bucket|sum|count|total)$")


def prometheus_results(settings: Settings, source: PrometheusSource, now_s: float) -> Iterator[Result]:
    """One result or more for each service, and one for the clock where it is off."""
    services = settings.service_values()
    step_s = settings.prometheus.step_s
    name = f"Prometheus ({settings.prometheus.connection})"
    span = Span(now_s - POINTS * step_s, now_s, step_s)
    try:
        windows = source.read(services, (*SIGNALS, *own_signals.names(services)), span)
    except SlotuneError as error:
        yield Result(False, f"{name}: {error}")
        return
    for service in services:
        yield from _service(name, source, service, windows, span)
    yield from _clock(name, source)


_NOTHING_SEEN = {
    "ttft_p95_ms": ": no request has come, or none that this server measures a first token of (not streamed)",
    "itl_p95_ms": ": no request has come, or none of more than one token",
}
"""What it means that nothing was measured of a promise although the preset reads it."""


def _service(
    name: str, source: PrometheusSource, service: Service, windows: Reading[MetricWindow], span: Span
) -> Iterator[Result]:
    if service.name in windows.unreadable:
        yield Result(False, f"{name}: {service.name} cannot be read: {windows.unreadable[service.name]}")
        return
    window = windows.get(service.name)
    selectors = ", ".join(f"{key}={value}" for key, value in sorted(service.selectors.items()))
    present = _present(source, service, span.end_s)
    if window is None or not window.values:
        renamed = _renamed(service, sorted(presets.of(service).signals), present)
        yield Result(False, f"{name} answers, but has no series for {service.name} ({selectors}){renamed}")
        return
    for one in service.slo.objectives:
        what = percentile(one.signal)
        if window.last(one.signal) is None:
            length_s = span.end_s - span.start_s
            why = _NOTHING_SEEN.get(one.signal, "") if one.signal in presets.of(service).signals else ""
            yield Result(True, f"{name} has series for {service.name}, but no {what} in the last {length_s:g} s{why}")
        else:
            yield Result(True, f"{name} has series for {service.name}: {what} {last_shown(window, one.signal)}")
    if service.name in windows.notes:
        yield Result(True, f"{service.name}: {windows.notes[service.name]}", warning=True)
    yield from _slo(service, window)
    yield from _missing(service, window, present)


def _slo(service: Service, window: MetricWindow) -> Iterator[Result]:
    """The SLO against what the histogram can show, and against what it shows."""
    if window.percentile_source == "histogram":
        edges_ms = {**service.edges_ms, "p95_ms": window.bounds_ms}
        for one in service.slo.objectives:
            yield from _bounds(service.name, one, edges_ms.get(one.signal, ()))
    for one in service.slo.objectives:
        value = window.last(one.signal)
        if value is not None and value > one.limit_ms:
            what, now = percentile(one.signal), last_shown(window, one.signal)
            said = f"{what} is {now} now, above the SLO of {one.limit_ms:g} ms"
            yield Result(
                True, f"{service.name}: {said}: an incident opens once it has been so for {one.for_s:g} s", True
            )


def _bounds(name: str, one: Objective, edges_ms: Sequence[float]) -> Iterator[Result]:
    """A promise that its histogram cannot show. edges_ms: of the finite buckets; () where they are not known."""
    of = "its histogram" if one.signal == "p95_ms" else f"its histogram of {percentile(one.signal)}"
    if edges_ms and one.limit_ms > edges_ms[-1]:
        yield Result(
            False,
            f"{name}: {of} ends at {edges_ms[-1]:g} ms, below the SLO of {one.limit_ms:g} ms: a P95 "
            "beyond its end cannot be seen, only a mean; give the server buckets above the SLO, or a lower SLO",
        )
    elif edges_ms and one.limit_ms < edges_ms[0]:
        yield Result(
            False,
            f"{name}: the first bucket of {of} ends at {edges_ms[0]:g} ms, above the SLO of "
            f"{one.limit_ms:g} ms: any P95 below is made up; give the server buckets around the SLO",
        )


def _missing(service: Service, window: MetricWindow, present: Sequence[str]) -> Iterator[Result]:
    """The signals that the preset knows and this service does not show, with what is off without them."""
    known = presets.of(service).signals
    lacking = [signal for signal in (*known, *presets.signals_off(service)) if signal not in window.values]
    for signal in lacking:
        reason = window.unread.get(signal)
        why = f" ({reason})" if reason else _renamed(service, [signal], present)
        off = SIGNALS[signal].without if signal in SIGNALS else ""
        yield Result(True, f"{service.name}: {signal} is missing{why}: {off or 'it is not watched'}", warning=True)
    promised = [one.signal for one in service.slo.objectives]
    never = [signal for signal in (*promised, "qps", "error_rate") if signal not in known]
    if never:
        yield Result(True, f"{service.name}: the preset {service.serving} knows no {', '.join(never)}", warning=True)


def _present(source: PrometheusSource, service: Service, at_s: float) -> Sequence[str]:
    try:
        return source.names(service, at_s)
    except SlotuneError:
        return ()  # only for a hint: what cannot be read at all has been said


def _renamed(service: Service, signals: Sequence[str], present: Sequence[str]) -> str:
    """ "; there is ...": the service's own metrics whose names are like those that the preset asks for."""
    preset = presets.of(service)
    names = dict(preset.resolved(service.labels))
    asked = {metric for signal in signals for metric in metrics_of(preset, signal, names)}
    read = {_ENDINGS.sub("", metric) for signal in preset.signals for metric in metrics_of(preset, signal, names)}
    # What the preset reads for another signal is that signal's, and no new name of this one.
    plain = sorted({_ENDINGS.sub("", metric) for metric in present} - read)
    like: dict[str, str] = {}
    for metric in sorted(asked):
        if metric in present:
            continue
        bare = _ENDINGS.sub("", metric)
        own = bare.rpartition(":")[2] or bare
        same = [n for n in plain if n != bare and (n.endswith(own) or n.replace(".", "_") == bare)]
        close = same or difflib.get_close_matches(bare, plain, n=1, cutoff=0.85)
        if close and close[0] != bare:
            like.setdefault(close[0], bare)
    if not like:
        return ""
    shown = ", ".join(f"{printable(found, 80)} instead of {bare}" for found, bare in list(like.items())[:3])
    return f"; there is {shown}{_override(like, names)}"


def _override(like: Mapping[str, str], names: Mapping[str, str]) -> str:
    """How to name what is called otherwise, where the preset lets it be named."""
    prefix = names.get("prefix")
    for found, bare in like.items():
        if prefix and bare.startswith(prefix) and found.endswith(bare.removeprefix(prefix)):
            return f" (labels: {{metric.prefix: {printable(found.removesuffix(bare.removeprefix(prefix)), 80)}}})"
    for found, bare in like.items():
        key = next((key for key, value in names.items() if value == bare), None)
        if key:
            return f" (labels: {{metric.{key}: {printable(found, 80)}}})"
    return ""


def _clock(name: str, source: PrometheusSource) -> Iterator[Result]:
    try:
        skew_s = source.clock_skew_s()
    except SlotuneError as error:
        yield Result(True, f"{name}: its clock cannot be asked: {error}", warning=True)
        return
    if abs(skew_s) > MOST_SKEW_S:
        side = "ahead of" if skew_s > 0 else "behind"
        yield Result(
            False,
            f"{name}: its clock is {abs(skew_s):.0f} s {side} this machine's: before and after a change cannot be told "
            "apart; synchronise both (NTP)",
        )
