"""What `slotune check` finds beyond a file that can be read: settings that would leave a service unwatched or mislead.

A running loop goes on with the other services (see detection.ports.MetricsSource); here every such service is named.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence

from detection import own_signals, presets
from detection.errors import ConfigError
from detection.exporters import EXPORTERS, problem
from detection.model import OwnPreset, OwnSignal
from detection.outside_text import printable
from detection.signals import SIGNALS
from tuning.service_settings import ServiceSettings
from tuning.settings import Settings
from tuning.yaml_sentences import nearest

Path = tuple[str | int, ...]
_PLACE = ("connection", "model", "namespace", "kind", "target", "container", "env", "arg", "read", "write")
"""The options of a lever that say which setting of which system it moves."""
_LABEL = re.compile(r"^[a-zA-Z_][a-zA-Z0-9_]*$")


def mistakes(settings: Settings, known: Mapping[str, Sequence[str]]) -> list[tuple[Path, str]]:
    """(path of the setting, sentence) of everything that is wrong or cannot be meant.

    known: the names of registries by the setting that names one of them ("planning.planner").
    """
    found = [*_windows(settings), *_registered(settings, known), *_channels(settings)]
    own = settings.own_presets()
    for index, (name, data) in enumerate(own.items()):
        found += [(("presets", index, *place), text) for place, text in presets.problems(name, data, presets.REGISTRY)]
    for index, service in enumerate(settings.services):
        found += _service(service, ("services", index), own)
    return [*found, *_one_meaning(settings), *_same_series(settings), *_same_place(settings)]


def remarks(settings: Settings) -> list[str]:
    """What is right in itself and may still not work here: labels that only Prometheus 3 can be asked for."""
    return [
        f"services[{index}].selectors: the label {printable(key, 60)!r} is one for Prometheus 3 or later; before that "
        f"relabel it (Kubernetes' own labels arrive as {re.sub(r'[^a-zA-Z0-9_]', '_', key)[:60]!r})"
        for index, service in enumerate(settings.services)
        for key in service.selectors
        if not _LABEL.match(key)
    ]


def _channels(settings: Settings) -> Iterator[tuple[Path, str]]:
    """Channels that are told of nothing, because what they name is not there."""
    services = {service.name: service for service in settings.services}
    for index, channel in enumerate(settings.notify.channels):
        at = ("notify", "channels", index)
        for place, name in enumerate(channel.services):
            if name not in services:
                near = nearest(name, list(services))
                yield (*at, "services", place), f"there is no service {printable(name, 60)!r}{near}"
        wanted = channel.labels.items()
        if wanted and not any(wanted <= service.labels.items() for service in services.values()):
            yield (*at, "labels"), "no service has these labels: nothing about a service would reach this channel"
        if channel.by == "smtp" and not (channel.to or settings.mail.to):
            yield (*at, "to"), "names nobody, and neither does mail.to: write to: [oncall@example.com]"


def _windows(settings: Settings) -> Iterator[tuple[Path, str]]:
    window_s, step_s = settings.prometheus.rate_window_s, settings.prometheus.step_s
    if window_s < 2 * step_s:
        yield (
            ("prometheus", "rate_window_s"),
            f"{window_s:g}s holds fewer than two samples at a step of {step_s:g}s, so that no rate can be computed: "
            f"write at least four scrape intervals (rate_window: {4 * step_s:g}s)",
        )
    if settings.prometheus.timeout_s > settings.schedule.watch_every_s:
        yield ("prometheus", "timeout_s"), "is longer than schedule.watch_every: a query would outlast its sweep"


def _registered(settings: Settings, known: Mapping[str, Sequence[str]]) -> Iterator[tuple[Path, str]]:
    for place, names in known.items():
        section, _, field = place.partition(".")
        name = str(getattr(getattr(settings, section), field))
        if name not in names:
            yield (section, field), f"there is no {printable(name, 60)!r}{nearest(name, list(names))}"


def _service(service: ServiceSettings, at: Path, own: Mapping[str, OwnPreset]) -> Iterator[tuple[Path, str]]:
    known = [*own, *presets.REGISTRY]
    if service.serving not in known:
        near = nearest(service.serving, known)
        near = near if "known" in near else f"{near} known: {', '.join(known)}"
        yield (*at, "serving"), f"there is no preset {printable(service.serving, 60)!r}{near}"
    else:
        with contextlib.suppress(ConfigError):  # said where the preset itself is wrong
            yield from _by_preset(service, at, _preset(service.serving, own))
    yield from _exporters(service, at)
    yield from _kind(service, at)
    for place, name in enumerate(service.chain):
        if name not in SIGNALS and name not in service.signals:
            near = nearest(name, [*SIGNALS, *service.signals])
            yield (*at, "chain", place), f"there is no signal {printable(name, 60)!r}{near}"
    for key in service.selectors:
        if not key or key == "__name__" or any(not c.isprintable() for c in key):
            yield (*at, "selectors"), f"{printable(key, 60)!r} is no label that can single out a service's series"
    yield from _one_version(service, at)
    yield from _routes(service, at)
    for name, lever in (("batch_size", service.levers.batch_size), ("replicas", service.levers.replicas)):
        if lever is not None and lever.minimum == lever.maximum and not getattr(lever, "timeout_max_ms", 0):
            yield (*at, "levers", name, "maximum"), f"min and max are both {lever.maximum}: nothing can be changed"


def _kind(service: ServiceSettings, at: Path) -> Iterator[tuple[Path, str]]:
    """What a training job cannot have, and what only it can."""
    promised = service.slo.iteration_ms is not None
    if service.kind == "inference":
        if promised:
            yield (*at, "slo", "iteration_ms"), "is what a training job promises: write kind: training, or p95 instead"
        if service.serving == "training":
            yield (*at, "serving"), "is the preset of training jobs: write kind: training beside it"
        return
    for name in type(service.levers).model_fields:
        if getattr(service.levers, name) is not None:
            yield (
                (*at, "levers", name),
                "a training job is only watched, and nothing of it is ever changed: take the lever out",
            )
    if service.mode != "observe":
        yield (*at, "mode"), f"a training job is only watched: write mode: observe instead of {service.mode}"
    if not promised:
        yield (*at, "slo"), "promises no iteration: write how long one may take on average, as in iteration: 500ms"
    for name in ("p95_ms", "ttft_p95_ms", "itl_p95_ms", "e2e_p95_ms"):
        if getattr(service.slo, name) is not None:
            yield (*at, "slo", name), "is a promise about requests, and a training job answers none: write iteration"


def _exporters(service: ServiceSettings, at: Path) -> Iterator[tuple[Path, str]]:
    for name, labels in service.exporters.items():
        if name not in EXPORTERS:
            near = nearest(name, list(EXPORTERS))
            yield (*at, "exporters", name), f"there is no exporter {printable(name, 60)!r}{near}"
        elif wrong := problem(labels):
            yield (*at, "exporters", name), wrong


def _routes(service: ServiceSettings, at: Path) -> Iterator[tuple[Path, str]]:
    """Routes whose signals the service does not have."""
    routes = service.levers.breaker.routes if service.levers.breaker is not None else ()
    for index, route in enumerate(routes):
        for key, signal in (("failed", route.failed), ("p95", route.p95)):
            if signal and signal not in service.signals:
                near = nearest(signal, list(service.signals))
                place = (*at, "levers", "breaker", "routes", index, key)
                yield place, f"the service has no signal {printable(signal, 60)!r} under `signals:`{near}"


def _one_version(service: ServiceSettings, at: Path) -> Iterator[tuple[Path, str]]:
    """Variants that are versions of a Triton model, where another lever moves the version of the same model."""
    variant, levers = service.levers.variant, service.levers
    if variant is None or variant.actuator != "triton_variant":
        return
    for name, other in (("release", levers.release), ("precision", levers.precision)):
        model = getattr(other, "model", None)
        if other is not None and str(other.actuator).startswith("triton") and model == variant.model:
            yield (
                (*at, "levers", "variant"),
                f"the lever {name} moves the version of the same model: each would undo the other's changes; make the "
                "variants models of their own behind a gateway (http_variant), or keep one of both levers",
            )


def _preset(name: str, own: Mapping[str, OwnPreset]) -> presets.Preset:
    return presets.made(name, own[name], presets.REGISTRY) if name in own else presets.REGISTRY[name]


def _by_preset(service: ServiceSettings, at: Path, preset: presets.Preset) -> Iterator[tuple[Path, str]]:
    """What only the preset can tell: names of metrics, units, and queries of the service's own."""
    yield from _names(service, at, preset)
    for signal, template in service.signals.items():
        if not isinstance(template, str):
            own = OwnSignal.model_validate(template.model_dump())
            for key, sentence in own_signals.problems(signal, own, preset.query_problem):
                yield (*at, "signals", signal, *((key,) if key else ())), sentence
        elif signal not in SIGNALS:
            near = nearest(signal, list(SIGNALS))
            example = f"; a signal of your own is written {signal}: {{class: business, promql: ..., worse: down}}"
            yield (*at, "signals", signal), f"there is no signal {printable(signal, 60)!r}{near}{example}"
        elif problem := preset.query_problem(template):
            yield (*at, "signals", signal), problem


