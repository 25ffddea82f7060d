"""The subcommands: one file each, sorted; each module's `register(app)` adds its own."""

from __future__ import annotations

from collections.abc import Callable

import typer

from slotune.commands import check

COMMANDS: tuple[Callable[[typer.Typer], None], ...] = (check.register,)
