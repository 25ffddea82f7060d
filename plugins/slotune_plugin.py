"""What Airflow's plugins loader sees of slotune where this folder is the plugins folder."""

from __future__ import annotations

from slotune_airflow.plugin import SlotunePlugin

__all__ = ["SlotunePlugin"]
