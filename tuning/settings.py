"""The settings of services.yaml: what each key means, its unit, its default, and what makes it wrong.

`tuning.services_yaml` reads the file and turns units ("100ms", "5m", "1%") into the plain numbers here; the
configuration reference in docs/ is generated from these classes, so every field says what it is for.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from detection.model import OwnPreset, Service
from detection.settings import DetectionSettings
from tuning.channel_settings import ChannelSettings, NotifySettings, channels_of
from tuning.cron import cron_problem
from tuning.guards.settings import SafetySettings
from tuning.notifiers.settings import MailSettings
from tuning.planning.settings import PlanningSettings
from tuning.preset_settings import PresetSettings
from tuning.release_settings import ReleaseSettings
from tuning.service_settings import ServiceSettings
from tuning.settings_base import ConnectionName, Section
from tuning.verification.settings import VerificationSettings


class PrometheusSettings(Section):
    """Where the metrics come from."""

    connection: ConnectionName = "slotune_prometheus"
    """Connection that holds the address and, where needed, login, token or TLS settings of Prometheus."""

    rate_window_s: float = Field(60.0, gt=0)
    """Window of every rate() in the queries; at least four scrape intervals."""

    step_s: float = Field(15.0, gt=0)
    """Resolution at which series are read; usually the scrape interval."""

    timeout_s: float = Field(10.0, gt=0)
    """How long one query may take before the source counts as unreachable."""


class ScheduleSettings(Section):
    """How often the DAGs run."""

    watch_every_s: float = Field(300.0, ge=5)
    """Interval of watch_services: pull metrics, detect, open incidents."""

    learn_every_s: float = Field(3600.0, ge=60)
    """Interval of learn_baselines."""

    review: str = "0 7 * * 1"
    """Cron expression of review_week (UTC)."""

    switched_on: bool = False
    """The DAGs are switched on as soon as Airflow sees them; otherwise Airflow's own rule says (paused, by default)."""

    @field_validator("review")
    @classmethod
    def _cron(cls, value: str) -> str:
        problem = cron_problem(value)
        if problem:
            raise ValueError(problem)
        return value


class Settings(Section):
    """The whole file."""

    prometheus: PrometheusSettings = PrometheusSettings()
    """Where the metrics come from."""

    mail: MailSettings = MailSettings()
    """Who reads the reports."""

    notify: NotifySettings = NotifySettings()
    """Who is told what, where and when."""

    schedule: ScheduleSettings = ScheduleSettings()
    """How often the DAGs run."""

    detection: DetectionSettings = DetectionSettings()
    """What counts as an anomaly."""

    planning: PlanningSettings = PlanningSettings()
    """How a lever is chosen."""

    verification: VerificationSettings = VerificationSettings()
    """How a change is judged."""

    releases: ReleaseSettings = ReleaseSettings()
    """How changes of version are watched."""

    safety: SafetySettings = SafetySettings()
    """What must never happen."""

    presets: tuple[PresetSettings, ...] = ()
    """Serving systems that slotune does not know, by their PromQL; ours are in docs/presets.md."""

    services: tuple[ServiceSettings, ...]
    """The services; at least one."""

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        if not self.services:
            raise ValueError("services must not be empty: there is nothing to look after")
        for what, named in (("services", self.services), ("presets", self.presets)):
            names = [one.name for one in named]
            if len(set(names)) != len(names):
                raise ValueError(f"two {what} have one name: give each its own")
        if len(self._build_queues()) > 1:
            raise ValueError(
                f"the services name different queues to build INT8 on ({', '.join(self._build_queues())}); they share "
                "the task quantize_int8, and a task runs on one queue"
            )
        return self

    def _build_queues(self) -> list[str]:
        levers = [service.levers.precision for service in self.services]
        return sorted({name for lever in levers if lever is not None and (name := lever.build.queue_name())})

    def build_queue(self) -> str | None:
        """The Airflow queue of the task quantize_int8; None: Airflow's default."""
        return next(iter(self._build_queues()), None)

    def completed(self) -> Self:
        """With prometheus.rate_window and verification.look where they are needed too and nothing else was said."""
        window_s, look_s = self.prometheus.rate_window_s, self.verification.look_s
        planning, verification = self.planning, self.verification
        told = planning.model_fields_set
        shared = {"rate_window_s": window_s, "verify_window_s": look_s}
        planning = planning.model_copy(update={k: v for k, v in shared.items() if k not in told})
        if "rate_window_s" not in verification.model_fields_set:
            verification = verification.model_copy(update={"rate_window_s": window_s})
        return self.model_copy(update={"planning": planning, "verification": verification})

    def channels(self) -> tuple[ChannelSettings, ...]:
        """Every channel that is in use, also those that nobody had to write down."""
        return channels_of(self.notify, self.mail.to)

    def service_values(self) -> tuple[Service, ...]:
        timeout_s, own = self.safety.control_timeout_s, self.own_presets()
        return tuple(s.to_service(control_timeout_s=timeout_s, presets_here=own) for s in self.services)

    def own_presets(self) -> dict[str, OwnPreset]:
        """The presets of this file, by name."""
        return {preset.name: preset.data() for preset in self.presets}
