"""What `slotune discover` concludes from series: which services there are, and what each may promise. Pure.

A preset is known by the metric of its `presence`; the same name behind another prefix is a renamed one. Its series are
told apart by the labels that people and exporters use for a service, never by those of a replica.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from detection import presets
from detection.model import FloatArray
from detection.presets import Preset

IDENTITY = (
    "service", "model", "model_name", "application", "service_name", "deployment", "app", "app_kubernetes_io_name",
)  # fmt: skip
PLACE = ("namespace", "job")
HEADROOM = 1.5
"""What is proposed above the worst of quiet hours."""
QUIET_ERRORS = 0.01
QUIET_TIMES = 3.0
"""A point counts as quiet while P95 is at most this many times its median."""
MIN_POINTS = 30
_TARGET = re.compile(r"(http|request|inference|predict|latency|duration)", re.IGNORECASE)
_NOT_SERVING = re.compile(
    r"^(prometheus|go|process|python|net|node|alertmanager|grafana|kube|kubelet|apiserver|etcd|scrape|rest_client|workqueue|scheduler|"
    r"container|coredns|cortex|thanos|loki|airflow|slotune)_"
)  # fmt: skip
_PLAIN = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Sighting:
    """Series that look like a serving system's. labels: overrides that its preset needs. renamed: the name that was
    found where the preset cannot be told it, "" else."""

    preset: str
    metric: str
    labels: Mapping[str, str] = field(default_factory=dict)
    renamed: str = ""


@dataclass(frozen=True)
class Found:
    """One service. targets: (job, instance) of what exports it. wider: selectors by place alone, for exporters whose
    other metrics lack the label that names the service; None where another service is at that place. warnings:
    sentences."""

    name: str
    sighting: Sighting
    selectors: Mapping[str, str]
    targets: frozenset[tuple[str, str]] = frozenset()
    wider: Mapping[str, str] | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SloProposal:
    """p95_ms: what may be promised. reason: what it rests on. visible: the histogram's buckets can show it."""

    p95_ms: float
    reason: str
    visible: bool = True


def presence_of(preset: Preset) -> str:
    """The metric that tells a preset, without its selector and with its names filled."""
    return preset.query(
        preset.presence, selector="", by="", window="1m", names=dict(preset.resolved({}))
    ).partition("{")[0]


def pattern() -> str:
    """A regular expression of the metric names that `sightings` looks at: presets' own, prefixed, and histograms."""
    tails = sorted({presence_of(p) for p in presets.REGISTRY.values()} - {""})
    return f".*({'|'.join(re.escape(t) for t in [*tails, *(_tail(t) for t in tails)])})|.*(duration|latency).*_bucket"


def sightings(names: Sequence[str]) -> list[Sighting]:
    """What serving systems these metric names belong to, one for each metric that tells one."""
    found: list[Sighting] = []
    owned: set[str] = set()
    # a name with dots or blanks, which Prometheus 3 allows, no preset can be told
    names = [name for name in names if _PLAIN.fullmatch(name)]
    # an HTTP server's own histogram may be in front of a serving system, and may be somebody else's
    shared = {f"{name}_bucket" for name in presets.get("generic_histogram").names.values()}
    for preset in presets.REGISTRY.values():
        if preset.name == "generic_histogram":
            continue
        own = presence_of(preset)
        for name in sorted(names):
            seen = _seen(preset, own, name)
            if seen is not None:
                found.append(seen)
                owned |= set(_metrics(preset, seen.labels)) - shared
    # the time in a queue or of a batch is a part of a request, and no service's latency
    owned |= shared - {"http_request_duration_seconds_bucket"}
    generic = [n.removesuffix("_bucket") for n in sorted(names) if n.endswith("_bucket") and n not in owned]
    # where a serving system tells itself, histograms beside it are its own
    serving = [s for s in found if not s.renamed]
    for base in generic:
        theirs = "client" in base or _NOT_SERVING.match(base) or _belongs(base, serving)
        if _TARGET.search(base) and not theirs:
            labels = {} if base == "http_request_duration_seconds" else {"metric.duration": base}
            found.append(Sighting("generic_histogram", f"{base}_count", labels))
    return found


