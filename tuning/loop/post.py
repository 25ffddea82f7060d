"""What is to be told, kept in the ledger, and each channel's own queue of it.

A message is a record before anybody sends it. Every channel claims its own tries of it (`<message>:<channel>:try:<n>`)
and says when it is done (`<message>:<channel>:done`); with all of them done, the message is `<message>:sent`. So a
channel that is down holds up no other, and two processes never send one message twice on the same channel.
"""

from __future__ import annotations

import base64
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from detection.errors import Permanent, SlotuneError
from tuning.channel_settings import UNGROUPED, ChannelSettings, plain_channel
from tuning.errors import LedgerUnavailable
from tuning.loop.parts import Telling
from tuning.mail import Mail
from tuning.model import Record
from tuning.policies.delivery import Recent, Sending, Topic, Waiting, presses, sending, wants
from tuning.policies.outbox import Try
from tuning.ports import Notifier, Repeated
from tuning.query import Query
from tuning.report.group_mail import group_mail

_log = logging.getLogger(__name__)
MESSAGE = "message"
"""The kind of these records. They are no step of the flow: they tell of one."""
REPORT = "email_report"
NEWS_S = 7 * 86_400.0
"""So long a message is looked for; no channel tries one for longer."""
MOST_IN_GROUP = 500


@dataclass(frozen=True)
class Letter:
    """A message that is in the ledger: what decides who is told, its headline, and how it is laid out when needed."""

    id: str
    kind: str
    at_s: float
    topic: Topic
    subject: str
    url: str
    make: Callable[[], Mail]
    incident_id: str | None = None


def post(parts: Telling, mail: Mail, at_s: float) -> str:
    """Keep a message and try to send it; what came of it in words. Once per id, and nothing where nobody wants it.

    Never raises because of a channel or of what stands in the mail.
    """
    letter, problem = _letter(parts, mail, at_s), keep(parts, mail, at_s)
    if problem:
        return problem
    deliver(parts, letter, at_s, ())
    return "; ".join(f"{name}: {note}" for name, note in _notes(parts, mail.id).items()) or "kept, and sent later"


def keep(parts: Telling, mail: Mail, at_s: float) -> str:
    """Keep a message for the next time that messages are sent; "" when it was, else why it was not."""
    if not any(_takes(channel, notifier, topic(parts, mail)) for channel, notifier in channels(parts)):
        return "no channel asks for it"
    return "" if parts.ledger.put(_record(mail, at_s)) else "told before"


def _takes(channel: ChannelSettings, notifier: Notifier, about: Topic) -> bool:
    """Whether a channel has this in its queue: one that is told all open incidents anew needs no news of them."""
    return wants(channel, about) and not (about.event == "incident" and isinstance(notifier, Repeated))


def channels(parts: Telling) -> list[tuple[ChannelSettings, Notifier]]:
    """Every notifier with its channel's settings; a notifier that nothing is said about is told the usual."""
    known = {channel.name: channel for channel in parts.settings.channels()}
    return [(known.get(n.name) or plain_channel(n.name, "log"), n) for n in parts.notifiers]


def deliver(parts: Telling, letter: Letter, at_s: float, known: Sequence[Record]) -> bool:
    """Try every channel that wants this message; True when all are done with it. known: its records so far."""
    return _deliver(parts, [letter], at_s, {letter.id: known}) == 1


def flush(parts: Telling, letters: Sequence[Letter], at_s: float) -> int:
    """Try what waits on every channel; how many messages are settled now."""
    if not letters:
        return 0
    known: dict[str, list[Record]] = defaultdict(list)
    for record in parts.ledger.find(Query(parent_ids=tuple(letter.id for letter in letters))):
        known[record.parent_id or ""].append(record)
    return _deliver(parts, letters, at_s, known)


def waiting(parts: Telling, at_s: float) -> Sequence[Record]:
    """The records of all messages that are not settled, oldest first."""
    unsent = Query(kinds=(REPORT, MESSAGE), phase="intent", since_s=at_s - NEWS_S, without=("id", ":sent"))
    return parts.ledger.find(unsent)[::-1]


def letter_of(parts: Telling, record: Record) -> Letter | None:
    """A kept message; None, and a line in the log, where it cannot be read."""
    try:
        return _letter(parts, mail_of(record.body), record.at_s)
    except (TypeError, ValueError, KeyError) as error:
        _log.warning("message %s cannot be read and is left out: %r", record.id, error)
        return None


