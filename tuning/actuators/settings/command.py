"""The lever of batch size and batch timeout through programs."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from tuning.actuators import _json_pointer as pointers
from tuning.actuators import _request_template as templates
from tuning.actuators.settings.batch_size import TimeoutBounds
from tuning.actuators.settings.endpoints import MAX_TIMEOUT_S
from tuning.settings_base import ConnectionName, Section


class ReadCommand(Section):
    """The program that shows what is in force; it must change nothing."""

    command: tuple[str, ...] = Field(min_length=1, max_length=100)
    """Its words, the first one the program; there is no shell."""

    batch_size_at: str = ""
    """JSON pointer to the batch size in what it prints; default: it prints that number and nothing else."""

    batch_timeout_at: str | None = None
    """JSON pointer to the batch timeout; without it the timeout is never changed."""

    @field_validator("command")
    @classmethod
    def _words(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _words_of(value)

    @field_validator("batch_size_at", "batch_timeout_at")
    @classmethod
    def _is_pointer(cls, value: str | None) -> str | None:
        return None if value is None else pointers.check(value)

    @model_validator(mode="after")
    def _as_it_is(self) -> Self:
        if _knobs_in(self.command):
            raise ValueError("the read command has no knobs to fill in: write it without places such as {batch_size}")
        return self


class WriteCommand(Section):
    """The program that sets the knobs to given values, so that running it twice is running it once."""

    command: tuple[str, ...] = Field(min_length=1, max_length=100)
    """Its words, the first one the program; may hold {batch_size} and {batch_timeout}. There is no shell."""

    @field_validator("command")
    @classmethod
    def _words(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _words_of(value)


class CommandOptions(TimeoutBounds):
    """command: batch size and batch timeout through a program that runs where the task runs."""

    connection: ConnectionName
    """Connection whose address, user and password the programs get as SLOTUNE_URL, SLOTUNE_USER, SLOTUNE_PASSWORD."""

    read: ReadCommand
    """How what is in force is read."""

    write: WriteCommand
    """How it is set."""

    batch_timeout_unit: Literal["us", "ms", "s"] = "ms"
    """The unit of the program's batch timeout."""

    request_timeout_s: float = Field(30.0, gt=0, le=MAX_TIMEOUT_S)
    """How long one run of a program may take; then it is stopped, with all that it started."""

    @model_validator(mode="after")
    def _every_knob_can_be_set(self) -> Self:
        places = _knobs_in(self.write.command)
        known = {"batch_size"} | ({"batch_timeout"} if self.read.batch_timeout_at is not None else set())
        if places - known:
            raise ValueError(f"write has the place {{{min(places - known)}}}, and read does not show it")
        if known - places:
            raise ValueError(f"write sets no {min(known - places)}: put {{{min(known - places)}}} into its command")
        return self


def _knobs_in(command: tuple[str, ...]) -> set[str]:
    """The knobs that a command has places for; other braces are the program's own."""
    return {place for word in command for place in templates.places(word)} & {"batch_size", "batch_timeout"}


def _words_of(command: tuple[str, ...]) -> tuple[str, ...]:
    if not command[0].strip() or any("\0" in word for word in command):
        raise ValueError('must be the program and its words, for example [/opt/tool, --batch, "{batch_size}"]')
    return command
