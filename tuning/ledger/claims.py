"""Counting inside the transaction that claims: what stands against the caps, with nobody in between.

PostgreSQL: an advisory lock makes claims come one after the other. SQLite: a write transaction has the file alone.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tuning.caps import Caps, Standing
from tuning.errors import ChangeAlreadyOpen, ClaimRefused
from tuning.guards.caps import capped, claim_of, one_open_change, standing_of
from tuning.guards.stop import Stop
from tuning.ledger.rows import record_of, unproven_of
from tuning.ledger.schema import changes
from tuning.model import LEVER_STEPS, OpenChange

CLAIMS_LOCK = 0x510_70F
_DAY_S = 86_400.0
_UNPROVEN = sa.select(changes).where(sa.text("state IN ('intended', 'made')"))
# What was made after "now" was made before the clock stepped back: it counts, unless something that was written later
# is older than the caps remember. + 0 keeps the search on the index by time.
_MADE = sa.text(
    "SELECT id, kind, phase, service, parent_id, incident_id, at_s, body FROM records WHERE kind IN :kinds "
    "AND phase = 'result' AND at_s >= :since_s AND (at_s <= :at_s OR NOT EXISTS (SELECT 1 FROM records AS later "
    "WHERE later.at_s <= :since_s AND later.at_s > :before_s AND later.seq + 0 > records.seq))"
).bindparams(sa.bindparam("kinds", expanding=True))


def one_after_the_other(connection: Connection) -> None:
    """From here to the end of the transaction no other claim is counted or made."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": CLAIMS_LOCK})


def standing(connection: Connection, at_s: float, memory_s: float) -> Standing:
    """Unproven changes first, then receipts: a change that moves on in between is counted, never missed."""
    unproven = [unproven_of(row) for row in connection.execute(_UNPROVEN)]
    since_s = at_s - memory_s
    times = {"at_s": at_s, "since_s": since_s, "before_s": since_s - _DAY_S}
    rows = connection.execute(_MADE, {"kinds": list(LEVER_STEPS.values()), **times})
    return standing_of(unproven, [r for row in rows if (r := record_of(row)) is not None])


def refuse(connection: Connection, change: OpenChange, caps: Caps | None) -> None:
    """Raises ClaimRefused where a cap is reached. caps None: the change is there, and only the service must be free."""
    claim = claim_of(change.plan, change.opened_at_s)
    if caps is None:
        raise_for(one_open_change(claim, standing(connection, change.opened_at_s, 0.0)))
    else:
        raise_for(capped(claim, caps, standing(connection, change.opened_at_s, caps.memory_s)))


def raise_for(stop: Stop | None) -> None:
    """A stop as the error that a refused claim ends in."""
    if stop is None:
        return
    error = ChangeAlreadyOpen if stop.name == one_open_change.__name__ else ClaimRefused
    raise error(stop.reason, guard=stop.name, until_s=stop.until_s)
