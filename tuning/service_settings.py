"""The settings of one service: what it promises, what may be changed, and what it is fed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from detection import presets
from detection.model import InputSample, Lever, Mode, OwnPreset, OwnSignal, Service, ServiceKind, Slo
from tuning.actuators.settings import OPTIONS
from tuning.lever_settings import ASKED_FIRST, BaseLever, Levers
from tuning.preset_settings import OwnSignalSettings
from tuning.settings_base import Section

OwnOrQuery = Annotated[
    Annotated[str, Tag("promql")] | Annotated[OwnSignalSettings, Tag("OwnSignalSettings")],
    Discriminator(lambda value: "promql" if isinstance(value, str) else "OwnSignalSettings"),
]


NO_PROMISE = "no_promise"
"""The mistake of an SLO without a latency."""
_NO_PROMISE = "is missing (or ttft_p95, itl_p95, e2e_p95 of a language model, iteration of a training job)"
_PROMISES = ("p95", "ttft_p95", "itl_p95", "e2e_p95", "iteration")


class SloSettings(Section):
    """The promise that slotune keeps."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": [f"{name}{unit}"]} for name in _PROMISES for unit in ("", "_ms")]}
    )

    p95_ms: float | None = Field(None, gt=0, le=86_400_000)
    """P95 latency must stay under this. Give at least one of p95, ttft_p95, itl_p95 and e2e_p95."""

    ttft_p95_ms: float | None = Field(None, gt=0, le=86_400_000)
    """P95 of the time to the first token must stay under this (servers of language models)."""

    itl_p95_ms: float | None = Field(None, gt=0, le=86_400_000)
    """P95 of the time per output token must stay under this (servers of language models)."""

    e2e_p95_ms: float | None = Field(None, gt=0, le=86_400_000)
    """P95 of whole requests must stay under this, where `p95` speaks of something else."""

    iteration_ms: float | None = Field(None, gt=0, le=86_400_000)
    """The mean time of an iteration must stay under this (`kind: training` alone)."""

    for_s: float = Field(60.0, ge=0)
    """How long a latency may be broken before it is an incident."""

    ttft_p95_for_s: float | None = Field(None, ge=0)
    """The same for ttft_p95 alone; default: for."""

    itl_p95_for_s: float | None = Field(None, ge=0)
    """The same for itl_p95 alone; default: for."""

    e2e_p95_for_s: float | None = Field(None, ge=0)
    """The same for e2e_p95 alone; default: for."""

    error_rate: float = Field(0.01, ge=0, le=1)
    """Largest share of failed requests."""

    abort_rate: float = Field(0.05, ge=0, le=1)
    """Largest share of requests that are aborted, or end without an answer, where the server shows it."""

    accuracy_drop: float = Field(0.01, ge=0, le=1)
    """Largest loss of accuracy, where the service exports it."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if all(getattr(self, f"{name}_ms") is None for name in _PROMISES):
            raise PydanticCustomError(NO_PROMISE, _NO_PROMISE)
        return self


class InputSettings(Section):
    """A sample of what the service is fed, in files that this process can read: checked every hour (docs/data.md)."""

    sample: str = Field(min_length=1)
    """A CSV or Parquet file, or a folder of them; the newest day in it is checked."""

    reference: str = ""
    """What the inputs should be like, in the same form, over some days; default: the sample's own earlier days."""

    time_column: str = ""
    """The column with the time of a row (ISO 8601, or epoch seconds); default: the time of its file."""

    ignore: tuple[str, ...] = ()
    """Columns that are not looked at: ids, free text."""

    fresh_s: float = Field(86_400.0, gt=0)
    """How old the newest row may be."""


