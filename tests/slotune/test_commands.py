"""The table of commands says what each module really registers."""

from __future__ import annotations

import importlib

import pytest
import typer

from slotune.cli import build_app
from slotune.commands import MODULES


def names_of(app) -> set[str]:
    return {c.name or c.callback.__name__ for c in app.registered_commands} | {
        group.typer_instance.info.name for group in app.registered_groups
    }


@pytest.mark.parametrize("module", sorted(set(MODULES.values())))
def test_a_module_registers_the_commands_that_the_table_names(module):
    app = typer.Typer()
    importlib.import_module(f"slotune.commands.{module}").register(app)
    names = names_of(app)
    assert names == {name for name, owner in MODULES.items() if owner == module}


def test_help_shows_them_all():
    assert names_of(build_app(["--help"])) == set(MODULES)