def _names(service: ServiceSettings, at: Path, preset: presets.Preset) -> Iterator[tuple[Path, str]]:
    """The labels `metric.<name>` and `unit.<name>` against what the preset has."""
    for key, value in service.labels.items():
        word = key.removeprefix("metric.")
        if word != key and word not in preset.names:
            hint = nearest(word, list(preset.names)) or f"; the preset {service.serving} has no names to override"
            yield (*at, "labels", key), f"the preset {service.serving} has no metric {printable(word, 60)!r}{hint}"
        elif word != key or key.startswith("unit."):
            try:
                preset.resolved({key: value})
            except ConfigError as error:
                yield (*at, "labels", key), str(error)


def _one_meaning(settings: Settings) -> Iterator[tuple[Path, str]]:
    """Signals of one name that mean two things: dashboards and limits know a signal by its name."""
    seen: dict[str, tuple[tuple[object, ...], str]] = {}
    for index, service in enumerate(settings.services):
        for name, own in service.signals.items():
            if isinstance(own, str):
                continue
            meaning = (own.kind, own.unit, own.worse)
            first = seen.setdefault(name, (meaning, service.name))
            if first[0] != meaning:
                yield (
                    ("services", index, "signals", name),
                    f"{name!r} has another class, unit or direction at {first[1]!r}: give this one another name",
                )