def topic(parts: Telling, mail: Mail) -> Topic:
    service = parts.services.get(mail.service)
    return Topic(mail.event, mail.service, service.labels if service is not None else {}, mail.urgent)


def _letter(parts: Telling, mail: Mail, kept_s: float) -> Letter:
    return Letter(mail.id, MESSAGE, kept_s, topic(parts, mail), mail.subject, mail.url, lambda: mail)


def _deliver(parts: Telling, letters: Sequence[Letter], at_s: float, known: Mapping[str, Sequence[Record]]) -> int:
    sent_s = {r.parent_id for rows in known.values() for r in rows if r.id == f"{r.parent_id}:sent"}
    left = {letter.id: letter for letter in letters if letter.id not in sent_s}
    open_on: dict[str, set[str]] = {letter_id: set() for letter_id in left}
    notes: dict[str, list[str]] = defaultdict(list)
    for channel, notifier in channels(parts):
        done = {str(r.parent_id): r for rows in known.values() for r in rows if r.id.endswith(f":{channel.name}:done")}
        mine = [letter for letter in left.values() if _takes(channel, notifier, letter.topic)]
        for letter in mine:
            if letter.id in done:
                notes[letter.id].append(f"{channel.name}: {done[letter.id].body.get('note', '')}")
            else:
                open_on[letter.id].add(channel.name)
        todo = [letter for letter in mine if letter.id not in done]
        for letter_id, note in _Channel(parts, channel, notifier, at_s).work(todo, known).items():
            open_on[letter_id].discard(channel.name)
            notes[letter_id].append(f"{channel.name}: {note}")
    settled = [letter_id for letter_id, names in open_on.items() if not names]
    for letter_id in settled:
        note = "; ".join(notes[letter_id]) or "no channel asks for it"
        parts.ledger.put(_result(left[letter_id], f"{letter_id}:sent", at_s, {"note": note}))
    return len(settled) + len(sent_s)


class _Channel:
    """One channel's turn: what it takes of the messages that wait, until it says "later"."""

    def __init__(self, parts: Telling, channel: ChannelSettings, notifier: Notifier, at_s: float) -> None:
        self._parts, self._channel, self._notifier, self._at_s = parts, channel, notifier, at_s
        self._done: dict[str, str] = {}
        self._down = False

    def work(self, letters: Sequence[Letter], known: Mapping[str, Sequence[Record]]) -> dict[str, str]:
        """The messages that this channel is done with now, and what came of each. Only a ledger that is down raises."""
        if not letters:
            return {}
        by_id = {letter.id: letter for letter in letters}
        queue = [
            Waiting(letter.id, letter.at_s, presses(self._channel, letter.topic), self._tries(known.get(letter.id, ())))
            for letter in letters
        ]
        plan = sending(self._channel, queue, self._recent(len(letters)), self._at_s)
        self._give_up([by_id[letter_id] for letter_id in plan.given_up], known)
        self._send(plan, by_id)
        return self._done

    def _send(self, plan: Sending, by_id: Mapping[str, Letter]) -> None:
        for letter_id, number in plan.singles:
            if self._down:
                return
            self._try([(by_id[letter_id], number)], by_id[letter_id].make)
        for start in range(0, len(plan.together), MOST_IN_GROUP):
            some = [(by_id[letter_id], number) for letter_id, number in plan.together[start : start + MOST_IN_GROUP]]
            if not self._down:
                self._try(some, lambda some=some: self._as_one([one for one, _ in some]), group=True)  # type: ignore[misc]

    def _as_one(self, letters: Sequence[Letter]) -> Mail:
        if len(letters) == 1:
            return letters[0].make()
        told = [(letter.subject, letter.topic.service, letter.url, letter.topic.urgent) for letter in letters]
        name = f"{letters[0].id}:{letters[-1].id}:{len(letters)}"
        return group_mail(name, told, self._at_s, url=self._parts.page)

    def _try(self, claimed: Sequence[tuple[Letter, int]], make: Callable[[], Mail], *, group: bool = False) -> None:
        ours = [(one, n) for one, n in claimed if self._put(one, f"try:{n}", {"try": n})]
        if not ours:
            return  # claimed at the same time by somebody else
        if len(ours) < len(claimed):
            first = ours[0][0]
            make = first.make if len(ours) == 1 else lambda: self._as_one([one for one, _ in ours])
        verdict, note = told(self._notifier, make)
        for one, n in ours:
            if verdict == "later":
                self._put(one, f"try:{n}:failed", {"failed": n, "reason": note})
            else:
                self._finish(one, note, given_up=verdict == "never", group=group)
        self._down = verdict == "later"

    def _finish(self, letter: Letter, note: str, *, given_up: bool = False, group: bool = False) -> None:
        body: dict[str, object] = {"done": True, "note": note, "given_up": given_up, "group": group}
        self._put(letter, "done", body)
        self._done[letter.id] = note

    def _give_up(self, letters: Iterable[Letter], known: Mapping[str, Sequence[Record]]) -> None:
        hours = self._channel.give_up_after_s / 3600
        for letter in letters:
            failed = [r for r in self._mine(known.get(letter.id, ())) if r.body.get("reason")]
            why = f": {max(failed, key=lambda r: r.at_s).body['reason']}" if failed else ""
            _log.error("%s: given up after %g hours: %s%s", self._channel.name, hours, letter.subject, why)
            self._finish(letter, f"given up after {hours:g} hours{why}", given_up=True)

    def _put(self, letter: Letter, what: str, body: dict[str, object]) -> bool:
        name = f"{letter.id}:{self._channel.name}:{what}"
        body = {"channel": self._channel.name, **body}
        return self._parts.ledger.put(_result(letter, name, self._at_s, body))

    def _mine(self, known: Iterable[Record]) -> list[Record]:
        return [record for record in known if record.body.get("channel") == self._channel.name]

    def _tries(self, known: Iterable[Record]) -> tuple[Try, ...]:
        """Every try so far: its number, when it began, and whether it is known to have failed."""
        mine = self._mine(known)
        failed = {r.body.get("failed") for r in mine}
        return tuple(Try(n, r.at_s, n in failed) for r in mine if isinstance(n := r.body.get("try"), int))

    def _recent(self, waiting: int) -> Recent:
        """What the channel was told lately; not asked where nothing could ever be grouped."""
        group = self._channel.group
        if group == UNGROUPED and waiting <= group.more_than:
            return Recent()
        since_s = self._at_s - group.within_s
        name = f'"channel":"{self._channel.name}"'
        found = Query(kinds=(REPORT, MESSAGE), phase="result", since_s=since_s, until_s=self._at_s, holding=name)
        done = [record for record in self._parts.ledger.find(found) if record.body.get("done")]
        groups = [record.at_s for record in done if record.body.get("group")]
        return Recent(sum(not r.body.get("given_up") for r in done), max(groups, default=None))


