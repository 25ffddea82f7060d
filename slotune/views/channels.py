"""How telling people goes: what each channel was told, what waits, what it does not take, and what was given up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slotune.views.reading import Reading
from tuning.ledger.lines import Line
from tuning.query import Query

NEWS_S = 7 * 86_400.0
KINDS = ("email_report", "message")


@dataclass(frozen=True)
class ChannelRow:
    """waiting: messages that it has not taken; failing: those of them that it was tried with. given_up: in the last
    seven days, refusals included. told_s: the newest message that it took. why: what its last failure said."""

    name: str
    by: str
    waiting: int = 0
    failing: int = 0
    given_up: int = 0
    told_s: float | None = None
    why: str = ""


def channels(reading: Reading) -> list[ChannelRow]:
    """Every channel in use, in the order of the settings."""
    since_s = reading.now_s - NEWS_S
    unsent = Query(kinds=KINDS, phase="intent", since_s=since_s, without=("id", ":sent"), bodies=False)
    waits = {line.id for line in reading.reader.find(unsent)}
    told: dict[str, list[Line]] = defaultdict(list)
    for line in reading.reader.find(Query(kinds=KINDS, phase="result", since_s=since_s, holding='"channel":')):
        told[str(line.body.get("channel"))].append(line)
    return [_row(channel.name, channel.by, told[channel.name], waits) for channel in reading.settings.channels()]


def _row(name: str, by: str, lines: Sequence[Line], waits: set[str]) -> ChannelRow:
    """lines: newest first."""
    done = {str(line.parent_id): line.body for line in lines if line.body.get("done")}
    failed = [line for line in lines if line.body.get("failed")]
    open_here = {str(line.parent_id) for line in failed} & waits - set(done)
    given_up = [body for body in done.values() if body.get("given_up")]
    taken = [line.at_s for line in lines if line.body.get("done") and not line.body.get("given_up")]
    return ChannelRow(
        name=name,
        by=by,
        waiting=len(waits - set(done)),
        failing=len(open_here),
        given_up=len(given_up),
        told_s=max(taken, default=None),
        why=_why(failed[0].body if open_here else given_up[0] if given_up else {}),
    )


def _why(body: Mapping[str, Any]) -> str:
    return str(body.get("reason") or body.get("note") or "")
