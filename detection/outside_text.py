"""Text that came from outside, made fit for a message, a log line, a mail or a terminal."""

from __future__ import annotations

import unicodedata

# Cc: control (ESC, CR, LF, C1), Cf: format (bidirectional overrides, zero width), Cs: lone surrogates, Zl/Zp: breaks
_HARMFUL = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


def printable(text: object, limit: int = 300) -> str:
    """One line of at most `limit` characters in which nothing moves a cursor, breaks a line or turns the direction.

    Runs of white space become one blank; what cannot be shown stands there as its escape (`\\x1b`, `\\u202e`), so that
    a reader sees that something was there.
    """
    # no more than this many characters can matter, whatever the length of what came
    words = " ".join(str(text)[: 4 * limit].split())
    if words.isprintable():  # most texts; what it calls printable has none of the harmful categories
        return words if len(words) <= limit else words[: limit - 1] + "…"
    line = "".join(c if unicodedata.category(c) not in _HARMFUL else _escaped(c) for c in words)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quoted(text: str) -> str:
    """A string of PromQL; whatever the text holds, it ends nothing."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'
