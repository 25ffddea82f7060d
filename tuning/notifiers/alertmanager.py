"""Alerts in Alertmanager, by its API v2: an open incident fires, a closed one is resolved.

API: https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml (POST /api/v2/alerts, GET /api/v2/status).
Alertmanager forgets what is not repeated, and a restart loses it: the open incidents are sent anew by every sweep
(`stand`), each with an end a few sweeps ahead, so that nothing fires for ever when slotune is gone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from detection.errors import ConfigError, Permanent, Temporary
from detection.http_access import Access, Address, address
from detection.http_border import Answer, HttpFailure, Limits, exchange, retry_after_s
from detection.outside_text import printable
from tuning.channel_settings import ChannelSettings
from tuning.mail import Mail
from tuning.ports import Connection, Connections

MOST_PER_REQUEST = 256
MOST_LETTERS = 1000
DAY_S = 86_400.0
"""How long a message without an end of its own is an alert."""
NAMES = {
    "incident": "SlotuneIncident",
    "change": "SlotuneChange",
    "verdict": "SlotuneVerdict",
    "hold": "SlotuneHold",
    "rollback": "SlotuneRollback",
    "approval": "SlotuneApproval",
    "loop_failure": "SlotuneLoopFailure",
    "review": "SlotuneReview",
}
SEVERITY = {"incident": "critical", "loop_failure": "critical", "approval": "warning", "rollback": "warning"}
"""By the event alone: an alert and its end have to have the same labels."""
_REFUSED = {
    401: "asks for a login: check the connection's login, password or token",
    403: "does not let slotune in",
    404: "has no API v2 at that address: check the connection's path",
    413: "takes no request of this size",
}


class AlertmanagerNotifier:
    """Raises Temporary where nobody answers or the server says later (429, 5xx), Permanent where it refuses."""

    def __init__(self, channel: ChannelSettings, connections: Connections) -> None:
        self.name = channel.name
        self._channel, self._connections = channel, connections

    def send(self, mail: Mail) -> None:
        self._post([alert(mail)])

    def stand(self, mails: Sequence[Mail]) -> None:
        """Everything that is true now, anew: open incidents fire, those that are over are resolved."""
        for start in range(0, len(mails), MOST_PER_REQUEST):
            self._post([alert(mail) for mail in mails[start : start + MOST_PER_REQUEST]])

    def probe(self) -> str:
        answer = self._ask("GET", "/api/v2/status", None)
        try:
            found = json.loads(answer.body)
            version = found["versionInfo"]["version"]
        except (ValueError, KeyError, TypeError):
            raise Permanent(f"{self._where} answers, and not as an Alertmanager: check the connection") from None
        return f"Alertmanager {printable(version, 40)} answers"

    def _post(self, alerts: Sequence[Mapping[str, object]]) -> None:
        if alerts:
            self._ask("POST", "/api/v2/alerts", json.dumps(list(alerts)).encode())

    @property
    def _where(self) -> str:
        return f"the Alertmanager of connection {self._channel.connection!r}"

    def _ask(self, method: str, path: str, body: bytes | None) -> Answer:
        at, access = self._place(self._connections.get(self._channel.connection or ""))
        headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if body is not None else {})
        limits = Limits(total_s=self._channel.timeout_s, body_bytes=1 << 20)
        try:
            answer = exchange(method, at, path, access=access, headers=headers, body=body, limits=limits)
        except HttpFailure as error:
            if error.kind in ("address", "tls"):
                raise Permanent(f"{self._where} cannot be asked ({error.kind}): check the connection") from error
            raise Temporary(f"{self._where} gives no usable answer ({error.kind})", delay_s=30) from error
        if 200 <= answer.status < 300:
            return answer
        if answer.status == 429 or answer.status >= 500:
            now_s = datetime.now(UTC).timestamp()
            delay_s = retry_after_s(answer.headers.get("retry-after"), default_s=30.0, now_s=now_s)
            raise Temporary(f"{self._where} answered {answer.status}", delay_s=delay_s)
        why = _REFUSED.get(answer.status, f"said: {printable(answer.body.decode('utf-8', 'replace'), 200)}")
        raise Permanent(f"{self._where} answered {answer.status}: it {why}")

    def _place(self, connection: Connection) -> tuple[Address, Access]:
        try:
            access = Access.of(connection.extra, connection.login, connection.password)
            return address(connection.url), access
        except ConfigError as error:
            raise ConfigError(f"the connection {connection.name!r}: {error}") from error


def alert(mail: Mail) -> dict[str, object]:
    """A message as a postable alert. Its labels stay the same while it lasts: Alertmanager knows an alert by them."""
    about = mail.about or mail.id
    named = {_label(name): value for name, value in mail.labels.items() if "." not in name}
    labels = named | {
        "alertname": NAMES[mail.event],
        "service": mail.service,
        "severity": "critical" if mail.event == "rollback" and mail.urgent else SEVERITY.get(mail.event, "info"),
        "about": about,
    }
    ends_s = mail.at_s if mail.over else mail.ends_s if mail.ends_s is not None else mail.at_s + DAY_S
    begun_s = min(mail.began_s if mail.began_s is not None else mail.at_s, ends_s)
    told: dict[str, object] = {
        "labels": {name: printable(value, MOST_LETTERS) for name, value in labels.items() if value},
        "annotations": {
            "summary": printable(mail.subject.removeprefix("[slotune] "), MOST_LETTERS),
            "description": printable(mail.brief or mail.text, MOST_LETTERS),
        },
        "startsAt": _time(begun_s),
        "endsAt": _time(ends_s),
    }
    return told | ({"generatorURL": mail.url} if mail.url else {})


def _label(name: str) -> str:
    word = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return word if not word[:1].isdigit() else f"_{word}"


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(min(max(at_s, 0.0), 253_370_764_800.0), UTC).isoformat().replace("+00:00", "Z")
