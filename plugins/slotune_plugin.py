"""What Airflow's plugins loader sees of slotune where this folder is the plugins folder.

Where the package is installed its entry point is the plugin already, and Airflow would report the second one as an
error; then there is nothing here.
"""

from __future__ import annotations

from importlib.metadata import entry_points

if not any(entry.name == "slotune" for entry in entry_points(group="airflow.plugins")):
    from slotune_airflow.plugin import SlotunePlugin

    __all__ = ["SlotunePlugin"]
