"""Where slotune's files are, by the environment: light, because reading the history must not pay for the whole loop.

Environment: SLOTUNE_CONFIG (path of services.yaml), SLOTUNE_HOME (folder of the default ledger), SLOTUNE_LEDGER_URL
(a database address such as postgresql+psycopg2://user:password@host/name).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def config_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Where services.yaml is: SLOTUNE_CONFIG, else ./services.yaml."""
    return Path(environment.get("SLOTUNE_CONFIG") or "services.yaml")


def ledger_url(environment: Mapping[str, str] = os.environ) -> str:
    """The ledger's address: SLOTUNE_LEDGER_URL, else an SQLite file below SLOTUNE_HOME (default ~/.slotune)."""
    url = environment.get("SLOTUNE_LEDGER_URL")
    if url:
        return url
    home = Path(environment.get("SLOTUNE_HOME") or Path.home() / ".slotune")
    return f"sqlite:///{(home / 'ledger.sqlite').absolute()}"
