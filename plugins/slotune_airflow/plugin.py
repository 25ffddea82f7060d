"""What Airflow sees of slotune as a plugin, from the installed package or from the plugins folder."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

from slotune_airflow import notes
from slotune_airflow.page import Page

PREFIX = "/slotune"


class SlotunePlugin(AirflowPlugin):
    name = "slotune"
    fastapi_apps: ClassVar[list[dict[str, Any]]] = [{"app": Page(), "url_prefix": PREFIX, "name": "slotune"}]
    listeners: ClassVar[list[Any]] = [notes]
    external_views: ClassVar[list[dict[str, Any]]] = [
        {"name": "slotune", "href": f"{PREFIX}/", "destination": "nav", "url_route": "slotune", "category": "browse"}
    ]
