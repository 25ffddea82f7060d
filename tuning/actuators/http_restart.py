"""One replica drained and started again by its own endpoint, as services.yaml writes the requests.

The read request shows which process answers (its start time, a boot id); the write request tells it to finish what it
has begun and start again. Made is the restart once another process answers there. Options:
settings.restart.HttpRestartOptions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from detection.errors import Temporary
from detection.model import Service, make_id
from detection.outside_text import printable
from tuning.actuators import _json_pointer as pointers
from tuning.actuators import _options as options
from tuning.actuators import _request_template as templates
from tuning.actuators import _restarts as restarts
from tuning.actuators._http import Http, Unanswered, connections_of
from tuning.actuators._restarts import GONE, LEVER, UP
from tuning.actuators.settings.restart import HttpRestartOptions
from tuning.errors import ControlRefused, NotApplied, OutcomeUnknown
from tuning.model import Change, Receipt, ReplicaSeen, Setting
from tuning.ports import Connections

LETTERS = 80
LOOK_EVERY_S = 0.5


@dataclass(frozen=True)
class _Seen:
    """One endpoint and the process that answers there."""

    http: Http
    incarnation: str


class HttpRestart:
    """The restart lever of servers that can end themselves."""

    name = "http_restart"
    lever = LEVER

    def __init__(self, connections: Connections, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._connections = connections
        self._clock = clock
        self._sleep = sleep

    def read(self, service: Service) -> Setting:
        """Every process that answers. Raises ControlUnreachable, ControlRefused: one that cannot be asked may be there
        or gone, so that nothing is said of any."""
        seen = self._all(service)
        knobs = {name: restarts.knob(name, one.incarnation) for name, one in seen.items()}
        return Setting(
            lever=self.lever,
            values=dict.fromkeys(knobs.values(), UP),
            absent=GONE,
            replicas=tuple(
                ReplicaSeen(name=name, knob=knobs[name], place=one.http.place) for name, one in seen.items()
            ),
            version=make_id(*sorted(knobs.values())),
        )

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        """End the process that `change.new` names, and wait until another answers in its place.

        Raises ControlUnreachable, ControlRefused (an unknown replica, no such call, too few others: nothing changed),
        NotApplied (it said yes and the same process goes on), OutcomeUnknown (nobody answers there any more).
        """
        if change.undoes:
            return restarts.nothing_to_undo(service, change, key, self._clock())
        started_s = self._clock()
        name, incarnation = restarts.target(change)
        seen = self._all(service)
        if name not in seen:
            raise ControlRefused(f"{service.name} has no replica {name}; it has {', '.join(seen)}")
        one, sent = seen[name], False
        now = one.incarnation
        if now == incarnation:
            restarts.check_others(service, name, len(seen) - 1)
            sent, now = True, self._restarted(service, one)
        at_s = self._clock()
        new = restarts.knob(name, now)
        return options.receipt(
            service,
            change,
            key,
            before={next(iter(change.new)): UP if sent else GONE},
            after=dict(change.new),
            changed=sent,
            at_s=at_s,
            took_s=at_s - started_s,
            reason=f"{new} answers in its place" if sent else f"it has ended already, {new} answers there",
            evidence={"replica": name, "answers": new},
        )

    def _restarted(self, service: Service, one: _Seen) -> str:
        """Tell it, and look until another process answers; that one's incarnation."""
        given = options.of(service, self.lever, HttpRestartOptions)
        write, values = given.write, {"incarnation": one.incarnation}
        body = None if write.body is None else templates.body(write.body, values)
        lost: Unanswered | None = None
        try:
            one.http.call(write.method, templates.path(write.path, values), body, headers=write.headers)
        except Unanswered as error:
            lost = error  # it may have ended before it could answer
        until_s, last = self._clock() + given.restart_timeout_s, ""
        while self._clock() < until_s:
            self._sleep(LOOK_EVERY_S)
            try:
                now = self._incarnation(given, one.http)
            except (Temporary, ControlRefused) as error:
                last = str(error)
                continue
            if now != one.incarnation:
                return now
            last = ""
        if last or lost is not None:
            said = last or f"{lost}; the same process goes on, and may still end"
            raise OutcomeUnknown(f"{one.http.shown} was told to restart {given.restart_timeout_s:g} s ago: {said}")
        raise NotApplied(
            f"{one.http.shown} was told to restart, and after {given.restart_timeout_s:g} s the same process answers"
        )

    def _all(self, service: Service) -> dict[str, _Seen]:
        given = options.of(service, self.lever, HttpRestartOptions)
        found = connections_of(self._connections, given.connection, given.endpoints)
        https = {_plain(name): Http(one, timeout_s=given.request_timeout_s) for name, one in found.items()}
        return {name: _Seen(http, self._incarnation(given, http)) for name, http in https.items()}

    @staticmethod
    def _incarnation(given: HttpRestartOptions, http: Http) -> str:
        read = given.read
        document = http.call(read.method, read.path, read.body, reading=True, headers=read.headers)
        at = f"{read.method} {http.shown}{read.path}"
        try:
            found = pointers.find(document, pointers.steps(read.incarnation_at))
        except pointers.NoSuchPlace as error:
            raise ControlRefused(f"{at}: in the answer {error}") from error
        usable = isinstance(found, int | float | str) and not isinstance(found, bool)
        text = printable(str(found), LETTERS + 1) if usable else ""
        if not text or len(text) > LETTERS or "@" in text:
            shown = options.bounded(repr(found), 60)
            raise ControlRefused(f"{at} shows nothing usable at {read.incarnation_at or 'its top'} ({shown})")
        return text


def _plain(name: str) -> str:
    """An endpoint that is written as an address, without its scheme."""
    return name.removeprefix("http://").removeprefix("https://").rstrip("/")
