"""What a view looks at: the ledger, the settings, and the time, all of them arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from detection.model import Service
from tuning.ledger.lines import Reader
from tuning.settings import Settings


@dataclass(frozen=True)
class Reading:
    """reader: the ledger's records and open changes. blob: its store, by key (None: nothing under that key).

    now_s: the time of the question, epoch seconds. settings: of services.yaml.
    """

    reader: Reader
    blob: Callable[[str], bytes | None]
    settings: Settings
    now_s: float

    @cached_property
    def services(self) -> Mapping[str, Service]:
        return {service.name: service for service in self.settings.service_values()}
