"""One sweep's care for many items, each for itself: what fails is named, counted, tried again and told.

Kept in the ledger's store between sweeps (`tuning.policies.trouble` decides when to try and when to tell); a person who
was told of a trouble is told as well when it is over.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import pydantic

from detection.errors import SlotuneError
from detection.model import make_id
from tuning.errors import LedgerUnavailable
from tuning.loop.parts import Parts
from tuning.loop.tell import tell_all
from tuning.model import OpenChange, Record
from tuning.policies import trouble
from tuning.policies.trouble import TROUBLE, Trouble
from tuning.report.notice_mail import notice_mail

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Care:
    """The items of one sweep at `at_s`; `end` tells people and keeps what is known for the next sweep."""

    def __init__(self, parts: Parts, at_s: float) -> None:
        self._parts, self._at_s = parts, at_s
        self._known = _stored(parts)
        self._had = bool(self._known)
        self._seen: set[str] = set()
        self._about: dict[str, OpenChange] = {}

    def item(self, key: str, what: str, work: Callable[[], T], *, about: OpenChange | None = None) -> T | None:
        """What `work` returns; None where it failed or rests after failures. Only a ledger that is down is raised:
        without it nobody can be looked after."""
        before = self._known.get(key)
        self._seen.add(key)
        if about is not None:
            self._about[key] = about
        if not trouble.due(before, self._at_s):
            return None
        try:
            done = work()
        except LedgerUnavailable:
            raise
        except Exception as error:
            level = logging.WARNING if isinstance(error, SlotuneError) else logging.ERROR
            _log.log(level, "could not look after %s: %s", what, error, exc_info=level == logging.ERROR)
            self.failed(key, what, str(error) or repr(error))
            return None
        self._well(key, what)
        return done

    def failed(self, key: str, what: str, reason: str, *, about: OpenChange | None = None) -> None:
        """An item that could not be looked after now, or that needs a person although nothing was raised."""
        self._seen.add(key)
        if about is not None:
            self._about[key] = about
        self._known[key] = trouble.again(self._known.get(key), key, what, reason[:2000], self._at_s)

    def told_of(self, key: str, what: str, trouble_in_words: str | None) -> None:
        """What a sweep has learned about an item: that something is wrong, in a sentence, or that nothing is (None)."""
        self._seen.add(key)
        if trouble_in_words is None:
            self._well(key, what)
        else:
            self.failed(key, what, trouble_in_words)

    def _well(self, key: str, what: str) -> None:
        over = self._known.pop(key, None)
        if over is not None and over.told_s is not None:
            minutes = max(self._at_s - over.since_s, 0.0) / 60
            lines = [f"{what} can be looked after again, after {minutes:.0f} minutes.", f"It was: {over.reason}"]
            mail_id = make_id(key, "over", over.since_s)
            service = _service_of(key)
            mail = notice_mail(
                mail_id, f"{what}: over", lines, self._at_s, event="loop_failure", service=service, tone="good"
            )
            tell_all(self._parts, replace(mail, about=key, over=True))

    def end(self, among: Sequence[str]) -> None:
        """Tell people what has to be told, and keep the rest; items of these prefixes that did not come up are gone."""
        for key, found in list(self._known.items()):
            if key not in self._seen and key.startswith(tuple(among)):
                del self._known[key]
            elif trouble.to_tell(found, self._at_s):
                self._known[key] = self._tell(found)
        body = [found.model_dump(mode="json") for found in self._known.values()]
        if body or self._had:
            self._parts.ledger.put_blob(TROUBLE, json.dumps(body).encode(), at_s=self._at_s)

    def _tell(self, found: Trouble) -> Trouble:
        change = self._about.get(found.key)
        lines = [
            f"slotune could not look after {found.what}: {found.reason}",
            f"It has failed {found.times} times. It is tried again by every sweep, with growing pauses.",
        ]
        if change is not None:
            moved = change.plan.chosen.text()
            lines.append(f"The change is {change.state}: {moved}. It may be in force, and it is not undone.")
            lines.append(f"By hand: set the old value; the next sweep sees that. slotune show {change.plan_id}")
        mail_id = make_id(found.key, found.since_s, found.tellings)
        service = change.service if change is not None else ""
        url = self._parts.incident_url(change.incident_id) if change is not None else self._parts.page
        title = f"could not look after {found.what}"
        mail = notice_mail(
            mail_id,
            title,
            lines,
            self._at_s,
            event="loop_failure",
            service=_service_of(found.key),
            urgent=True,
            tone="bad",
            url=url,
        )
        tell_all(self._parts, replace(mail, about=found.key))
        self._parts.ledger.put(
            Record(
                id=make_id("trouble", mail_id),
                kind="hold",
                service=service,
                parent_id=change.plan_id if change is not None else None,
                incident_id=change.incident_id if change is not None else None,
                at_s=self._at_s,
                body={"reason": f"could not look after {found.what}: {found.reason}", "times": found.times},
            )
        )
        return found.model_copy(update={"told_s": self._at_s, "tellings": found.tellings + 1})


def _service_of(key: str) -> str:
    """The service that a trouble is about; "" where its key names none. The same when it begins and when it is over."""
    kind, _, name = key.partition("/")
    return name if kind == "service" else ""


def _stored(parts: Parts) -> dict[str, Trouble]:
    """What earlier sweeps left; nothing where it cannot be read (it is noticed again)."""
    data = parts.ledger.get_blob(TROUBLE)
    try:
        found = [Trouble.model_validate(body, extra="ignore") for body in json.loads(data)] if data else []
    except (ValueError, TypeError, pydantic.ValidationError) as error:
        _log.warning("what earlier sweeps could not look after cannot be read and is noticed anew: %s", error)
        return {}
    return {one.key: one for one in found}
