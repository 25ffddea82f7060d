"""A rendered message: what a notifier sends. Mail clients get multipart/alternative with the pictures inline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime


@dataclass(frozen=True)
class Mail:
    """One message in three forms. images: PNG bytes by the name that the HTML uses as `cid:<name>`."""

    id: str
    subject: str
    html: str
    text: str
    at_s: float
    images: Mapping[str, bytes] = field(default_factory=dict)

    def to_email(self, *, sender: str, to: tuple[str, ...]) -> EmailMessage:
        """The message as sent. The Message-ID comes from the id, so a mail that is sent again is the same mail."""
        message = EmailMessage()
        message["Subject"] = self.subject
        message["From"] = sender
        message["To"] = ", ".join(to)
        message["Date"] = format_datetime(datetime.fromtimestamp(self.at_s, UTC))
        domain = sender.rpartition("@")[2] or "slotune.local"
        message["Message-ID"] = f"<slotune.{self.id}@{domain}>"
        message.set_content(self.text)
        html = self.html
        for name in self.images:
            html = html.replace(f"cid:{name}", f"cid:{name}.{self.id}@{domain}")
        message.add_alternative(html, subtype="html")
        html_part = message.get_payload()[1]  # type: ignore[index]
        for name, png in self.images.items():
            html_part.add_related(  # type: ignore[union-attr]
                png,
                "image",
                "png",
                cid=f"<{name}.{self.id}@{domain}>",
                filename=f"{name}.png",
                disposition="inline",
            )
        return message
