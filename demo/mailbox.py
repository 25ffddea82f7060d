"""A real SMTP server that keeps every mail: NNNN.eml as it came, NNNN.html as a browser can show it.

Also alone: `python -m demo.mailbox --folder mails --port 2525`.
"""

from __future__ import annotations

import argparse
import base64
import html
import re
import signal
import threading
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller

from demo.processes import LOOPBACK, free_port

_CID = re.compile(r"""cid:([^"'\s>)]+)""")


@dataclass(frozen=True)
class Mail:
    """One kept mail."""

    subject: str
    to: tuple[str, ...]
    eml: Path
    html: Path
    text: str


class Mailbox:
    """start(), `mails`, stop(). `refuse("451 4.3.0 try later")` makes it refuse; `refuse(None)` ends that."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        self.port = port or free_port()
        self._mails: list[Mail] = []
        self._lock = threading.Lock()
        self._refusal: str | None = None
        self._controller = Controller(self, hostname=LOOPBACK, port=self.port, data_size_limit=20 * 2**20)

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._controller.start()

    def stop(self) -> None:
        self._controller.stop(no_assert=True)

    def refuse(self, answer: str | None) -> None:
        self._refusal = answer

    @property
    def mails(self) -> tuple[Mail, ...]:
        with self._lock:
            return tuple(self._mails)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        if self._refusal is not None:
            return self._refusal
        content: bytes = envelope.content
        message = BytesParser(policy=default).parsebytes(content)
        assert isinstance(message, EmailMessage)
        with self._lock:
            stem = f"{len(list(self.folder.glob('*.eml'))) + 1:04d}"
            eml, page = self.folder / f"{stem}.eml", self.folder / f"{stem}.html"
            eml.write_bytes(content)
            page.write_text(as_page(message))
            text = message.get_body(("plain",))
            self._mails.append(Mail(
                str(message["Subject"] or "").strip(), tuple(envelope.rcpt_tos), eml, page,
                text.get_content() if text is not None else ""))  # fmt: skip
        return "250 2.0.0 kept"


def as_page(message: EmailMessage) -> str:
    """The mail's HTML with its inline pictures as data URIs; its plain text when there is no HTML."""
    body = message.get_body(("html",))
    if body is None:
        plain = message.get_body(("plain",))
        return f"<pre>{html.escape(plain.get_content() if plain is not None else '')}</pre>\n"
    pictures = {
        str(part["Content-ID"]).strip("<> "): part
        for part in message.walk()
        if part["Content-ID"] and not part.is_multipart()
    }

    def inline(match: re.Match[str]) -> str:
        part = pictures.get(match[1])
        if part is None:
            return match[0]
        data = base64.b64encode(bytes(part.get_payload(decode=True))).decode()
        return f"data:{part.get_content_type()};base64,{data}"

    return _CID.sub(inline, body.get_content())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.mailbox", description="An SMTP server that keeps every mail.")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    mailbox = Mailbox(args.folder, args.port)
    mailbox.start()
    print(f"smtp://{LOOPBACK}:{mailbox.port} -> {args.folder}", flush=True)
    stop.wait()
    mailbox.stop()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