def group(sighting: Sighting, series: Sequence[Labels]) -> list[Found]:
    """The services among the series of one sighting.

    series: the label sets of `sighting.metric`. They are told apart by the first label of IDENTITY that all of them
    have, and by namespace and job where one name stands in several.
    """
    if not series:
        return []
    identity = next((key for key in IDENTITY if all(labels.get(key) for labels in series)), None)
    by_name: dict[str, list[Labels]] = defaultdict(list)
    for labels in series:
        by_name[labels[identity] if identity else labels.get("job", "")].append(labels)
    found = []
    for name, members in sorted(by_name.items()):
        base = {identity: name} if identity else {"job": name} if name else {}
        found += _split(sighting, name or sighting.preset, base, members, series)
    return [f for f in found if f.selectors]


def overlapping(found: Sequence[Found]) -> list[str]:
    """Sentences about services whose selectors single out the same series of one serving system."""
    said = []
    for index, one in enumerate(found):
        for other in found[index + 1 :]:
            if one.sighting.metric != other.sighting.metric:
                continue
            shared = set(one.selectors) & set(other.selectors)
            if all(one.selectors[key] == other.selectors[key] for key in shared):
                said.append(
                    f"{one.name} and {other.name} may single out the same series: add a label that tells them apart"
                )
    return said


def settled(found: Sequence[Found]) -> list[Found]:
    """One service for each thing that serves: without HTTP histograms in front of a serving system that tells itself,
    and with one of several histograms of the same targets (the usual name first); the others are named."""
    systems = {target for f in found if f.sighting.preset != "generic_histogram" for target in f.targets}
    kept: list[Found] = []
    for one in sorted(found, key=lambda f: ("metric.duration" in f.sighting.labels, f.sighting.metric, f.name)):
        if one.sighting.preset != "generic_histogram":
            kept.append(one)
            continue
        if one.targets and one.targets <= systems:
            continue
        at = next((i for i, k in enumerate(kept) if _generic(k) and k.targets & one.targets), None)
        if at is None:
            kept.append(one)
        elif kept[at].sighting.metric != one.sighting.metric:
            other = one.sighting.metric.removesuffix("_count")
            words = f"there is another histogram, {other}: labels: {{metric.duration: {other}}} if that is the SLO's"
            kept[at] = replace(kept[at], warnings=tuple(dict.fromkeys((*kept[at].warnings, words))))
        else:
            kept.append(one)
    return sorted(kept, key=lambda f: (f.name, f.sighting.metric))


def propose_slo(
    p95_ms: FloatArray, error_rate: FloatArray | None, bounds_ms: Sequence[float], step_s: float
) -> SloProposal | None:
    """An SLO from history; None where there are too few quiet points to tell.

    p95_ms: P95 at each step (NaN: a gap). error_rate: shares at the same steps. bounds_ms: finite bounds of the
    histogram.
    """
    usable = np.isfinite(p95_ms) & (p95_ms > 0)
    if error_rate is not None:
        usable &= ~(error_rate > QUIET_ERRORS)
    if usable.sum() < MIN_POINTS:
        return None
    median = float(np.median(p95_ms[usable]))
    quiet = p95_ms[usable & (p95_ms <= QUIET_TIMES * median)]
    worst = float(np.percentile(quiet, 99))
    wanted = nice(worst * HEADROOM)
    hours = quiet.size * step_s / 3600
    said = (
        f"P95 over {quiet.size} quiet points ({hours:.3g} h): median {median:.4g} ms, 99th percentile {worst:.4g} ms, "
        f"times {HEADROOM:g}"
    )
    if not bounds_ms:
        return SloProposal(wanted, f"{said}; no histogram: whether it can be shown is not known")
    above = [bound for bound in bounds_ms if bound >= wanted]
    if not above:
        words = f"{said}; BUT the histogram ends at {bounds_ms[-1]:g} ms: it cannot show this"
        return SloProposal(wanted, words, False)
    below = [bound for bound in bounds_ms if bound < wanted]
    if not below:
        words = f"{said}; BUT the first bucket ends at {above[0]:g} ms: a P95 below that is made up"
        return SloProposal(wanted, words, False)
    words = f"{said}; between the bucket bounds {below[-1]:g} and {above[0]:g} ms"
    return SloProposal(wanted, words)


