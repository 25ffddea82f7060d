"""Put into every process of the campaign's Airflow (airflow_local_settings.py): says each step before it is made.

A step is told to the campaign over HTTP and waits for the answer: whoever is to be killed at this very step is dead
before it goes on. Airflow and slotune run unchanged; only the loop's parts are wrapped where a task body gets them.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import requests

from detection.model import Service
from tests.faults.campaign import SteppedLedger
from tuning.loop.parts import Parts
from tuning.mail import Mail
from tuning.model import Change, Receipt, Setting
from tuning.ports import Actuator, Notifier

URL = "SLOTUNE_FAULTS_URL"
BODIES = (
    "pull_metrics",
    "detect_anomalies",
    "open_incidents",
    "choose_action",
    "approved",
    "pull_lever",
    "hold",
    "look_until_s",
    "verify_p95",
    "keep",
    "roll_back",
    "rolled_back",
    "email_report",
)


def install() -> None:
    """Wrap the task bodies of slotune_airflow.steps; nothing happens outside of the campaign."""
    if not os.environ.get(URL):
        return
    from slotune_airflow import steps

    steps.parts = _stepped_parts(steps.parts)
    for name in BODIES:
        setattr(steps, name, _stepped_body(name, getattr(steps, name)))


_WHERE = {"body": ""}
"""The body that this task process is in: a process runs one task."""


def _stepped_body(name: str, body: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(body)
    def stepped(context: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        _WHERE["body"] = name
        say = sayer(context)
        say("begin")
        result = body(context, *args, **kwargs)
        say("end")
        return result

    return stepped


def _stepped_parts(make: Callable[..., Parts]) -> Callable[..., Parts]:
    @wraps(make)
    def stepped(context: Mapping[str, Any]) -> Parts:
        parts, say = make(context), sayer(context)
        ledger: Any = SteppedLedger(parts.ledger, say)  # type: ignore[arg-type]
        return dataclasses.replace(
            parts,
            ledger=ledger,
            actuator=lambda service, lever: SteppedActuator(parts.actuator(service, lever), say),
            notifiers=[SteppedNotifier(notifier, say) for notifier in parts.notifiers],
        )

    return stepped


def sayer(context: Mapping[str, Any]) -> Callable[[str], None]:
    ti, url = context["ti"], os.environ[URL]
    known = {"dag": ti.dag_id, "run": ti.run_id, "task": ti.task_id, "try": ti.try_number, "pid": os.getpid()}

    def say(step: str) -> None:
        requests.post(f"{url}/step", json={**known, "body": _WHERE["body"], "step": step}, timeout=60)

    return say


class SteppedActuator:
    """Says what it is about to do, and that it is done."""

    def __init__(self, actuator: Actuator, say: Callable[[str], None]) -> None:
        self._actuator, self._say = actuator, say
        self.name, self.lever = actuator.name, actuator.lever

    def read(self, service: Service) -> Setting:
        self._say("read")
        return self._actuator.read(service)

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        self._say("before apply")
        receipt = self._actuator.apply(service, change, key=key)
        self._say("after apply")
        return receipt


class SteppedNotifier:
    def __init__(self, notifier: Notifier, say: Callable[[str], None]) -> None:
        self._notifier, self._say, self.name = notifier, say, notifier.name

    def send(self, mail: Mail) -> None:
        if self.name == "smtp":
            self._say("before mail")
        self._notifier.send(mail)
        if self.name == "smtp":
            self._say("after mail")
