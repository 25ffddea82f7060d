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
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from detection.errors import ConfigError

if TYPE_CHECKING:
    from slotune.views.approvals import Waiting
    from slotune.web.actions import Attempt

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
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
    from fastapi import Depends

    from slotune.commands.serve import TOKEN, reading, take, write
    from slotune.web.app import create_app
    from slotune.web.guards import no_token, with_token
    from slotune_airflow.runs import TUNE_DAG

    may_act = requires_access_dag("PUT", param_dag_id=TUNE_DAG)

    def who(user: Any, _allowed: None = Depends(may_act)) -> str:
        return str(user.get_name())

    may_start = requires_access_dag("POST", DagAccessEntity.RUN, param_dag_id=TUNE_DAG)

    def starter(user: Any, _allowed: None = Depends(may_start)) -> str:
        return str(user.get_name())

    # FastAPI reads annotations by name, and here it is local.
    who.__annotations__["user"] = starter.__annotations__["user"] = GetUserDep
    token = os.environ.get(TOKEN)
    return create_app(
        reading,
        may_read=[requires_access_dag("GET", param_dag_id=TUNE_DAG)],
        write=write,
        who=who,
        may_scrape=[with_token(token)] if token else None,
        start=_start,
        starter=starter,
        answer=_answer,
        login=_login,
        ahead=True,
        take=take if token else None,
        may_alert=with_token(token) if token else no_token,
    )


def _start(asked: Attempt) -> str:
    """A run of tune_service as Airflow's own trigger button makes one; where it can be watched. ConfigError where
    Airflow does not take it."""
    from airflow.api.common.trigger_dag import trigger_dag
    from airflow.models.dag import DagModel
    from airflow.sdk.exceptions import AirflowException
    from airflow.utils.types import DagRunTriggeredByType

    from slotune_airflow.runs import TUNE_DAG

    conf = {"service": asked.service, "lever": asked.lever, "dry_run": asked.dry_run}
    note = f"{asked.who} asked for it on slotune's page. {asked.why}".strip()
    known = DagModel.get_current(TUNE_DAG)
    if known is None:
        raise ConfigError(f"Airflow does not know the DAG {TUNE_DAG} (yet)")
    if known.is_paused:
        raise ConfigError(f"the DAG {TUNE_DAG} is paused in Airflow: switch it on, then start again")
    try:
        run = trigger_dag(
            TUNE_DAG, triggered_by=DagRunTriggeredByType.UI, triggering_user_name=asked.who, conf=conf, note=note
        )
    except (AirflowException, ValueError) as error:
        raise ConfigError(f"Airflow did not start it: {error}") from error
    if run is None:
        raise ConfigError("Airflow did not start it, and did not say why")
    return f"{_base()}/dags/{TUNE_DAG}/runs/{quote(str(run.run_id), safe='')}"


def _answer(asked: Waiting) -> str:
    """Airflow's page for the request of this plan; "" where it is not there (any more)."""
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    from slotune_airflow.runs import TUNE_DAG

    open_requests = (
        select(TaskInstance.run_id, TaskInstance.task_id)
        .join(HITLDetail, HITLDetail.ti_id == TaskInstance.id)
        .where(TaskInstance.dag_id == TUNE_DAG, HITLDetail.responded_at.is_(None))
        .where(HITLDetail.body.contains(asked.plan_id, autoescape=True))
    )
    with create_session() as session:
        found = session.execute(open_requests).first()
    if found is None:
        return ""
    return f"{_base()}/dags/{TUNE_DAG}/runs/{quote(found[0], safe='')}/tasks/{quote(found[1])}/required_actions"


def _login(path: str) -> str:
    """Airflow's own login, which leads back: whoever follows a mail's link has often no session."""
    return f"{_base()}/api/v2/auth/login?next={quote(path, safe='')}"


def _base() -> str:
    """The path under which Airflow is served; "" at the top."""
    from airflow.configuration import conf

    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
