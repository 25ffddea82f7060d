"""The page inside Airflow, behind Airflow's own login: who may see the DAG tune_service may see the page.

A plugin's application is not protected by Airflow by itself, so the guard is asked on every route. Every process of
Airflow loads the plugin, and only the API server answers requests: the page is built with its first request.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Page:
    """An ASGI application that imports what it needs when it is first asked."""

    def __init__(self) -> None:
        self._app: Any = None
        self._lock = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._lock:
            if self._app is None:
                self._app = _build()
        await self._app(scope, receive, send)


def _build() -> Any:
    from airflow.api_fastapi.core_api.security import requires_access_dag

    from slotune.commands.serve import TOKEN, reading, with_token
    from slotune.web.app import create_app
    from slotune_airflow.runs import TUNE_DAG

    token = os.environ.get(TOKEN)
    return create_app(
        reading,
        may_read=[requires_access_dag("GET", param_dag_id=TUNE_DAG)],
        may_scrape=[with_token(token)] if token else None,
    )