def told(notifier: Notifier, make: Callable[[], Mail]) -> tuple[str, str]:
    """Send one mail: ("sent" | "never" | "later", what came of it in words). Never raises."""
    try:
        notifier.send(make())
        return "sent", "sent"
    except LedgerUnavailable:
        raise
    except Permanent as error:
        _log.error("%s: %s", notifier.name, error)
        return "never", str(error)
    except SlotuneError as error:
        _log.warning("%s: %s; the message is kept and sent later", notifier.name, error)
        return "later", str(error)
    except Exception as error:  # one channel that breaks takes no other with it
        _log.exception("%s broke", notifier.name)
        return "never", f"broke: {error!r}"


def _notes(parts: Telling, message_id: str) -> dict[str, str]:
    rows = parts.ledger.find(Query(parent_ids=(message_id,)))
    found = {str(r.body["channel"]): r for r in reversed(rows) if "channel" in r.body}
    return {name: str(r.body.get("note") or r.body.get("reason") or "under way") for name, r in found.items()}


def _record(mail: Mail, at_s: float) -> Record:
    body = asdict(mail) | {"images": {k: base64.b64encode(png).decode() for k, png in mail.images.items()}}
    return Record(id=mail.id, kind=MESSAGE, phase="intent", service=mail.service, at_s=at_s, body=body)


def mail_of(body: Mapping[str, object]) -> Mail:
    """The mail of a message's record. Raises TypeError, ValueError or KeyError where it is none."""
    known = {name: value for name, value in body.items() if name in Mail.__dataclass_fields__}
    images = known.pop("images", None) or {}
    if not isinstance(images, Mapping):
        raise TypeError("its pictures are no mapping")
    pictures = {str(name): base64.b64decode(str(text)) for name, text in images.items()}
    return Mail(**known, images=pictures)  # type: ignore[arg-type]


def _result(letter: Letter, record_id: str, at_s: float, body: dict[str, object]) -> Record:
    return Record(
        id=record_id,
        kind=letter.kind,
        service=letter.topic.service,
        parent_id=letter.id,
        incident_id=letter.incident_id,
        at_s=at_s,
        body=body,
    )
