"""A rendered message: what a notifier sends. Mail clients get multipart/alternative with the pictures inline.

Whatever text from outside a report repeats, the message can be written and read: control characters, marks that turn
the direction of writing and lone surrogates stand there as their escapes, and a header is one line.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Literal

from detection.outside_text import printable

Event = Literal["incident", "change", "verdict", "hold", "rollback", "approval", "loop_failure", "review"]
"""What a message tells of; channels choose among them."""
Tone = Literal["good", "bad", "quiet"]
MAX_SUBJECT = 200
_TURNING = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_YEAR_9999_S = 253_370_764_800.0


@dataclass(frozen=True)
class Mail:
    """One message in three forms. images: PNG bytes by the name that the HTML uses as `cid:<name>`.

    event, service ("" for none in particular), urgent: what decides who is told, and when. brief: a few lines for
    chats (empty: the text). url: the page about it. about: the id of what it tells of; where a channel keeps state, a
    message about the same replaces the one before. ends_s: when what it tells is over by itself; over: it has ended.
    began_s: when what it tells of began (None: at_s). labels: of the service, for who sorts by them.
    """

    id: str
    subject: str
    html: str
    text: str
    at_s: float
    images: Mapping[str, bytes] = field(default_factory=dict)
    event: Event = "verdict"
    service: str = ""
    urgent: bool = False
    tone: Tone = "quiet"
    brief: str = ""
    url: str = ""
    about: str = ""
    began_s: float | None = None
    ends_s: float | None = None
    over: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)

    def to_email(self, *, sender: str, to: tuple[str, ...]) -> EmailMessage:
        """The message as sent. The Message-ID comes from the id, so a mail that is sent again is the same mail."""
        message = EmailMessage()
        message["Subject"] = printable(self.subject, MAX_SUBJECT)
        message["From"] = sender
        message["To"] = ", ".join(to)
        message["Date"] = format_datetime(datetime.fromtimestamp(_within_calendar(self.at_s), UTC))
        ours = f"{_word(self.id)}@{_word(sender.rpartition('@')[2]) or 'slotune.local'}"
        message["Message-ID"] = f"<slotune.{ours}>"
        message.set_content(readable(self.text))
        html = readable(self.html)
        for name in self.images:
            html = html.replace(f"cid:{name}", f"cid:{_word(name)}.{ours}")
        message.add_alternative(html, subtype="html")
        html_part = message.get_payload()[1]  # type: ignore[index]
        for name, png in self.images.items():
            html_part.add_related(  # type: ignore[union-attr]
                png,
                "image",
                "png",
                cid=f"<{_word(name)}.{ours}>",
                filename=f"{_word(name)}.png",
                disposition="inline",
            )
        return message


def readable(text: str) -> str:
    """Text of several lines that every mail client can show: what is harmful or cannot be encoded, as its escape."""
    return "".join(c if c in "\n\t" or _harmless(c) else _escaped(c) for c in text.replace("\r\n", "\n"))


def _harmless(character: str) -> bool:
    return unicodedata.category(character) not in ("Cc", "Cs") and character not in _TURNING


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _word(text: str) -> str:
    """An id as a part of a header: letters, digits, dot, dash and underscore."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)[:120]


def _within_calendar(at_s: float) -> float:
    return min(max(at_s, 0.0), _YEAR_9999_S) if at_s == at_s else 0.0
