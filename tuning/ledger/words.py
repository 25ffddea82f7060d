"""A database's complaint as a sentence for a person."""

from __future__ import annotations

_KNOWN = (
    (("database or disk is full", "no space left", "disk full", "disk i/o error"), "cannot be written: disk is full."),
    (("database is locked", "lock timeout", "deadlock", "could not obtain lock"), "is locked by another process."),
    (("readonly", "read-only"), "cannot be written: it is read-only for this user."),
    (("no such table", "undefinedtable", "does not exist"), "has no tables yet: start slotune once, it makes them."),
    (("unable to open database file",), "cannot be opened: does its folder exist, and may it be written?"),
    (("malformed", "not a database"), "is damaged: restore it from a backup."),
    (("append-only",), "refuses to change or delete a record."),
)


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
