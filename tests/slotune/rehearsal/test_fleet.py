"""Many services, each by itself: the same as alone, kept, told where they meet, and one that fails is named."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from detection.errors import ConfigError
from detection.model import Span
from slotune.rehearsal.counterfactual import History
from slotune.rehearsal.fleet import Held, Rehearsing
from slotune.rehearsal.history import save
from slotune.rehearsal.kept import Folder
from slotune.rehearsal.study import study
from tests.slotune.rehearsal.test_study import SERVICES, overloaded
from tests.slotune.rehearsal.worlds import STEP_S, history
from tuning.services_yaml import loads

NAMES = ("one", "three", "two")


def _text(*, at_once: int = 3) -> str:
    head, each = SERVICES[: SERVICES.index("  - name")], SERVICES[SERVICES.index("  - name") :]
    head = head.replace("cool_down: 0s", f"cool_down: 0s, services_at_once: {at_once}")
    return head + "".join(each.replace("ranker", name) for name in NAMES)


def settings(*, at_once: int = 3):
    return loads(_text(at_once=at_once))


def named(name: str, of: History) -> History:
    return replace(of, window=replace(of.window, service=name))


class Shelf:
    """Histories, and how often each was read."""

    def __init__(self, **found: History) -> None:
        self.found = {name: named(name, one) for name, one in found.items()}
        self.read: list[str] = []

    def held(self) -> dict[str, Held]:
        def load(name: str) -> History:
            self.read.append(name)
            return self.found[name]

        return {name: Held(name, lambda name=name: load(name)) for name in self.found}


def run(shelf: Shelf, folder, said: list[str], *, at_once: int = 3, jobs: int = 1):
    rehearsing = Rehearsing(settings(at_once=at_once), shelf.held(), "x", Folder(folder), jobs, said.append)
    return rehearsing.run(lambda _share: None)


@pytest.fixture(scope="module")
def shelf():
    return Shelf(one=overloaded(), two=history(), three=overloaded())


def test_each_service_is_what_it_is_alone_and_nothing_is_worked_out_twice(shelf, tmp_path):
    said: list[str] = []
    found = run(shelf, tmp_path, said)
    assert [one.service for one in found.services] == list(NAMES) and said == []
    only = settings().model_copy(update={"services": [s for s in settings().services if s.name == "one"]})
    alone = study(only, {"one": shelf.found["one"]}, "x", lambda _share: None).rehearsal
    assert found.services[0].incidents == alone.services[0].incidents
    assert found.services[0].rivals == alone.services[0].rivals
    shelf.read.clear()
    again = run(shelf, tmp_path, said)
    assert shelf.read == [] and "3 of 3 were worked out before" in said[0]
    assert again.services[0].incidents == found.services[0].incidents
    np.testing.assert_array_equal(again.services[0].curves.rehearsed_ms, found.services[0].curves.rehearsed_ms)


def test_a_run_that_was_stopped_goes_on_where_it_was(shelf, tmp_path):
    def stops(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    rehearsing = Rehearsing(settings(), shelf.held(), "x", Folder(tmp_path), 1, lambda _text: None)
    with pytest.raises(KeyboardInterrupt):
        rehearsing.run(stops)
    shelf.read.clear()
    said: list[str] = []
    assert len(run(shelf, tmp_path, said).services) == 3
    assert shelf.read == ["three", "two"] and "1 of 3 were worked out before" in said[0]


def test_a_damaged_file_is_as_good_as_none(shelf, tmp_path):
    run(shelf, tmp_path, [])
    for file in tmp_path.glob("*.result.json"):
        file.write_bytes(file.read_bytes()[:100])
    said: list[str] = []
    assert len(run(shelf, tmp_path, said).services) == 3 and said == []


def test_those_that_would_have_held_each_other_up_are_rehearsed_in_one_loop(shelf, tmp_path):
    said: list[str] = []
    found = run(shelf, tmp_path, said, at_once=1)
    assert any("one, three are rehearsed again" in text for text in said)
    first, second = (one.incidents[0] for one in found.services if one.service != "two")
    changed = sorted(step.at_s for one in (first, second) for step in one.steps if "min_replicas" in step.what)
    assert changed[1] - changed[0] > 60.0, "one at a time"


def test_histories_of_different_times_stay_apart_and_it_is_said(shelf, tmp_path):
    span = shelf.found["three"].window.span
    shorter = overloaded()
    window = replace(
        shorter.window,
        span=Span(span.start_s, span.end_s - 600.0, STEP_S),
        values={name: v[:-40] for name, v in shorter.window.values.items()},
    )
    apart = Shelf(one=overloaded(), two=history(), three=replace(shorter, window=window))
    found = run(apart, tmp_path, [], at_once=1)
    assert any("one, three would have been changed close together" in text for text in found.left_out)


def test_a_service_that_fails_is_named_and_the_others_are_rehearsed(tmp_path):
    found = run(Shelf(one=overloaded(), two=history(points=3)), tmp_path, [], jobs=2)
    assert [one.service for one in found.services] == ["one"]
    assert found.left_out[0] == "There is no history of three."
    assert "of two has 3 points of P95" in found.left_out[1]
    with pytest.raises(ConfigError, match="nothing can be rehearsed: There is no history of one"):
        run(Shelf(two=history(points=3)), tmp_path, [])


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        Folder(tmp_path / "file" / "below")


def test_only_what_nobody_asked_for_is_thrown_away(shelf, tmp_path):
    run(shelf, tmp_path, [])
    (tmp_path / "mine.txt").write_text("")
    folder = Folder(tmp_path)
    newest = max(file.stat().st_mtime for file in tmp_path.iterdir())
    folder.prune(newest + 60.0)
    assert len(list(tmp_path.glob("*.result.json"))) == 3
    folder.prune(newest + 8 * 86_400.0)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_ctrl_c_ends_in_a_sentence_and_the_same_command_goes_on(tmp_path):
    (tmp_path / "services.yaml").write_text(_text())
    save(tmp_path / "recorded", {name: overloaded() for name in NAMES})
    work = tmp_path / "work"
    arguments = [
        sys.executable, "-c", "from slotune.cli import main; main()", "rehearse", "--recorded", str(tmp_path / "recorded"), "--jobs", "1",
        "--config", str(tmp_path / "services.yaml"), "--work", str(work), "--json",
    ]  # fmt: skip
    with (tmp_path / "said").open("w") as said:
        first = subprocess.Popen(arguments, stdout=said, stderr=said, start_new_session=True)
        until = time.monotonic() + 120
        while not list(work.glob("*.result.json")) and first.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        first.send_signal(signal.SIGINT)
        assert first.wait(60) == 130
    text = (tmp_path / "said").read_text()
    assert "Stopped. What is finished is kept in" in text and "Traceback" not in text
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600, check=True)
    assert "of 3 were worked out before and are kept in" in done.stderr
    assert len(json.loads(done.stdout)["services"]) == 3
