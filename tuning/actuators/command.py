"""Batch size and batch timeout of a server that a program on the worker can tell: a vendor's tool, a script, ssh.

No shell: a command is a list of words. The values stand in it as {batch_size} and {batch_timeout}; address, user and
password of the connection come as SLOTUNE_URL, SLOTUNE_USER and SLOTUNE_PASSWORD, so that no secret is on a command
line. Exit 0 is a yes, 75 (EX_TEMPFAIL) and no program "try again", anything else a no with the last line of its errors.

Options: settings.command.CommandOptions.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence

from detection.model import Service
from tuning.actuators import _answers as answers
from tuning.actuators import _options as options
from tuning.actuators import _request_template as templates
from tuning.actuators._http import LIMIT_BYTES, Unanswered
from tuning.actuators._knob_endpoints import READ_BACKS, check_owner, setting_of
from tuning.actuators._pointer_knobs import Where
from tuning.actuators._swap import Knobs, swap
from tuning.actuators.settings.command import CommandOptions
from tuning.errors import ControlRefused, ControlUnreachable
from tuning.model import Change, Receipt, Setting
from tuning.ports import Connection, Connections

TEMPORARY = 75
"""Exit status of "not now" (sysexits.h: EX_TEMPFAIL)."""


class Command:
    """The batch lever of whatever a program can tell."""

    name = "command"
    lever = "batch_size"

    def __init__(self, connections: Connections, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._connections = connections
        self._clock = clock
        self._sleep = sleep

    def read(self, service: Service) -> Setting:
        """What the read command prints. Raises ConfigError, ControlUnreachable, ControlRefused."""
        place = self._place(service)
        return setting_of({place.shown: place.read()}, self.lever)

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        """Run the write command unless the values stand there already, and read back. Errors as for KnobEndpoints."""
        started_s, place = self._clock(), self._place(service)
        before = {place.shown: place.read()}
        check_owner(service, change, before)
        made = swap({place.shown: place}, before, change.new, sleep=self._sleep, looks=READ_BACKS, undoes=change.undoes)
        at_s = self._clock()
        return options.receipt(
            service,
            change,
            key,
            before=dict(before[place.shown]),
            after=dict((before | made)[place.shown]),
            changed=bool(made),
            at_s=at_s,
            took_s=at_s - started_s,
            reason=f"{place.shown} changed" if made else "already there",
        )

    def _place(self, service: Service) -> _Program:
        given = options.of(service, self.lever, CommandOptions)
        return _Program(given, self._connections.get(given.connection))


class _Program:
    """The two commands of a lever, as `swap` needs them."""

    def __init__(self, given: CommandOptions, connection: Connection) -> None:
        self._given = given
        self._connection = connection
        self._where = Where(given.read.batch_size_at, given.read.batch_timeout_at, given.batch_timeout_unit)
        self.shown = options.bounded(given.write.command[0], 80)

    def read(self) -> Knobs:
        words = self._given.read.command
        try:
            document = answers.parse(self._run(words))
        except Unanswered as error:
            raise ControlUnreachable(str(error)) from error
        except answers.Unusable as error:
            raise ControlRefused(f"{words[0]} printed {error}, not a number or JSON") from error
        return self._where.knobs(document, options.bounded(words[0], 80))

    def send(self, wanted: Knobs) -> None:
        values = self._where.named(wanted)
        if self._where.batch_timeout is not None and "batch_timeout" not in values:
            # the command has a place for more than is to be changed: the rest stays what it is
            values = self._where.named(self.read() | wanted)
        self._run([str(templates.text(word, values)) for word in self._given.write.command])

    def _run(self, words: Sequence[str]) -> bytes:
        """What a command printed. ControlUnreachable: it did not begin, or said "not now"; Unanswered: no end."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(
                    list(words),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=errors,
                    env=self._environment(),
                    start_new_session=True,
                )
            except OSError as error:
                raise ControlUnreachable(f"{self.shown} cannot be run: {error.strerror}") from error
            try:
                status = process.wait(self._given.request_timeout_s)
            except subprocess.TimeoutExpired:
                _end(process)
                said = f"{self.shown} did not end within {self._given.request_timeout_s:g} s and was stopped"
                raise Unanswered(said) from None
            for file in (out, errors):
                file.seek(0)
            printed = out.read(LIMIT_BYTES)
            lines = [line for line in errors.read(LIMIT_BYTES).decode("utf-8", "replace").splitlines() if line.strip()]
        why = f": {options.bounded(self._hidden(lines[-1]))}" if lines else ""
        if status == TEMPORARY:
            raise ControlUnreachable(f"{self.shown} says that it cannot be done now{why}")
        if status:
            raise ControlRefused(f"{self.shown} ended with status {status}{why}")
        return printed

    def _environment(self) -> Mapping[str, str]:
        """This process's, with the connection, and without any other of slotune's or Airflow's secrets."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLOTUNE_", "AIRFLOW_", "AIRFLOW__"))}
        given = self._connection
        told = {"SLOTUNE_URL": given.url, "SLOTUNE_USER": given.login, "SLOTUNE_PASSWORD": given.password}
        return kept | {name: value for name, value in told.items() if value}

    def _hidden(self, line: str) -> str:
        secret = self._connection.password
        return line.replace(secret, "***") if secret else line


def _end(process: subprocess.Popen[bytes]) -> None:
    """The program and what it started: the whole group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
