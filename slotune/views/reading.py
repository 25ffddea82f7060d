"""What a view looks at: the ledger, the settings, and the time, all of them arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from detection.model import Service
from slotune.views.memory import Memory
from tuning.ledger.lines import Reader
from tuning.settings import Settings


@dataclass(frozen=True)
class Reading:
    """reader: the ledger's records and open changes. blob: its store, by key (None: nothing under that key).

    now_s: the time of the question, epoch seconds. settings: of services.yaml. memory: what earlier questions of this
    process have read; a process that asks once has none.
    """

    reader: Reader
    blob: Callable[[str], bytes | None]
    settings: Settings
    now_s: float
    memory: Memory = field(default_factory=Memory)

    @property
    def services(self) -> Mapping[str, Service]:
        values = self.settings.service_values
        return self.memory.of("services", self.settings, lambda: {service.name: service for service in values()})
