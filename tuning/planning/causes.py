"""The one list of causes: name, what it means for a person, whether a lever cures it, and which ones.

A diagnosis names one of these; the mail, the ledger's posterior and the benchmarks use the same names. How each is
recognised stands in `diagnosis`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """name: the word in the ledger. title: for people. levers: those that can cure it (none: a person has to).

    pairs: whether it may be worth two levers at once. One sick replica is not: a person restarts it.
    """

    name: str
    title: str
    levers: tuple[str, ...] = ()
    curable: bool = True
    pairs: bool = True


_ALL = ("batch_size", "replicas", "precision")

_TABLE = (
    Cause("load_surge", "more traffic than usual", _ALL),
    Cause("lost_capacity", "replicas are missing", _ALL),
    Cause("slower_service", "each batch takes longer than it did", _ALL),
    Cause("batch_too_small", "full batches while requests queue", _ALL),
    Cause("batch_wait_too_long", "requests wait for a batch that does not fill", ("batch_size",)),
    Cause("slow_replica", "one replica is slower than the others", ("replicas", "precision"), pairs=False),
    Cause("noisy_neighbour", "batch times come and go with something else on the machine", _ALL),
    Cause("errors", "requests fail", curable=False),
    Cause("idle_capacity", "far more capacity than the traffic needs", ("replicas",)),
    Cause("stale_data", "the numbers are old or missing", curable=False),
    Cause("healthy", "the SLO is met", curable=False),
    Cause("unknown", "what is exported does not tell", _ALL),
)

CAUSES: dict[str, Cause] = {cause.name: cause for cause in _TABLE}
