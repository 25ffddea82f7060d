"""What actuators read from a service: its lever's options, checked, with a sentence when one is missing or wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import ValidationError

from detection.model import Lever, Service, make_id
from detection.outside_text import printable
from tuning.errors import ConfigError
from tuning.knobs import same
from tuning.model import Change, Knob, Receipt
from tuning.settings_base import Section

Options = TypeVar("Options", bound=Section)
TOLD_BY_THE_LOOP = frozenset({"drift", "control_timeout_s"})
"""What is added to a lever's options from elsewhere (the drift of the answers, safety.control_timeout)."""


def lever_of(service: Service, lever: str) -> Lever:
    """The service's lever of that name; ConfigError when it has none."""
    found = service.levers.get(lever)
    if found is None:
        raise ConfigError(f"service {service.name} has no lever {lever}", where=f"services.{service.name}.levers")
    return found


def of(service: Service, lever: str, cls: type[Options]) -> Options:
    """The lever's options as the actuator's own class (tuning.actuators.settings), which holds every default.

    ConfigError names the first option that is missing, unknown or wrong.
    """
    try:
        given = lever_of(service, lever).options
        return cls.model_validate({name: value for name, value in given.items() if name not in TOLD_BY_THE_LOOP})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            words = f"{name} is missing"
        elif first["type"] in ("too_short", "string_too_short"):
            words = f"{name} must not be empty"
        elif first["type"] == "extra_forbidden":
            words = f"{name} is no setting of this lever; known: {', '.join(sorted(cls.model_fields))}"
        else:
            words = f"{name} is not usable: {first['msg']} (found {bounded(repr(first['input']), 60)})"
        where = _where(service, lever, name) if name else f"services.{service.name}.levers.{lever}"
        raise ConfigError(words.removeprefix(" "), where=where) from error


def text(service: Service, lever: str, option: str, default: str | None = None) -> str:
    """A text option; ConfigError when it is missing (and has no default) or not a text."""
    value = lever_of(service, lever).options.get(option, default)
    if isinstance(value, str) and value:
        return value
    wrong = "is missing" if value is None else f"must be a text, not {value!r}"
    raise ConfigError(f"{option} {wrong}", where=_where(service, lever, option))


def number(service: Service, lever: str, option: str, default: float) -> float:
    """A number option; ConfigError when it is not a number of at least 0."""
    value = lever_of(service, lever).options.get(option, default)
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    raise ConfigError(f"{option} must be a number of at least 0, not {value!r}", where=_where(service, lever, option))


def receipt(
    service: Service,
    change: Change,
    key: str,
    *,
    before: dict[str, Knob],
    after: dict[str, Knob],
    changed: bool,
    at_s: float,
    took_s: float = 0.0,
    reason: str = "",
    evidence: dict[str, object] | None = None,
) -> Receipt:
    """The receipt of a change that the read-back has shown. Its id depends on the key and the change only."""
    return Receipt(
        id=make_id("receipt", key, service.name, change.lever, sorted(change.new.items())),
        plan_id=key.partition(":")[0],
        service=service.name,
        lever=change.lever,
        before=before,
        after=after,
        applied=True,
        changed=changed,
        at_s=at_s,
        took_s=took_s,
        reason=reason,
        evidence=evidence or {},
    )


def bounded(words: str, limit: int = 300) -> str:
    """Text from outside, on one line and of bounded length, with nothing that could move a cursor."""
    return printable(words, limit)


def agrees(current: Mapping[str, object], wanted: Mapping[str, object]) -> bool:
    """Whether `current` shows every wanted knob at its wanted value."""
    return all(name in current and same(current[name], value) for name, value in wanted.items())


def _where(service: Service, lever: str, option: str) -> str:
    return f"services.{service.name}.levers.{lever}.{option}"