class ServiceSettings(Section):
    """One inference service, or one training job."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """Its name: in mails, task ids and the ledger."""

    serving: str = Field(min_length=1, max_length=100)
    """Serving system, which decides the queries: a preset of slotune, of a package, or of `presets` here."""

    kind: ServiceKind = "inference"
    """`training`: a training job, which is watched and has no lever (docs/training.md)."""

    selectors: dict[str, str] = Field(min_length=1)
    """Prometheus labels that single out its series."""

    slo: SloSettings
    """What it promises."""

    mode: Mode = "observe"
    """observe: plan and mail only. approve: ask a person in Airflow's UI. act: act."""

    levers: Levers = Levers()
    """What may be changed."""

    labels: dict[str, str] = {}
    """Free labels, and names of metrics for presets that let them be chosen."""

    signals: dict[str, OwnOrQuery] = {}
    """Signals by name: PromQL alone for a signal that the preset does not read (docs/presets.md), and with its class,
    unit and direction for a signal of your own (docs/signals.md)."""

    exporters: dict[str, dict[str, str]] = {}
    """What shows the machine, by its name (cadvisor, dcgm, node_exporter), each with the labels that single out this
    service's container, GPU or machine: docs/signals.md."""

    inputs: InputSettings | None = None
    """A sample of what the service is fed."""

    chain: tuple[str, ...] = ()
    """Signals of which each is thought to move the next ([gpu_util, queue_ms, p95_ms, conversion]): reports say how
    they went together around an incident."""

    cost_per_hour: float = Field(0.0, ge=0)
    """What one replica costs an hour, for the cost of 1,000 requests; default: that of levers.replicas."""

    def to_service(
        self, *, control_timeout_s: float | None = None, presets_here: Mapping[str, OwnPreset] | None = None
    ) -> Service:
        """As the rest of slotune knows it. control_timeout_s: the control calls of a change may not take longer.

        presets_here: those that services.yaml brings, by name.
        """
        own = (presets_here or {}).get(self.serving)
        watched = self.kind == "training"
        like = own.like if own is not None else self.serving
        levers = {}
        for name in ("batch_size", "replicas", "precision", "release", "variant", "admission", "breaker", "restart"):
            lever: BaseLever | None = getattr(self.levers, name)
            if lever is None or watched:
                continue
            actuator = str(getattr(lever, "actuator"))  # noqa: B009 - each subclass narrows it to its own literal
            options = lever.model_dump(mode="json", include=set(OPTIONS[actuator].model_fields))
            if options.get("knob", "") is None:
                reads = presets.REGISTRY[self.serving].signals if self.serving in presets.REGISTRY else {}
                options["knob"] = "max_num_seqs" if "running" in reads else "batch_size"
            if "model" in options and not options["model"]:
                options["model"] = self.name
            if control_timeout_s is not None:
                options["request_timeout_s"] = min(options["request_timeout_s"], control_timeout_s)
                options["control_timeout_s"] = control_timeout_s
            levers[name] = Lever(
                name=name,
                actuator=actuator,
                minimum=getattr(lever, "minimum", 0),
                maximum=getattr(lever, "maximum", 1),
                mode=lever.mode or ("approve" if name in ASKED_FIRST and self.mode == "act" else None),
                cost_per_hour=lever.cost_per_hour,
                cool_down_s=lever.cool_down_s,
                effect_delay_s=lever.effect_delay_s,
                options=options,
            )
        return Service(
            name=self.name,
            serving=self.serving,
            engine=presets.REGISTRY[like].engine if like in presets.REGISTRY else "dynamic_batching",
            edges_ms=dict(presets.REGISTRY[like].edges_ms) if like in presets.REGISTRY else {},
            kind=self.kind,
            selectors=self.selectors,
            slo=Slo(**self.slo.model_dump()),
            mode="observe" if watched else self.mode,
            levers=levers,
            labels=self.labels,
            queries={name: query for name, query in self.signals.items() if isinstance(query, str)},
            own_signals={
                name: OwnSignal.model_validate(own.model_dump())
                for name, own in self.signals.items()
                if not isinstance(own, str)
            },
            exporters=self.exporters,
            inputs=InputSample.model_validate(self.inputs.model_dump()) if self.inputs is not None else None,
            preset=own,
            cost_per_hour=self.cost_per_hour,
            chain=self.chain,
        )
