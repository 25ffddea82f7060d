"""Who is at the keyboard, for the records of what a person said."""

from __future__ import annotations

import getpass
import os


def person() -> str:
    """The name of whoever types; a container often has none for its user."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return f"user {os.getuid()}"
