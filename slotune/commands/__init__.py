"""The subcommands: one file each, sorted; each module's `register(app)` adds its own."""

from __future__ import annotations

from collections.abc import Callable

import typer

from slotune.commands import backtest, check, history, plan, quantize

COMMANDS: tuple[Callable[[typer.Typer], None], ...] = (
    backtest.register,
    check.register,
    history.register,
    plan.register,
    quantize.register,
)
