"""Whether a run is still at work where no scheduler can be asked: a loop that runs by itself beats while it works.

A beat is one value in the ledger's store, replaced again and again: when, and which runs are under way. Whoever finds
a change of such a run asks the beat of its loop; a loop that is silent, or names the run no more, has let it go.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

from tuning.ports import Ledger

PREFIX = "loop:"
"""How the id of a run of such a loop begins: `loop:<name>/<run>`."""
BEAT_S = 15.0
DEAD_AFTER_S = 90.0
"""Six beats: a ledger that was locked, or a machine that slept a moment, makes no run dead."""
_log = logging.getLogger(__name__)


def run_of(loop: str, run_id: str) -> str:
    """The id under which a loop claims a change."""
    return f"{PREFIX}{loop}/{run_id}"


def is_ours(run: str) -> bool:
    """Whether a run belongs to a loop that beats, and not to a scheduler's."""
    return run.startswith(PREFIX)


def beat(ledger: Ledger, loop: str, runs: Iterable[str], at_s: float) -> None:
    """Says that a loop is at work, and on what. at_s: epoch seconds."""
    body = {"at_s": at_s, "runs": sorted(runs)}
    ledger.put_blob(_key(loop), json.dumps(body).encode(), at_s=at_s)


def is_beating(ledger: Ledger, run: str, at_s: float) -> bool:
    """Whether the loop of a run was heard of within DEAD_AFTER_S and names the run; a clock that differs by as much is
    forgiven. What cannot be read is no sign of life."""
    loop, _, _ = run.removeprefix(PREFIX).partition("/")
    data = ledger.get_blob(_key(loop))
    if data is None:
        return False
    try:
        body = json.loads(data)
        heard_s, runs = float(body["at_s"]), body["runs"]
    except (ValueError, TypeError, KeyError) as error:
        _log.warning("the beat of %s cannot be read: %r", loop, error)
        return False
    return abs(at_s - heard_s) <= DEAD_AFTER_S and run in runs


def _key(loop: str) -> str:
    return f"loop/{loop}"
