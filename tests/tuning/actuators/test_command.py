"""command: no shell, secrets in the environment only, and an end to every program and what it started."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.fakes.actuators import FakeConnections, FakeTime, service
from tuning.actuators.command import Command
from tuning.actuators.settings.command import CommandOptions
from tuning.errors import ControlRefused, ControlUnreachable, OutcomeUnknown
from tuning.model import Change
from tuning.ports import Connection

UP = Change(lever="batch_size", old={"batch_size": 4}, new={"batch_size": 8})
SECRET = Connection(name="c", url="http://server:1", login="ann", password="hunter2")


def lever() -> Command:
    now = FakeTime()
    return Command(FakeConnections({"c": SECRET}), now.clock, now.sleep)


def python(code: str, *words: str) -> list[str]:
    return [sys.executable, "-S", "-c", code, *words]


def told(read: list[str], write: list[str], **options: object):
    at = {k: options.pop(k) for k in ("batch_size_at", "batch_timeout_at") if k in options}
    given = {"read": {"command": read, **at}, "write": {"command": write}, **options}
    return service("batch_size", "command", connection="c", **given)


def test_a_bare_number_is_a_batch_size_and_words_are_no_shell(tmp_path: Path):
    file = tmp_path / "rows"
    file.write_text("4\n")
    read = python("import sys; print(open(sys.argv[1]).read())", str(file))
    write = python("import sys; assert sys.argv[2] == '$(touch x); 8'; open(sys.argv[1], 'w').write('8')", str(file), "$(touch x); {batch_size}")
    ours = told(read, write)
    assert lever().read(ours).values == {"batch_size": 4}
    assert lever().apply(ours, UP, key="p:l").after == {"batch_size": 8}
    assert [f.name for f in tmp_path.iterdir()] == ["rows"]


def test_a_knob_that_is_not_to_be_changed_is_sent_as_it_is(tmp_path: Path):
    file = tmp_path / "knobs"
    file.write_text('{"rows": "4", "wait_us": 1500}')
    read = python("import sys; print(open(sys.argv[1]).read())", str(file))
    write = python(
        "import sys, json; json.dump({'rows': sys.argv[2], 'wait_us': int(sys.argv[3])}, open(sys.argv[1], 'w'))",
        str(file), "{batch_size}", "{batch_timeout}",
    )  # fmt: skip
    ours = told(read, write, batch_size_at="/rows", batch_timeout_at="/wait_us", batch_timeout_unit="us")
    lever().apply(ours, UP, key="p:l")
    assert file.read_text() == '{"rows": "8", "wait_us": 1500}'


def test_the_connection_is_in_the_environment_and_in_no_message(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLOTUNE_CONN_OTHER", "http://u:other-secret@x")
    code = "import os, sys; sys.exit(' '.join(f'{k}={v}' for k, v in sorted(os.environ.items()) if k.startswith('SLOTUNE')))"
    with pytest.raises(ControlRefused) as found:
        lever().read(told(python(code), python("", "{batch_size}")))
    said = str(found.value)
    assert "SLOTUNE_PASSWORD=*** SLOTUNE_URL=http://server:1 SLOTUNE_USER=ann" in said
    assert "hunter2" not in said and "other-secret" not in said


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        ("import sys; sys.exit(75)", ControlUnreachable, "cannot be done now"),
        ("import sys; sys.exit('no such model')", ControlRefused, "ended with status 1: no such model"),
        ("print('many')", ControlRefused, "not a number or JSON"),
        ("print(0)", ControlRefused, "shows no usable batch size"),
        ("print('9' * 5000)", ControlRefused, "shows no usable batch size"),
        ("print('{\"rows\": 4}')", ControlRefused, "shows no usable batch size"),
        ("print('\\x1b[31m' + '[' * 100000)", ControlRefused, "not a number or JSON"),
    ],
)
def test_what_a_program_says(code, error, said):
    with pytest.raises(error, match=said) as found:
        lever().read(told(python(code), python("", "{batch_size}")))
    assert "\x1b" not in str(found.value)


def test_no_program_is_unreachable_and_changes_nothing():
    with pytest.raises(ControlUnreachable, match="cannot be run: No such file"):
        lever().read(told(["/nowhere/tool"], ["/nowhere/tool", "{batch_size}"]))


def test_a_program_that_does_not_end_is_stopped_with_what_it_started(tmp_path: Path):
    mark = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(1.5); pathlib.Path({str(mark)!r}).touch()"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-S', '-c', {child!r}]); time.sleep(60)"
    ours = told(python("print(4)"), python(code, "{batch_size}"), request_timeout_s=0.5)
    with pytest.raises(OutcomeUnknown, match=r"did not end within 0\.5 s and was stopped"):
        lever().apply(ours, UP, key="p:l")
    time.sleep(2)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("read", "write", "said"),
    [
        ({"command": ["t", "{batch_size}"]}, {"command": ["t", "{batch_size}"]}, "no knobs to fill in"),
        ({"command": ["t"]}, {"command": ["t", "8"]}, "write sets no batch_size"),
        ({"command": ["t"]}, {"command": ["t", "{batch_size}", "{batch_timeout}"]}, "read does not show it"),
        ({"command": ["t"], "batch_timeout_at": "/t"}, {"command": ["t", "{batch_size}"]}, "write sets no batch_timeout"),
        ({"command": ["t"]}, {"command": ["t", "{batchsize}"]}, "write sets no batch_size"),
        ({"command": [" "]}, {"command": ["t", "{batch_size}"]}, "must be the program and its words"),
        ({"command": []}, {"command": ["t", "{batch_size}"]}, "at least 1"),
    ],
)
def test_commands_that_cannot_be_meant(read, write, said):
    with pytest.raises(ValidationError, match=said):
        CommandOptions.model_validate({"connection": "c", "read": read, "write": write})