def nice(value_ms: float) -> float:
    """The next number of two digits above: 1.3, 14, 250."""
    size = 10.0 ** (math.floor(math.log10(value_ms)) - 1)
    return float(f"{math.ceil(value_ms / size - 1e-9) * size:.12g}")


def _seen(preset: Preset, own: str, name: str) -> Sighting | None:
    if not own:
        return None
    if name == own:
        return Sighting(preset.name, name)
    prefix = preset.names.get("prefix")
    if prefix and name.endswith(own.removeprefix(prefix)):
        return Sighting(preset.name, name, {"metric.prefix": name.removesuffix(own.removeprefix(prefix))})
    if name.endswith((f"_{own}", f":{own}")):
        duration = preset.names.get("duration")
        if duration and own == f"{duration}_count":
            return Sighting(preset.name, name, {"metric.duration": name.removesuffix("_count")})
        return Sighting(preset.name, name, renamed=own)
    return None


def _tail(name: str) -> str:
    """What stays of a name where the preset's own first word is another one."""
    return name[re.search(r"[_:]", name).start() :] if re.search(r"[_:]", name) else name  # type: ignore[union-attr]


def _metrics(preset: Preset, labels: Labels) -> list[str]:
    names = dict(preset.resolved(labels))
    texts = [*preset.signals.values(), preset.buckets]
    filled = (preset.query(text, selector="", by="", window="1m", names=names) for text in texts)
    return [name for text in filled for name in re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?=\{)", text)]


def _belongs(base: str, serving: Sequence[Sighting]) -> bool:
    """Whether a histogram's first word is that of a serving system that told itself."""
    word = re.split(r"[_:]", base)[0]
    words = {re.split(r"[_:]", sighting.metric)[0] for sighting in serving} - {"http", "request", "model", "inference"}
    return word in words


def _generic(found: Found) -> bool:
    return found.sighting.preset == "generic_histogram"


def _split(
    sighting: Sighting, name: str, base: dict[str, str], members: Sequence[Labels], everyone: Sequence[Labels]
) -> list[Found]:
    """One service, or one for each namespace and job that has the name; and what is scraped twice is said."""
    by_target: dict[str, set[str]] = defaultdict(set)
    for labels in members:
        by_target[labels.get("instance", "")].add(labels.get("job", ""))
    twice = sorted(instance for instance, jobs in by_target.items() if instance and len(jobs) > 1)
    if twice:
        jobs = ", ".join(sorted(by_target[twice[0]]))
        words = f"{twice[0]} is scraped twice (jobs {jobs}), so that each request counts twice: drop one of them"
        return [Found(name, sighting, base, _targets(members), warnings=(words,))]
    keys = _apart(members, base)
    parts: dict[tuple[str, ...], list[Labels]] = defaultdict(list)
    for labels in members:
        parts[tuple(labels.get(key, "") for key in keys)].append(labels)
    found = []
    for values, part in sorted(parts.items()):
        where = {key: value for key, value in zip(keys, values, strict=True) if value}
        place = {key: part[0][key] for key in PLACE if part[0].get(key)}
        alone = [labels for labels in everyone if all(labels.get(key) == value for key, value in place.items())]
        wider = place if place and len(alone) == len(part) else None
        found.append(Found("-".join([name, *where.values()]), sighting, {**base, **where}, _targets(part), wider))
    return found


def _apart(members: Sequence[Labels], base: Labels) -> list[str]:
    """The labels of PLACE that tell series of one name apart; the job only where the namespace does not do it."""
    keys = [key for key in PLACE if key not in base and len({labels.get(key, "") for labels in members}) > 1]
    by_namespace = defaultdict(set)
    for labels in members:
        by_namespace[labels.get("namespace", "")].add(labels.get("job", ""))
    return ["namespace"] if "namespace" in keys and all(len(jobs) == 1 for jobs in by_namespace.values()) else keys


def _targets(members: Sequence[Labels]) -> frozenset[tuple[str, str]]:
    return frozenset((labels.get("job", ""), labels.get("instance", "")) for labels in members)
