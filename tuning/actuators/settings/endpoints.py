"""What every lever over HTTP can be told: where the servers are, and requests that services.yaml writes."""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from tuning.actuators import _json_pointer as pointers
from tuning.actuators import _request_template as templates
from tuning.settings_base import ConnectionName, Section

MAX_TIMEOUT_S = 3600.0
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TO_CONNECTION = "credentials belong into the connection, which keeps them out of files and to its own hosts"
_OURS = "it follows from the address and the body"
_NOT_HERE = {
    **dict.fromkeys(("authorization", "cookie", "proxy-authorization", "x-api-key", "api-key"), _TO_CONNECTION),
    **dict.fromkeys(("host", "content-length", "transfer-encoding", "connection", "content-encoding"), _OURS),
}
"""Headers that services.yaml must not set, and why."""


class EndpointOptions(Section):
    """A server that is told over HTTP."""

    connection: ConnectionName
    """Connection of the control endpoint."""

    endpoints: tuple[str, ...] = ()
    """Further replicas, where each has its own endpoint: names of connections, or addresses on the same host."""

    request_timeout_s: float = Field(5.0, gt=0, le=MAX_TIMEOUT_S)
    """How long one control call may take, from the connection to the last byte."""


class HttpRequest(Section):
    """What every request that services.yaml writes has."""

    headers: dict[str, str] = {}
    """Further headers. Credentials belong into the connection."""

    @field_validator("path", check_fields=False)
    @classmethod
    def _is_path(cls, value: str) -> str:
        return templates.check_path(value)

    @field_validator("headers")
    @classmethod
    def _are_headers(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not _HEADER.fullmatch(name) or not text.isprintable() or not text.isascii():
                raise ValueError(f"{name!r} is no HTTP header with a printable value")
            if name.lower() in _NOT_HERE:
                raise ValueError(f"{name!r} must not stand here: {_NOT_HERE[name.lower()]}")
        return value

    @field_validator("body", check_fields=False)
    @classmethod
    def _is_json(cls, value: Any) -> Any:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError("holds something that JSON has no form for (a date? write it in quotes)") from error
        return value


class ReadOne(HttpRequest):
    """A request that shows what is in force; it must change nothing. place: what must not stand in it."""

    place: ClassVar[str]

    method: Literal["GET", "POST"] = "GET"
    """Its method."""

    path: str
    """Path below the connection's address."""

    body: Any = None
    """Body of a POST: any YAML, sent as JSON."""

    @field_validator(
        "batch_size_at",
        "batch_timeout_at",
        "version_at",
        "incarnation_at",
        "variant_at",
        "limit_at",
        check_fields=False,
    )
    @classmethod
    def _is_pointer(cls, value: str | None) -> str | None:
        return None if value is None else pointers.check(value)

    @model_validator(mode="after")
    def _as_it_is(self) -> Self:
        if templates.places(self.path) | templates.places(self.body):
            raise ValueError(
                f"the read request has nothing to fill in: write it without places such as {{{self.place}}}"
            )
        return self


class WriteOne(HttpRequest):
    """A request that brings one thing into force, so that sending it twice is sending it once. place: what is filled
    in. unnamed: what is wrong where it is nowhere ("" where it need not be)."""

    place: ClassVar[str]
    unnamed: ClassVar[str] = ""

    method: Literal["PUT", "POST", "PATCH"] = "POST"
    """Its method."""

    path: str

    body: Any = None

    @model_validator(mode="after")
    def _known_places(self) -> Self:
        found = templates.places(self.path) | templates.places(self.body)
        if unknown := found - {self.place}:
            raise ValueError(f"there is no place {{{min(unknown)}}}; known: {{{self.place}}}")
        if self.unnamed and self.place not in found:
            raise ValueError(f"{self.unnamed}: put {{{self.place}}} into its path or body")
        return self
