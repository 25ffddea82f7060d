"""A record as whoever lists or counts sees it. Of the standard library only: more would take longer than a query."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Line(Protocol):
    """What a listing needs of a record; tuning.model.Record is one."""

    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def phase(self) -> str: ...
    @property
    def service(self) -> str: ...
    @property
    def parent_id(self) -> str | None: ...
    @property
    def incident_id(self) -> str | None: ...
    @property
    def at_s(self) -> float: ...
    @property
    def body(self) -> Mapping[str, Any]: ...
