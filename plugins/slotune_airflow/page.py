"""The page inside Airflow, behind Airflow's own login: who may see the DAG tune_service may see the page, and who may
change that DAG (pause it, say) may tell slotune something on it.

A plugin's application is not protected by Airflow by itself, so the guard is asked on every route. Every process of
Airflow loads the plugin, and only the API server answers requests: the page is built with its first request.
"""

from __future__ import annotations

import asyncio
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
        if self._app is None:
            # Importing takes a second, and the API server has other requests to answer meanwhile.
            await asyncio.to_thread(self._made)
        await self._app(scope, receive, send)

    def _made(self) -> None:
        with self._lock:
            if self._app is None:
                self._app = _build()


def _build() -> Any:
    from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
    from fastapi import Depends

    from slotune.commands.serve import TOKEN, reading, write
    from slotune.web.app import create_app
    from slotune.web.guards import with_token
    from slotune_airflow.runs import TUNE_DAG

    may_act = requires_access_dag("PUT", param_dag_id=TUNE_DAG)

    def who(user: Any, _allowed: None = Depends(may_act)) -> str:
        return str(user.get_name())

    # FastAPI reads annotations by name, and here it is local.
    who.__annotations__["user"] = GetUserDep
    token = os.environ.get(TOKEN)
    return create_app(
        reading,
        may_read=[requires_access_dag("GET", param_dag_id=TUNE_DAG)],
        write=write,
        who=who,
        may_scrape=[with_token(token)] if token else None,
        ahead=True,
    )
