"""A person who is asked for a yes: opens the mail's link in a real browser, logs in, reads, and approves."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from demo.browser import Browser, Page, find
from demo.mailbox import Mail
from demo.processes import DemoError

USER = PASSWORD = "admin"
LINK = re.compile(r"https?://[^\s<>\"]+/required_actions[^\s<>\"]*")
SLOW_S = 90.0
"""How long a page of a busy Airflow may take."""

_LOADS = 4
"""How often a person loads a page that stays empty."""


def link_of(mails: Sequence[Mail]) -> str | None:
    """Where the newest request for a yes leads; None while nobody was asked."""
    found = [match[0] for mail in mails if (match := LINK.search(mail.text))]
    return found[-1] if found else None


@dataclass
class Person:
    """`ask(link)` sends the person off, once; `answered_s` is when the yes was given, `error` why it was not.

    pictures: where screenshots of what the person saw are put (None: none are taken).
    """

    pictures: Path | None = None
    link: str = ""
    answered_s: float | None = None
    error: str | None = None
    read: str = ""
    _thread: threading.Thread | None = field(default=None, repr=False)

    @property
    def can_answer(self) -> bool:
        return find() is not None

    def ask(self, link: str) -> None:
        if self._thread is None:
            self.link = link
            self._thread = threading.Thread(target=self._answer, daemon=True)
            self._thread.start()

    def _answer(self) -> None:
        program = find()
        if program is None:
            self.error = "there is no Chromium on this machine"
            return
        try:
            with Browser(program) as browser:
                self._say_yes(browser.page(width=1400))
        except (DemoError, OSError, ValueError, KeyError) as error:
            self.error = str(error)

    def _arrive(self, page: Page) -> None:
        """Open the link; a page that stays empty (a script of it that a busy server did not send) is loaded again."""
        # !!: an element itself comes over the wire as an empty object, which counts as nothing.
        there = "!!document.querySelector('input[name=password]') || document.body.innerText.includes('Approve')"
        for left in reversed(range(_LOADS)):
            page.open(self.link, SLOW_S)
            try:
                page.wait(there, SLOW_S / _LOADS, "the login or the request")
                return
            except DemoError:
                if not left:
                    raise

    def _say_yes(self, page: Page) -> None:
        self._arrive(page)
        if page.value("!!document.querySelector('input[name=password]')"):
            page.write("input[name=username]", USER)
            page.write("input[name=password]", PASSWORD)
            page.click("Sign in")
        page.wait_for("Approve", SLOW_S)
        self.read = page.text()
        if self.pictures is not None:
            for width, dark in ((1400, False), (1400, True), (400, False)):
                page.look(width=width, dark=dark)
                time.sleep(1.0)
                page.picture(self.pictures / f"approval-{width}{'-dark' if dark else ''}.png")
            page.look(width=1400)
        page.click("Approve")
        page.wait("/response successful|Response received/.test(document.body.innerText)", SLOW_S, "the answer")
        self.answered_s = time.time()
