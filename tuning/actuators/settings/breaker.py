"""The lever that takes routes out of service and back."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from tuning.actuators import _json_pointer as pointers
from tuning.actuators import _request_template as templates
from tuning.actuators.settings.endpoints import EndpointOptions, HttpRequest, ReadOne
from tuning.settings_base import Section

STATES = ("closed", "half_open", "open")
"""Where a circuit stands."""


class RouteStates(Section):
    """What the endpoint calls the states of a route: a weight, a word."""

    closed: str = Field("closed", min_length=1, max_length=120, json_schema_extra={"type": ["string", "integer"]})
    """It gets its share of the requests."""

    half_open: str = Field("half_open", min_length=1, max_length=120, json_schema_extra={"type": ["string", "integer"]})
    """It gets a few of them, to see: a small weight."""

    open: str = Field("open", min_length=1, max_length=120, json_schema_extra={"type": ["string", "integer"]})
    """It gets none."""

    @field_validator("closed", "half_open", "open", mode="before")
    @classmethod
    def _number_too(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @model_validator(mode="after")
    def _apart(self) -> Self:
        told = [self.called(state) for state in STATES]
        if len(set(told)) < len(told):
            raise ValueError(f"two states are called the same ({', '.join(told)}): nobody could tell them apart")
        return self

    def called(self, state: str) -> str:
        """What the endpoint calls a state."""
        found: str = getattr(self, state)
        return found


class Route(Section):
    """One way that requests go: a dependency, a replica, a version, a backend."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """Its name, in plans and mails."""

    value: str = Field("", max_length=120)
    """What the endpoint calls it; default: its name."""

    state_at: str
    """JSON pointer to its state in the answer of the read request, for example /routes/eu/weight."""

    capacity: float = Field(gt=0)
    """Requests per second that it carries: a route is taken out only where the others carry what comes."""

    failed: str = ""
    """The signal of this service (`signals:`) that shows the share of its requests that fail, 0 to 1."""

    max_failed: float = Field(0.5, gt=0, le=1)
    """Share of failed requests from which it is taken out."""

    p95: str = ""
    """The signal of this service (`signals:`) that shows its P95, in ms."""

    max_p95_ms: float | None = Field(None, gt=0)
    """P95 from which it is taken out."""

    @field_validator("state_at")
    @classmethod
    def _is_pointer(cls, value: str) -> str:
        return pointers.check(value)

    @model_validator(mode="after")
    def _seen(self) -> Self:
        if not (self.failed or self.p95):
            raise ValueError(f"{self.name} needs a signal of its own: failed or p95")
        if bool(self.p95) != (self.max_p95_ms is not None):
            raise ValueError(f"{self.name} needs both p95 (the signal) and max_p95 (its limit), or neither")
        return self


class ReadRoutes(ReadOne):
    """The request that shows where every route stands; it must change nothing."""

    place: ClassVar[str] = "route"


class WriteRoute(HttpRequest):
    """The request that sets one route's state, so that sending it twice is sending it once."""

    method: Literal["PUT", "POST", "PATCH"] = "PUT"
    """Its method."""

    path: str
    """Path below the connection's address; may hold {route} and {state}."""

    body: Any = None
    """Any YAML, sent as JSON; may hold "{route}" and "{state}" (a number where the state is called by one)."""

    @model_validator(mode="after")
    def _places(self) -> Self:
        found = templates.places(self.path) | templates.places(self.body)
        if unknown := found - {"route", "state"}:
            raise ValueError(f"there is no place {{{min(unknown)}}}; known: {{route}}, {{state}}")
        if missing := {"route", "state"} - found:
            raise ValueError(f"write names no {min(missing)}: put {{{min(missing)}}} into its path or body")
        return self


class HttpBreakerOptions(EndpointOptions):
    """http_breaker: whether routes get requests, at a gateway or a service, through requests that are written here."""

    routes: tuple[Route, ...]
    """At least two: what one of them does not get, the others carry."""

    states: RouteStates = RouteStates()
    """What the endpoint calls closed, half-open and open."""

    open_for_s: float = Field(60.0, gt=0, le=86_400)
    """How long a route gets nothing before it is probed; twice as long after each probe that failed."""

    open_max_s: float = Field(3600.0, gt=0, le=86_400)
    """The longest of these rests."""

    probe_for_s: float = Field(60.0, gt=0, le=86_400)
    """How long a probe has to go well, from when its signals show it."""

    read: ReadRoutes
    """How it is read where the routes stand."""

    write: WriteRoute
    """How a route's state is set."""

    @field_validator("routes")
    @classmethod
    def _apart(cls, value: tuple[Route, ...]) -> tuple[Route, ...]:
        if len(value) < 2:
            raise ValueError("needs at least two: without the only one nothing would be answered")
        for what, told in (("name", [r.name for r in value]), ("value", [r.value or r.name for r in value])):
            twice = next((one for one in told if told.count(one) > 1), None)
            if twice is not None:
                raise ValueError(f"two routes have the {what} {twice}")
        return value

    @model_validator(mode="after")
    def _rests(self) -> Self:
        if self.open_max_s < self.open_for_s:
            raise ValueError(f"open_max ({self.open_max_s:g} s) is shorter than open_for ({self.open_for_s:g} s)")
        return self
