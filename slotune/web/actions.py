"""What a person can tell slotune on the page. Each action is an order in the ledger: who, what, when, why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from detection.errors import ConfigError
from slotune.views import approvals, incidents
from slotune.views.reading import Reading
from tuning.orders import Order, What, order

LET_IT_CHOOSE = "let it choose"
MOST_BYTES = 10_000
MOST_WORDS = 500
PAUSE_S = {"1h": 3600.0, "8h": 8 * 3600.0, "1d": 86_400.0, "7d": 7 * 86_400.0, "": None}


@dataclass(frozen=True)
class Attempt:
    """A run of tune_service that a person asks for. lever: LET_IT_CHOOSE or one of the service's."""

    service: str
    lever: str
    dry_run: bool
    who: str
    why: str


def form(body: bytes) -> dict[str, str]:
    """The fields of a posted form, one value each. ConfigError for one that is too large or no form."""
    if len(body) > MOST_BYTES:
        raise ConfigError(f"the form is larger than {MOST_BYTES} bytes")
    try:
        found = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=20)
    except ValueError as error:
        raise ConfigError("what was sent is no form") from error
    return {name: values[0] for name, values in found.items()}


def asked(reading: Reading, fields: Mapping[str, str], who: str) -> Order:
    """The order that a form means. ConfigError with a sentence where it means none."""
    what = fields.get("what", "")
    makers = {"pause": _pause, "resume": _resume, "hand_back": _hand_back, "label": _label,
              "approve": _answer, "reject": _answer}  # fmt: skip
    if what not in makers:
        raise ConfigError(f"there is no action {what!r}; known: {', '.join(makers)}")
    why = fields.get("why", "").strip()[:MOST_WORDS]
    return makers[what](reading, {**fields, "what": what}, who, why)


def attempt(reading: Reading, fields: Mapping[str, str], who: str) -> Attempt:
    """The attempt that a form asks for. ConfigError with a sentence where it asks for none."""
    name, lever = _about(reading, {**fields, "lever": fields.get("lever", "").removeprefix(LET_IT_CHOOSE)})
    if not name:
        raise ConfigError("no service is named")
    why = fields.get("why", "").strip()[:MOST_WORDS]
    return Attempt(name, lever or LET_IT_CHOOSE, fields.get("dry_run", "") == "yes", who, why)


def _about(reading: Reading, fields: Mapping[str, str]) -> tuple[str, str]:
    name, lever = fields.get("service", ""), fields.get("lever", "")
    service = reading.services.get(name)
    if name and service is None:
        raise ConfigError(f"no service is called {name!r}")
    if lever and (service is None or lever not in service.levers):
        raise ConfigError(f"{name or 'the fleet'} has no lever {lever!r}")
    return name, lever


def _pause(reading: Reading, fields: Mapping[str, str], who: str, why: str) -> Order:
    name, lever = _about(reading, fields)
    length, direction = fields.get("for", ""), fields.get("direction", "both")
    if length not in PAUSE_S:
        raise ConfigError(f"a pause lasts {', '.join(filter(None, PAUSE_S))} or until it is resumed, not {length!r}")
    if direction not in ("both", "up", "down"):
        raise ConfigError(f"a pause forbids up, down or both, not {direction!r}")
    if not why:
        raise ConfigError("say why: the next person wants to know")
    seconds = PAUSE_S[length]
    until_s = None if seconds is None else reading.now_s + seconds
    return order("pause", who, reading.now_s, service=name, lever=lever, direction=direction, why=why, until_s=until_s)


def _resume(reading: Reading, fields: Mapping[str, str], who: str, why: str) -> Order:
    name, lever = _about(reading, fields)
    return order("resume", who, reading.now_s, service=name, lever=lever, why=why)


def _hand_back(reading: Reading, fields: Mapping[str, str], who: str, why: str) -> Order:
    plan_id = fields.get("plan", "")
    for line in reading.reader.open_lines():
        if line.plan_id == plan_id and line.state == "leased":
            return order("hand_back", who, reading.now_s, service=line.service, about=plan_id, why=why)
    raise ConfigError("that change is not on lease (any more): only a temporary change can be handed back")


def _answer(reading: Reading, fields: Mapping[str, str], who: str, why: str) -> Order:
    plan_id = fields.get("plan", "")
    for row in approvals.waiting(reading):
        if row.plan_id == plan_id and row.here:
            what: What = "approve" if fields["what"] == "approve" else "reject"
            return order(what, who, reading.now_s, service=row.service, about=plan_id, why=why)
    raise ConfigError("that plan waits for no answer here: it was answered, its time is over, or Airflow asks")


def _label(reading: Reading, fields: Mapping[str, str], who: str, why: str) -> Order:
    incident_id, label = fields.get("incident", ""), fields.get("label", "")
    page = incidents.page(reading, incident_id)
    if page is None:
        raise ConfigError(f"the ledger holds no incident {incident_id!r}")
    if label not in ("real", "not_real"):
        raise ConfigError(f"an incident was real or not_real, not {label!r}")
    return order("label", who, reading.now_s, service=page.row.service, about=incident_id, label=label, why=why)
