"""A database's complaint, and a row that cannot be read, as sentences for a person. Of the standard library only."""

from __future__ import annotations

import json
import logging
from typing import Any

from detection.outside_text import printable

_log = logging.getLogger(__name__)
_KNOWN = (
    (("database or disk is full", "no space left", "disk full", "disk i/o error"), "cannot be written: disk is full."),
    (("database is locked", "lock timeout", "deadlock", "could not obtain lock"), "is locked by another process."),
    (("readonly", "read-only"), "cannot be written: it is read-only for this user."),
    (("no such table", "undefinedtable", "does not exist"), "has no tables yet: start slotune once, it makes them."),
    (("unable to open database file",), "cannot be opened: does its folder exist, and may it be written?"),
    (("malformed", "not a database"), "is damaged: restore it from a backup."),
    (("append-only",), "refuses to change or delete a record."),
)


def body_of(text: str, name: str, service: str) -> dict[str, Any] | None:
    """A record's body; None, and a line in the log that names the record, where it is no JSON object."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        skipped("record", name, service, str(error))
        return None
    if not isinstance(body, dict):
        skipped("record", name, service, "its body is no JSON object")
        return None
    return body


def skipped(what: str, name: str, service: str, why: str) -> None:
    """Says which row was left out, and why: it never stops what reads the others."""
    told = (printable(text) for text in (name, service, why))
    _log.warning("the ledger's %s %s of %s cannot be read and is left out: %s", what, *told)


def sentence(text: str) -> str:
    """What is wrong and what to do. text: the driver's own words, without statement and parameters."""
    words = " ".join(text.split())
    lower = words.lower()
    for patterns, meaning in _KNOWN:
        if any(pattern in lower for pattern in patterns):
            return f"{meaning} ({words[:200]})"
    if "connect" in lower or "server" in lower:
        return f"cannot be reached: {words[:300]}"
    return f"failed: {words[:300]}"
