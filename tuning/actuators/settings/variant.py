"""The levers of the variant that serves: the whole model, a smaller one, another engine."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

from pydantic import Field, field_validator

from tuning.actuators.settings.endpoints import MAX_TIMEOUT_S, EndpointOptions, ReadOne, WriteOne
from tuning.settings_base import Section


class Variant(Section):
    """One way of answering: the whole model, a smaller one, another engine, a cache."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """Its name, in plans and mails."""

    value: str = Field("", max_length=120, json_schema_extra={"type": ["string", "integer"]})
    """What the server, or the gateway, calls it: a version, an alias, a route; default: its name."""

    quality: float = Field(ge=0, le=1)
    """Share of right answers that was measured on held-back rows (accuracy, or agreement with the first one)."""

    service_time: float | None = Field(None, gt=0, le=100)
    """How long a batch takes, over what it takes with the first one (0.4); without it the variant is not chosen before
    it has served for a while in calm traffic, from which it is learned."""

    @field_validator("value", mode="before")
    @classmethod
    def _number_too(cls, value: object) -> object:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class VariantOptions(Section):
    """What every variant lever has."""

    variants: tuple[Variant, ...]
    """At least two, the best first: it is what serves normally, and what every switch leads back to."""

    quality_of: str = Field(min_length=1, max_length=120)
    """What `quality` is and where it was measured, for mails: "top-1 accuracy on 5,000 held-back rows"."""

    @field_validator("variants")
    @classmethod
    def _ordered(cls, value: tuple[Variant, ...]) -> tuple[Variant, ...]:
        if len(value) < 2:
            raise ValueError("needs at least two: first the one that serves normally, which is the way back")
        for what, told in (("name", [v.name for v in value]), ("value", [v.value or v.name for v in value])):
            twice = next((one for one in told if told.count(one) > 1), None)
            if twice is not None:
                raise ValueError(f"two variants have the {what} {twice}: nobody could tell which of them serves")
        for better, other in itertools.pairwise(value):
            if other.quality > better.quality:
                raise ValueError(
                    f"must be ordered by quality, the best first: {other.name} ({other.quality:.2%}) stands after "
                    f"{better.name} ({better.quality:.2%})"
                )
        if value[0].service_time not in (None, 1.0):
            raise ValueError(f"service_time is told against the first one: leave it out at {value[0].name}")
        for other in value[1:]:
            if other.service_time is not None and other.service_time >= 1:
                raise ValueError(
                    f"{other.name} takes {other.service_time:g} times as long as {value[0].name}: a variant that is no "
                    "faster relieves nothing"
                )
        return value


class ReadVariant(ReadOne):
    """The request that shows which variant serves; it must change nothing."""

    place: ClassVar[str] = "variant"

    variant_at: str
    """JSON pointer to the variant that serves in the answer, for example /served_version."""


class WriteVariant(WriteOne):
    """The request that switches to a variant, so that sending it twice is sending it once."""

    place: ClassVar[str] = "variant"
    unnamed: ClassVar[str] = "write names no variant, so that there is no way back"

    path: str
    """Path below the connection's address; may hold {variant}."""

    body: Any = None
    """Any YAML, sent as JSON; may hold "{variant}"."""


class HttpVariantOptions(VariantOptions, EndpointOptions):
    """http_variant: which variant serves, at the server or at a gateway, through requests that are written here."""

    read: ReadVariant
    """How the variant that serves is read."""

    write: WriteVariant
    """How another one is switched to."""

    load_timeout_s: float = Field(120.0, gt=0, le=MAX_TIMEOUT_S)
    """How long a switch may take (a model load)."""


class TritonVariantOptions(VariantOptions, EndpointOptions):
    """triton_variant: variants that are versions of one Triton model, through `version_policy`."""

    model: str = ""
    """The model's name at the server; default: the service's name."""

    load_timeout_s: float = Field(120.0, gt=0, le=MAX_TIMEOUT_S)
    """How long loading a version may take."""

    @field_validator("variants")
    @classmethod
    def _are_versions(cls, value: tuple[Variant, ...]) -> tuple[Variant, ...]:
        for variant in value:
            if not (variant.value or variant.name).isdigit():
                raise ValueError(f"{variant.name} needs the number of its version: value: 2")
        return value