def _same_series(settings: Settings) -> Iterator[tuple[Path, str]]:
    """Services whose series another one's selectors single out as well, and whose figures would be the same."""
    seen: dict[object, int] = {}
    for index, service in enumerate(settings.services):
        metrics = tuple(sorted((k, v) for k, v in service.labels.items() if k.startswith("metric.")))
        key = (service.serving, tuple(sorted(service.selectors.items())), metrics)
        if key in seen:
            first = settings.services[seen[key]].name
            yield (
                ("services", index, "selectors"),
                f"{service.name!r} and {first!r} have the same selectors, so that both show the same figures: "
                "add a label that tells them apart",
            )
        seen.setdefault(key, index)


def _same_place(settings: Settings) -> Iterator[tuple[Path, str]]:
    """Levers of two services that move one and the same setting: each would undo, and judge, the other's changes."""
    seen: dict[str, tuple[str, str]] = {}
    for index, service in enumerate(settings.services):
        for name, lever in service.to_service().levers.items():
            place = {option: lever.options.get(option) for option in _PLACE}
            key = json.dumps([name, lever.actuator, place], sort_keys=True)
            if key in seen:
                yield (
                    ("services", index, "levers", name),
                    f"{service.name!r} and {seen[key][0]!r} move one and the same setting ({seen[key][1]}): each would "
                    "undo the other's changes; make them one service, or give each its own",
                )
            said = [f"{option} {place[option]}" for option in ("connection", "model", "target") if place[option]]
            seen.setdefault(key, (service.name, ", ".join(said)))
