"""The table of commands says what each module really registers."""

from __future__ import annotations

import importlib

import pytest
import typer

from slotune.cli import build_app
from slotune.commands import MODULES


@pytest.mark.parametrize("module", sorted(set(MODULES.values())))
def test_a_module_registers_the_commands_that_the_table_names(module):
    app = typer.Typer()
    importlib.import_module(f"slotune.commands.{module}").register(app)
    names = {c.name or c.callback.__name__ for c in app.registered_commands}
    assert names == {name for name, owner in MODULES.items() if owner == module}


def test_help_shows_them_all():
    commands = build_app(["--help"]).registered_commands
    assert {c.name or c.callback.__name__ for c in commands} == set(MODULES)
