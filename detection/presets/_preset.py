"""What a preset is: PromQL templates by signal, and the names that a service may override."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from detection.errors import ConfigError
from detection.model import PercentileSource

_PLACE = re.compile(r"\$\(([a-z_]+)\)|\$(sel|by|w)")
_NAMED = re.compile(r"\$\(([^)]*)\)")
PERCENTILE_LABEL = "percentile_source"
"""The label of an answer's series whose percentiles are not from a histogram; its value is the PercentileSource."""
LANGUAGE_ENGINE = "continuous_batching"
"""The engine of servers of language models (tuning/planning/engines)."""
MS_OF_UNIT = {"s": 1e3, "ms": 1.0, "us": 1e-3}
_METRIC_NAME = re.compile(r"^[a-zA-Z_:][a-zA-Z0-9_:]*$")


@dataclass(frozen=True)
class Preset:
    """PromQL templates of one serving system.

    signals[name]: a query for many services at once. `$sel` becomes the label matchers (without braces, ending in a
    comma unless empty), `$by` the labels that tell services apart (ending in a comma unless empty), `$w` the rate
    window, and `$(name)` any of `names`, which a service overrides through `Service.labels["metric.<name>"]`.
    buckets: cumulative bucket rates by le (ms = le * bucket_scale_ms), "" where the system exports no histogram.
    engine: the name of what turns load into latency there (tuning/planning/engines).
    edges_ms: upper edges of the finite buckets that a percentile is read from, by its signal, where the system has the
    same ones everywhere: what is predicted of it is told as these will show it.
    presence: a selector with one series for each scrape of a replica; more of them are one target scraped twice.
    native: templates for services whose `duration` is a native histogram, by signal.
    versions: the releases whose metrics these names are.
    units: the unit of durations by their name; a service says another one through `Service.labels["unit.<name>"]`. A
    template writes `$(<name>_ms)` for how many ms one of it is.
    served: the parts of a service by the version of its model, one series for each value of `version_label` (`$by`
    holds that label then); "" where the system's metrics carry no version.
    counters never appear without rate() or increase(); a share is absent (not 0) where its base is absent.
    """

    name: str
    title: str
    signals: Mapping[str, str]
    buckets: str = ""
    bucket_scale_ms: float = 1e3
    percentile_source: PercentileSource = "histogram"
    names: Mapping[str, str] = field(default_factory=dict)
    replica_label: str = "replica"
    engine: str = "dynamic_batching"
    edges_ms: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    presence: str = ""
    versions: str = ""
    native: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    served: str = ""
    version_label: str = "version"

    def resolved(self, labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """The names of this preset with a service's overrides, as a hashable value.

        ConfigError where an override names something the preset does not have, or is no metric name or unit.
        """
        names = dict(self.names)
        units = dict(self.units)
        for key, value in labels.items():
            if key.startswith("unit."):
                units[self._unit(key, value)] = value
            if not key.startswith("metric."):
                continue
            name = key.removeprefix("metric.")
            if name not in names:
                known = ", ".join(sorted(names)) or "none"
                raise ConfigError(f"the preset {self.name!r} has no metric {name!r} to override; it has: {known}")
            if not _METRIC_NAME.match(value):
                raise ConfigError(f"{value!r} is not a Prometheus metric name (override {key!r})")
            names[name] = value
        # a name may stand on another one ("$(prefix):num_requests_running")
        filled = {name: _PLACE.sub(lambda match: names[match.group(1)], value) for name, value in names.items()}
        filled |= {f"{name}_ms": f"{MS_OF_UNIT[unit]:g}" for name, unit in units.items()}
        return tuple(sorted(filled.items()))

    def _unit(self, key: str, value: str) -> str:
        """The duration whose unit a label says."""
        name = key.removeprefix("unit.")
        if name not in self.units:
            known = ", ".join(sorted(self.units)) or "none"
            raise ConfigError(f"the preset {self.name!r} has no duration {name!r} with a unit; it has: {known}")
        if value not in MS_OF_UNIT:
            raise ConfigError(f"{value!r} is no unit of a duration (label {key!r}): write {', '.join(MS_OF_UNIT)}")
        return name

    def query_problem(self, template: str) -> str | None:
        """What is wrong with a query that somebody else wrote for this preset; None: nothing that can be seen here."""
        if "$sel" not in template:
            return "has no $sel, which becomes the service's labels: write metric{$sel}"
        if "$by" not in template:
            return "has no $by, which becomes the labels that tell services apart: write sum by ($by) (...)"
        unknown = sorted(set(_NAMED.findall(template)) - set(self.names) - {f"{name}_ms" for name in self.units})
        if unknown:
            return f"has the place $({unknown[0]}), which the preset {self.name} does not know"
        return None

    def query(self, template: str, *, selector: str, by: str, window: str, names: Mapping[str, str]) -> str:
        """A template with its places filled. Unknown places are a mistake in the preset: KeyError."""
        places = {"sel": selector, "by": by, "w": window, **names}
        return _PLACE.sub(lambda match: places[match.group(1) or match.group(2)], template)


def ratio(top: str, bottom: str) -> str:
    """top / bottom where the base moves; absent (never 0 or NaN) where there was nothing to share."""
    return f"({top}) / (({bottom}) > 0)"


def rate(counters: str | Sequence[str], matcher: str = "") -> str:
    """The rate of a counter, one series each. Several names are one counter in different releases: a replica exports
    one of them, or the same figures under both, and then the first counts."""
    names = [counters] if isinstance(counters, str) else counters
    return " or ".join(f"rate({name}{{$sel{matcher}}}[$w])" for name in names)


def quantile_ms(quantile: float, bucket: str | Sequence[str], scale: float | str = 1e3) -> str:
    """A quantile in ms of a cumulative histogram, over all series of a service. scale: ms of its unit, or a place."""
    return f"{_factor(scale)} * histogram_quantile({quantile:g}, sum by ($by le) ({rate(bucket)}))"


def increases(bucket: str | Sequence[str]) -> str:
    """What fell into a cumulative histogram's buckets during the window."""
    names = [bucket] if isinstance(bucket, str) else bucket
    return f"sum by ($by le) ({' or '.join(f'increase({name}{{$sel}}[$w])' for name in names)})"


def native_histogram(metric: str, scale: float | str = 1e3) -> dict[str, str]:
    """The latency signals of a native histogram (Prometheus 2.40 or later), which has neither `le` nor parts."""
    rates = f"sum by ($by) (rate({metric}{{$sel}}[$w]))"
    found = {f"p{q}_ms": f"{_factor(scale)} * histogram_quantile(0.{q}, {rates})" for q in ("50", "95", "99")}
    count = f"histogram_count({rates})"
    return {**found, "mean_ms": f"{_factor(scale)} * " + ratio(f"histogram_sum({rates})", count), "qps": count}


def summary_or_ms(histogram: str, quantile: float, summary: str, scale: float) -> str:
    """The quantile that each replica exports itself (the worst replica's), and `histogram` where there is none.

    Quantiles of replicas cannot be added up; the answer is marked, because a summary remembers for longer than $w.
    """
    worst = f'{scale:g} * max by ($by) ({summary}{{$sel quantile="{quantile:g}"}})'
    return f'label_replace({worst}, "{PERCENTILE_LABEL}", "summary", "", "") or on ($by) {histogram}'


def latencies(signal: str, metric: str | Sequence[str], scale: float | str = 1e3) -> dict[str, str]:
    """The mean and the percentiles of a histogram as the signals of one latency: "ttft" gives ttft_ms, ttft_p95_ms."""
    names = [metric] if isinstance(metric, str) else metric
    buckets = [f"{name}_bucket" for name in names]
    quantiles = {f"{signal}_p{q}_ms": quantile_ms(q / 100, buckets, scale) for q in (50, 95, 99)}
    return {f"{signal}_ms": mean_ms(metric, scale), **quantiles}


def whole_requests(scale: float | str = 1e3) -> dict[str, str]:
    """What `slo.p95` speaks of where one histogram, `duration`, has it: p50_ms, p95_ms, p99_ms and mean_ms."""
    quantiles = {f"p{q}_ms": quantile_ms(q / 100, "$(duration)_bucket", scale) for q in (50, 95, 99)}
    return {**quantiles, "mean_ms": mean_ms("$(duration)", scale)}


def tokens(signal: str, metric: str) -> dict[str, str]:
    """The mean and P95 of a histogram of tokens per request: "prompt_tokens" gives prompt_tokens_p95 as well."""
    mean = ratio(total_rate(f"{metric}_sum"), total_rate(f"{metric}_count"))
    return {signal: mean, f"{signal}_p95": quantile_ms(0.95, f"{metric}_bucket", 1.0)}


def mean_ms(metric: str | Sequence[str], scale: float | str = 1e3) -> str:
    """Mean in ms of a histogram or summary from its _sum and _count."""
    names = [metric] if isinstance(metric, str) else metric
    sums, counts = ([f"{name}_{part}" for name in names] for part in ("sum", "count"))
    return f"{_factor(scale)} * " + ratio(total_rate(sums), total_rate(counts))


def _factor(scale: float | str) -> str:
    return scale if isinstance(scale, str) else f"{scale:g}"


def total_rate(counter: str | Sequence[str], matcher: str = "") -> str:
    """Summed rate of a counter over all series of a service."""
    return f"sum by ($by) ({rate(counter, matcher)})"


def share(part: str | Sequence[str], part_matcher: str, whole: str | Sequence[str], whole_matcher: str = "") -> str:
    """part / whole, where the part may have no series until it first happens: then it is 0, not absent."""
    base = total_rate(whole, whole_matcher)
    return ratio(f"{total_rate(part, part_matcher)} or 0 * {base}", base)


def instances(series: str) -> str:
    """How many replicas have a series like this, told apart by `instance`."""
    return f"count by ($by) (count by ($by instance) ({series}))"
