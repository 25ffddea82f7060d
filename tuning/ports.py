"""The ports of tuning. One contract suite each (tests/contracts), run over every implementation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from detection.model import BucketWindow, Incident, MetricWindow, Objective, Service, Slo
from detection.signal import Signal
from tuning.caps import Caps, Standing
from tuning.mail import Mail
from tuning.model import Change, Observation, OpenChange, Outcome, Plan, Receipt, Record, Setting, UnreadableChange
from tuning.query import Query


@dataclass(frozen=True, repr=False)
class Connection:
    """Where something is and how to get in. `repr` shows no secret; secrets live nowhere else."""

    name: str
    url: str
    login: str | None = None
    password: str | None = None
    extra: Mapping[str, object] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Connection({self.name!r})"


class Connections(Protocol):
    """Resolves the names in services.yaml. Raises ConfigError naming the connection and how to define it."""

    def get(self, name: str) -> Connection: ...


class Planner(Protocol):
    """Chooses. Pure: the same arguments give the same plan; every rejected option carries its reason."""

    name: str

    def propose(self, incident: Incident, observation: Observation, past: Sequence[Record]) -> Plan: ...

    def spares(self, incident: Incident, observation: Observation, past: Sequence[Record], step: Change) -> str:
        """Why the service does without the replicas that `step` takes away, as a sentence; "" where it may not, or
        where nothing can tell. incident: the one that they were added for."""
        ...


class Actuator(Protocol):
    """Pulls one lever of one service. Values are absolute, calls are idempotent on `key`, and `apply` reads back.

    `read` raises ControlUnreachable / ControlRefused / NotOwner; `apply` also OutcomeUnknown, Conflict, NotApplied.
    All replicas or none; where `change.undoes`, as many as can be: what one refuses keeps no other from the way back.
    """

    name: str
    lever: str

    def read(self, service: Service) -> Setting: ...

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt: ...


@runtime_checkable
class PerReplica(Protocol):
    """What an actuator has beside the above where every replica has an endpoint of its own: it can change one first."""

    def replicas(self, service: Service) -> Mapping[str, str]:
        """host:port of every replica by the name that `apply_to` knows. Raises as `Actuator.read`."""
        ...

    def apply_to(self, service: Service, change: Change, replica: str, *, key: str) -> Receipt:
        """As `Actuator.apply`, for one replica."""
        ...


@runtime_checkable
class Concluding(Protocol):
    """An actuator that keeps something running for a change until its verdict (requests shadowed through both)."""

    def conclude(self, service: Service) -> None:
        """End it on every replica. Idempotent. ControlUnreachable: try again, it may still run somewhere."""
        ...


class Verifier(Protocol):
    """Judges. Pure. `before` and `after` are windows of the changed service; `control` of unchanged replicas."""

    name: str

    def judge(
        self,
        plan: Plan,
        before: Evidence,
        after: Evidence,
        control: tuple[Evidence, Evidence] | None = None,
    ) -> Outcome: ...


@dataclass(frozen=True)
class Evidence:
    """What a verifier sees of one side of a change.

    history: the hours before, from which autocorrelation and noise may be learned. expected_p95_ms: what the latency
    model expects at this side's load with the OLD setting (None: no model), for the load adjustment.
    unhelped_p95_ms: of the side after, what P95 would be by now, at least, with the OLD setting where the service
    itself has grown slower since the change (None: it has not, or nobody can tell).
    slo: what the service promises; without it nobody can tell whether the incident is resolved. objective: the one of
    its promises that is judged (None: the first).
    min_agreement: the smallest share of live answers on which the new version and its reference may agree.
    guarded: the service's own signals that a change may not make worse.
    """

    window: MetricWindow
    buckets: BucketWindow | None = None
    history: MetricWindow | None = None
    expected_p95_ms: float | None = None
    unhelped_p95_ms: float | None = None
    slo: Slo | None = None
    min_agreement: float | None = None
    objective: Objective | None = None
    guarded: tuple[Signal, ...] = ()

    @property
    def judged(self) -> Objective | None:
        """The promise that is judged; None where nothing is promised."""
        return self.objective or (self.slo.main if self.slo is not None else None)

    @property
    def signal(self) -> str:
        """The P95 that is judged, with or without a promise."""
        return self.judged.signal if self.judged is not None else "p95_ms"


class Notifier(Protocol):
    """Tells people. May fail (Temporary, Permanent) without failing the loop. name: of its channel."""

    name: str

    def send(self, mail: Mail) -> None: ...


@runtime_checkable
class Repeated(Protocol):
    """A notifier that shows what is true now instead of what has happened: it is told everything anew by each sweep."""

    def stand(self, mails: Sequence[Mail]) -> None:
        """One mail for each open incident and for each that has just ended (`over`). Raises as `Notifier.send`."""
        ...


@runtime_checkable
class Probed(Protocol):
    """A notifier that can be asked whether it would work, without telling anybody anything."""

    def probe(self) -> str:
        """What was found, in words. Raises as `Notifier.send`."""
        ...


class Ledger(Protocol):
    """The memory: append-only, idempotent on id, written BEFORE a change is made. Raises LedgerUnavailable."""

    def put(self, record: Record) -> bool:
        """Append; False when a record of this id is there already (and nothing is written)."""
        ...

    def get(self, record_id: str) -> Record | None: ...

    def find(self, query: Query) -> Sequence[Record]:
        """All records that are meant, newest first."""
        ...

    def standing(self, at_s: float, memory_s: float) -> Standing:
        """What counts against the caps at `at_s`: unproven changes, and those made within `memory_s` before it."""
        ...

    def open_change(self, change: OpenChange, intent: Record, caps: Caps | None = None) -> None:
        """Count, write the intent and claim the service in one transaction, so that no two claims count the same room.

        ClaimRefused when a cap is reached, ChangeAlreadyOpen when the service has another unproven change. caps None:
        for a change that is in force already, which only has to be proven. Claiming again with the same plan_id is a
        no-op (a task that is run again after a restart).
        """
        ...

    def update_change(
        self,
        plan_id: str,
        state: Literal["made", "leased", "closed"],
        record: Record,
        *,
        expires_at_s: float | None = None,
    ) -> None:
        """Move a change on and append the record that says why, in one transaction. "closed" frees the service."""
        ...

    def open_changes(self, service: str | None = None) -> Sequence[OpenChange]:
        """The changes that are not closed; those whose plan cannot be read are among `unreadable_changes` alone."""
        ...

    def unreadable_changes(self) -> Sequence[UnreadableChange]:
        """The changes that are not closed and whose plan this program cannot read: a person has to look after them."""
        ...

    def put_blob(self, key: str, data: bytes, *, at_s: float) -> None:
        """Replace what is stored under a key: windows and baselines, which are too big for XCom."""
        ...

    def get_blob(self, key: str) -> bytes | None: ...

    def get_blobs(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """What is stored under several keys, asked for at once; keys under which nothing is stored are left out."""
        ...
