"""The wait between a change and the look at what it brought: holds no worker slot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

LEAST_WAIT_S = 10.0
"""A trigger that fires at once races with the deferral of its own task (Airflow 3.3: task marked as failed)."""


class UntilTrigger(BaseTrigger):
    """Fires once at an absolute time (epoch seconds): a restarted triggerer waits for what is left, not anew."""

    def __init__(self, until_s: float) -> None:
        super().__init__()
        self.until_s = until_s

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return ("slotune_airflow.triggers.UntilTrigger", {"until_s": self.until_s})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        left_s = self.until_s - datetime.now(UTC).timestamp()
        await asyncio.sleep(max(left_s, LEAST_WAIT_S))
        yield TriggerEvent({"until_s": self.until_s})
