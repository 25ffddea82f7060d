"""What the sections of services.yaml share: closed, frozen, documented field by field; no address, no secret."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _bare_connection(value: str) -> str:
    if "://" in value or "@" in value:
        raise ValueError(
            "name a connection, not an address: addresses and secrets belong into an Airflow connection "
            "or the environment variable SLOTUNE_CONN_<NAME>"
        )
    return value


ConnectionName = Annotated[str, AfterValidator(_bare_connection), Field(min_length=1)]


class Section(BaseModel):
    """Base of every section: an unknown key is an error, and the docstring under a field is its documentation."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True, allow_inf_nan=False
    )
