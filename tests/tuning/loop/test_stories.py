"""Whatever happens in whatever order: never two unproven changes on a service, never beyond the bounds, never more than
the caps, never over a person's value, and in the end nothing is open and everything that is in force has a reason.

`SLOTUNE_STORIES=500 pytest tests/tuning/loop/test_stories.py` tells more stories, each time others.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.tuning.loop.stories import PEOPLES, Telling
from tuning.policies.tables import ANY, table

_MORE = os.environ.get("SLOTUNE_STORIES")
_which = st.integers(0, 2)
_lever = st.sampled_from(["batch_size", "replicas"])
_dies = st.one_of(st.none(), st.none(), st.integers(0, 8))
EVENTS = st.one_of(
    st.tuples(st.just("sweep"), _dies),
    st.tuples(st.just("sweep"), st.none()),
    st.tuples(st.just("work"), _which, _dies),
    st.tuples(st.just("work"), _which, st.none()),
    st.tuples(st.just("work"), _which, st.none()),
    st.tuples(st.just("wait"), st.sampled_from([30.0, 120.0, 300.0, 1500.0])),
    st.tuples(st.just("trouble"), _which, _lever, st.sampled_from(["improved", "worse", "unchanged", "inconclusive"])),
    st.tuples(st.just("trouble"), _which, _lever, st.just("improved")),
    st.tuples(st.just("trouble"), _which, st.just("both"), st.sampled_from(["improved", "worse"])),
    st.tuples(st.just("calm"), _which),
    st.tuples(st.just("kill"), _which),
    st.tuples(st.just("somebody"), _which, _lever, st.sampled_from(PEOPLES)),
    st.tuples(st.just("jump"), st.sampled_from([-3600.0, -120.0, 120.0, 3600.0])),
    st.tuples(st.just("load"), st.sampled_from([10.0, 100.0])),
    st.tuples(st.just("control"), st.booleans(), st.booleans(), st.sampled_from(["", "landed", "lost"])),
    st.tuples(st.just("control"), st.just(False), st.just(False), st.just("")),
    st.tuples(st.just("stop"), st.sampled_from(["", "", "dry_run", "freeze"])),
    st.tuples(st.just("mode"), _which, st.sampled_from(["act", "approve", "approve", "observe"])),
    st.tuples(st.just("answer"), _which, st.booleans()),
    st.tuples(st.just("answer"), _which, st.just(True)),
    st.tuples(st.just("order"), st.integers(0, 3), st.sampled_from(["pause", "resume", "hand_back"])),
    st.tuples(st.just("again"), _which, _lever),
)
Events = list[tuple[Any, ...]]


def _made(lever: str, verdict: str) -> Events:
    """Chosen, the levers pulled one by one, and on its way to the look."""
    pulls = 2 if lever == "both" else 1
    return [("trouble", 0, lever, verdict), ("sweep", None), *[("work", 0, None)] * (pulls + 2)]


JUDGED: Events = [("wait", 300.0), ("work", 0, None)]
LEASED: Events = [*_made("replicas", "improved"), *JUDGED, ("work", 0, None)]
ROLLED_BACK: Events = [*_made("batch_size", "worse"), *JUDGED, ("work", 0, None)]
BEGINS: dict[str, Events] = {
    "nothing": [],
    "a change": _made("batch_size", "improved"),
    "a harm": _made("batch_size", "worse"),
    "a roll-back is decided": [*_made("replicas", "worse"), *JUDGED],
    "a roll-back is decided, and a person": [*_made("replicas", "worse"), *JUDGED, ("somebody", 0, "replicas", 3)],
    "a roll-back is made": ROLLED_BACK,
    "a roll-back is made, and a person sets the same value": [*ROLLED_BACK, ("again", 0, "batch_size")],
    "a roll-back is over, and a person sets the same value": [*ROLLED_BACK, *JUDGED, ("again", 0, "batch_size")],
    "two levers": _made("both", "improved"),
    "two levers, and a harm": [*_made("both", "worse"), *JUDGED],
    "a request waits": [("mode", 0, "approve"), *_made("batch_size", "improved")],
    "a late yes": [("mode", 0, "approve"), *_made("replicas", "improved"), ("wait", 1500.0), ("answer", 0, True),
                   *[("work", 0, None)] * 3],
    "a lease": LEASED,
    "a lease renewed": [*LEASED, ("wait", 1500.0), ("sweep", None), ("wait", 1500.0), ("sweep", None)],
    "a lease upon a lease": [*LEASED, ("calm", 0), *LEASED],
    "a lease of two levers, and a change of one": [
        *_made("both", "improved"), *JUDGED, ("work", 0, None), ("calm", 0), *_made("batch_size", "improved"), *JUDGED,
        ("work", 0, None)],
    "a lease is to go back now": [*LEASED, ("calm", 0), ("order", 0, "hand_back"), ("sweep", None)],
    "a lease and a pause": [*LEASED, ("order", 0, "pause"), ("load", 10.0)],
    "a lease and a person": [*LEASED, ("somebody", 0, "replicas", 3), ("load", 10.0)],
    "a lease on its way back": [*LEASED, ("calm", 0), ("load", 10.0), ("sweep", None), ("wait", 300.0)],
}


@pytest.mark.timeout(3600 if _MORE else 300)
@settings(
    max_examples=int(_MORE or 60),
    deadline=None,
    derandomize=_MORE is None,
    suppress_health_check=list(HealthCheck),
)
@example("two levers, and a harm", [("work", 0, None), ("again", 0, "batch_size")])
@example("two levers, and a harm", [("work", 0, None), ("again", 0, "replicas")])
@example("a lease renewed", [("work", 0, None), ("jump", -3600.0), ("work", 0, None)])
@example("a lease upon a lease", [("sweep", None), ("work", 0, None), ("jump", -3600.0), ("work", 0, None)])
@example("a lease renewed", [("work", 0, None), ("order", 0, "pause"), ("work", 0, None)])
@example("two levers", [("kill", 0), ("somebody", 0, "batch_size", 3), ("sweep", 1)])
@given(st.sampled_from(sorted(BEGINS)), st.lists(EVENTS, min_size=1, max_size=30))
def test_stories(begun: str, events: Events) -> None:
    telling = Telling()
    for event in [*BEGINS[begun], *events]:
        telling.happen(event)
    telling.end()


def test_the_stories_reach_what_they_are_about() -> None:
    """A plain story changes, proves and leases; else the property above would hold of nothing."""
    telling = Telling()
    for event in LEASED:
        telling.happen(event)
    assert [c.state for c in telling.ledger.changes.values()] == ["leased"]
    telling.end()
    assert telling.story.value("one", "replicas") == 2 and len(telling.story.writes) >= 2


@pytest.mark.parametrize(
    ("begun", "writes", "states"),
    [
        ("a roll-back is made", [(2, 4), (4, 2)], ["made"]),
        ("a roll-back is over, and a person sets the same value", [(2, 4), (4, 2), (2, 4)], []),
        ("two levers", [(2, 4), (2, 4)], ["made"]),
        ("two levers, and a harm", [(2, 4), (2, 4)], ["made"]),
        ("a request waits", [], []),
        ("a late yes", [(2, 4)], ["made"]),
        ("a lease renewed", [(2, 4)], ["leased"]),
        ("a lease upon a lease", [(2, 4), (4, 6)], ["leased", "leased"]),
        ("a lease of two levers, and a change of one", [(2, 4), (2, 4), (4, 6)], ["leased"]),
        ("a lease is to go back now", [(2, 4), (4, 3)], ["leased"]),
    ],
)
def test_a_story_begins_where_it_says(begun: str, writes: list[tuple[int, int]], states: list[str]) -> None:
    telling = Telling()
    for event in BEGINS[begun]:
        telling.happen(event)
    assert [(w.old, w.new) for w in telling.story.writes] == writes
    assert [c.state for c in telling.ledger.changes.values()] == states


def test_a_table_refuses_a_state_without_a_row_and_one_with_two() -> None:
    with pytest.raises(ValueError, match="0 rows"):
        table((("a", "b"),), [(("a",), 1)])
    with pytest.raises(ValueError, match="2 rows"):
        table((("a", "b"),), [((ANY,), 1), (("b",), 2)])
    with pytest.raises(ValueError, match="none of"):
        table((("a", "b"),), [((ANY,), 1), (("c",), 2)])
