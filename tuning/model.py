"""The values of the second half of the flow: Setting, Change, Option, Plan, Refusal, Receipt, Outcome, Report, Record.

Frozen, absolute, and each names its parent. A roll-back is the same actuator call with `plan.inverse()`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from detection.model import BucketWindow, Incident, MetricWindow, Mode, Objective, Service, Value, make_id

Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Knob = Whole | Finite | str
"""What a lever can be set to: finite, so that it can be written down and read back everywhere."""
Verdict = Literal["improved", "unchanged", "worse", "inconclusive"]
LeverName = Literal["batch_size", "replicas", "precision", "release", "variant", "admission", "breaker", "restart"]

STEPS: tuple[str, ...] = (
    "pull_metrics",
    "detect_anomalies",
    "open_incidents",
    "choose_action",
    "guard",
    "adjust_batch_size",
    "scale_replicas",
    "quantize_int8",
    "revert_release",
    "switch_variant",
    "limit_admission",
    "break_circuit",
    "restart_replica",
    "hold",
    "settle",
    "verify_p95",
    "keep",
    "roll_back",
    "email_report",
)
"""The one vocabulary: task ids, record kinds, log events, labels of our own metrics, headings of the README."""

LEVER_STEPS: dict[str, str] = {
    "batch_size": "adjust_batch_size",
    "replicas": "scale_replicas",
    "precision": "quantize_int8",
    "release": "revert_release",
    "variant": "switch_variant",
    "admission": "limit_admission",
    "breaker": "break_circuit",
    "restart": "restart_replica",
}
ONE_WAY = frozenset({"restart"})
"""Levers whose change cannot be undone, and leaves nothing to undo: a process that has ended stays ended."""


class ReplicaSeen(Value):
    """One replica as the restart lever finds it.

    name: at the actuator. knob: its name among the setting's values, which no other process of this replica ever has.
    place: host:port, "" where it is not known. age_s: since it was started, None where it cannot be told. ready: it
    takes requests.
    """

    name: str
    knob: str
    place: str = ""
    age_s: float | None = None
    ready: bool = True


class Setting(Value):
    """The truth about one lever, read from the system.

    values: knobs by name (batch_size: batch_size, batch_timeout_ms, of a language model max_num_seqs,
    max_num_batched_tokens; replicas: min_replicas, max_replicas, replicas; precision: version, precision; release:
    version; variant: variant; admission: queue_limit, concurrency_limit or rate_limit; breaker: the state of each route
    by its name). others: the knobs of each replica that shows something else than `values`, which is what most of them
    show. version: the token for an optimistic lock. owner: who writes this knob. useless: why a change of it would do
    nothing, "" where it would: no plan is made with it then. facts: what was read beside the knobs and cannot be set
    with them (kv_cache_tokens, block_size, max_model_len), absent where it is not known. absent: where a knob stands
    that is not among the values (restart: a process that is not there is gone), None where nobody knows. replicas: of
    the lever restart, one by one.
    """

    lever: str
    values: dict[str, Knob]
    others: dict[str, dict[str, Knob]] = {}
    facts: dict[str, Knob] = {}
    version: str = ""
    owner: str = ""
    note: str = ""
    useless: str = ""
    absent: Knob | None = None
    replicas: tuple[ReplicaSeen, ...] = ()

    def at(self, knobs: Iterable[str]) -> dict[str, Knob]:
        """The values, with these knobs among them as far as is known."""
        if self.absent is None:
            return self.values
        return {**dict.fromkeys(knobs, self.absent), **self.values}


class Change(Value):
    """One lever from old to new, both absolute and complete for the knobs that are named.

    undoes: it puts back what stood before a change that is not to stay: where one replica cannot be brought back, the
    others are all the same, and what was undone is not made again.
    """

    lever: str
    old: dict[str, Knob]
    new: dict[str, Knob]
    undoes: bool = False

    def inverse(self) -> Change:
        return Change(lever=self.lever, old=self.new, new=self.old, undoes=not self.undoes)

    def text(self) -> str:
        """"batch_size 1 -> 8" for people."""
        if self.lever == "restart":
            names = ", ".join(knob.rpartition("@")[0] or knob for knob in self.new)
            return f"{'no restart' if self.undoes else 'restart'} of {names}"
        moved = [k for k in self.new if self.new[k] != self.old.get(k)] or list(self.new)
        return ", ".join(f"{k} {self.old.get(k, '?')} -> {self.new[k]}" for k in moved)


class Release(Value):
    """Another version of the model came into service.

    at_s: when the new one was first seen. whole_s: when it was all of the service (None: not by then). seen_s: when
    slotune saw that. hands: "slotune" where a change of its own did it, "others" for everybody else. seen_by: "metrics"
    or "lever" (what the release lever shows). note: what else is known of it (an image). proven: the last version
    before it under which the service kept its promises ("": none is known).
    """

    id: str
    service: str
    old: str
    new: str
    at_s: float
    seen_s: float
    whole_s: float | None = None
    hands: Literal["slotune", "others"] = "others"
    seen_by: Literal["metrics", "lever"] = "metrics"
    note: str = ""
    proven: str = ""


class Interval(Value):
    """A number with the interval in which it lies with probability `level`."""

    value: float
    low: float
    high: float
    level: float = 0.9


class Refusing(Value):
    """What a limit does to the requests, as predicted. share: of the requests that are refused with it (0..1), with its
    interval; share_now: without it. in_time_per_s: answers within the objective per second with it; in_time_now_per_s:
    without it."""

    share: Interval
    share_now: float
    in_time_per_s: float
    in_time_now_per_s: float


class Option(Value):
    """One way out: changes (none = hold, one, or a pair) with what they are expected to bring and cost.

    predicted_p95_ms: of the plan's objective; None when no model can tell. quality_loss: the share of right answers
    (0..1) that is lost while it lasts, against what served before. refusal: what is refused and answered in time with
    it, of an option that refuses requests. reason: why chosen or rejected, in one sentence.
    """

    changes: tuple[Change, ...]
    predicted_p95_ms: Interval | None = None
    meets_slo: bool | None = None
    cost_per_hour: float = 0.0
    quality_loss: float = 0.0
    refusal: Refusing | None = None
    effect_delay_s: float = 0.0
    risk: float = 0.0
    probability_worked: float | None = None
    feasible: bool = True
    reason: str = ""

    @property
    def levers(self) -> tuple[str, ...]:
        return tuple(change.lever for change in self.changes)

    def text(self) -> str:
        return " and ".join(change.text() for change in self.changes) or "hold"


class SickReplica(Value):
    """One replica that is worse than its peers, or will soon be gone.

    label: in the metrics. kind: "slow", "wrong" (its answers fail, or differ from what its peers answer) or "leaking".
    signal: the one that tells, with its values there and (the median) among the peers. left_s: of a leak, how long
    until the memory's limit. limit: that limit.
    """

    label: str
    kind: Literal["slow", "wrong", "leaking"]
    signal: str
    own: float
    peers: float | None = None
    left_s: Interval | None = None
    limit: float | None = None
    sentence: str


class Advice(Value):
    """What a person could do that no lever does. because: what was measured that points to it. source: title and
    publisher of the document that says how."""

    name: str
    because: str
    text: str
    source: str

    @property
    def sentence(self) -> str:
        return f"{self.because}: {self.text} ({self.source})"


class Diagnosis(Value):
    """Where the time goes, and why. cause: one of tuning.planning's causes ("unknown" is an honest answer).

    release: the change of version that is to blame (cause "bad_release" only). slower: how many times as long its
    service takes, None where that did not move. sick: the one replica that is to blame, where one is.
    queue_ms + batch_wait_ms + service_ms is about the mean latency; None where it cannot be told. stages: (name, mean
    ms) of a request's stages, where the server shows more than these. chain: how the signals of
    the service's declared chain went together, in words. advice: what a person could do beside the levers.
    """

    cause: str
    evidence: tuple[str, ...] = ()
    queue_ms: float | None = None
    batch_wait_ms: float | None = None
    service_ms: float | None = None
    queue_share: float | None = None
    curable: bool = True
    release: Release | None = None
    slower: Interval | None = None
    stages: tuple[tuple[str, float], ...] = ()
    chain: str = ""
    sick: SickReplica | None = None
    advice: tuple[Advice, ...] = ()


class Plan(Value):
    """What will be done about an incident, and everything that was weighed.

    settle_s: how long to wait after the change before looking. lease_s: after how long a temporary change expires
    (None: not temporary). decided_at_s: the run's own time. rollback_of: the plan that this one undoes. since_s: the
    incident's onset (None: not known). tries: how many earlier plans of the incident changed something. objective: the
    promise that is broken, whose P95 the plan and its proof speak of (None: the service's first). beside: what a
    learned planner that only watches would have chosen, in words; "" where none does.
    """

    id: str
    incident_id: str
    service: str
    decided_at_s: float
    mode: Mode
    diagnosis: Diagnosis
    chosen: Option
    rejected: tuple[Option, ...] = ()
    settle_s: float = 60.0
    lease_s: float | None = None
    revert_below_qps: float | None = None
    attempt: int = 1
    rollback_of: str | None = None
    dry_run: bool = False
    since_s: float | None = None
    tries: int = 0
    reason: str = ""
    objective: Objective | None = None
    beside: str = ""

    @property
    def one_way(self) -> bool:
        """Whether what it does cannot be undone."""
        return bool(ONE_WAY & set(self.chosen.levers))

    def inverse(
        self,
        before: Mapping[str, Mapping[str, Knob]] | None = None,
        after: Mapping[str, Mapping[str, Knob]] | None = None,
        at_s: float | None = None,
    ) -> Plan:
        """The plan that undoes this one: the same levers, old and new swapped, last change first.

        before, after: what receipts say stood before and was left, by lever; they go before what was planned, because
        an endpoint may have made another value of it. at_s: when it was decided.
        """
        undone = tuple(
            Change(
                lever=change.lever,
                old={**change.new, **(after or {}).get(change.lever, {})},
                new={k: (before or {}).get(change.lever, {}).get(k, v) for k, v in change.old.items()},
                undoes=True,
            )
            for change in reversed(self.chosen.changes)
        )
        return self.model_copy(
            update={
                "id": make_id(self.id, "inverse"),
                "chosen": Option(changes=undone, reason=f"undo {self.chosen.text()}"),
                "rejected": (),
                "rollback_of": self.id,
                "decided_at_s": self.decided_at_s if at_s is None else at_s,
                "lease_s": None,
                "beside": "",
                "reason": f"undo of plan {self.id}",
            }
        )


class Refusal(Value):
    """A guard's no. guard: its name. until_s: when asking again makes sense, None when a person has to act."""

    id: str
    plan_id: str
    service: str
    guard: str
    reason: str
    at_s: float
    until_s: float | None = None


class Canary(Value):
    """The one replica that is changed first. replica: its name at the actuator; label: in the metrics.

    peers: labels of the unchanged replicas, which are its control.
    """

    plan_id: str
    service: str
    lever: str
    replica: str
    label: str
    peers: tuple[str, ...]
    at_s: float


class Applied(Value):
    """What an actuator did. applied: the read-back shows the new value. changed: something else was there before.

    replica: the only one that was changed; empty for all of them.
    """

    service: str
    lever: str
    before: dict[str, Knob]
    after: dict[str, Knob]
    applied: bool
    changed: bool
    at_s: float
    took_s: float = 0.0
    replica: str = ""
    reason: str = ""
    evidence: dict[str, object] = {}


class Receipt(Applied):
    """What an actuator did, as a step of a plan: the identity is the loop's to give, and is given once.

    answered: the one call that was made for it was answered. False: an earlier one was not, and may still be on its
    way, whatever is in force by now.
    """

    id: str
    plan_id: str
    answered: bool = True

    @classmethod
    def of(cls, applied: Applied, *, id: str, plan: Plan, answered: bool = True) -> Receipt:
        told = applied.model_dump(include=set(Applied.model_fields))
        known = {"id": id, "plan_id": plan.id, "service": plan.service, "answered": answered}
        return cls.model_validate({**told, **known})


class Guarded(Value):
    """One guard metric beside the P95 that is judged, before and after. ok False turns a win into "worse"."""

    signal: str
    before: float | None
    after: float | None
    ok: bool
    reason: str = ""


class Cost(Value):
    """What a service costs, in the unit of the configured prices: an hour, 1,000 requests, 1,000,000 generated tokens.

    qps: the load at which that was so. None: not known.
    """

    per_hour: float
    qps: float | None = None
    per_1000: float | None = None
    per_1m_tokens: float | None = None


class Outcome(Value):
    """The verdict on a change. effect: P95 after divided by P95 before (load-adjusted), with its interval.

    P95 is that of the plan's objective. resolved: it is under its limit with the evidence at hand, and so is everything
    else that the service promises; None when the data cannot tell. cost_before, cost_after: None where not known.
    leaning: inconclusive for want of certainty alone, while the whole interval of the effect says better.
    """

    id: str
    plan_id: str
    service: str
    verdict: Verdict
    resolved: bool | None
    at_s: float
    p95_before_ms: float | None = None
    p95_after_ms: float | None = None
    effect: Interval | None = None
    samples_before: int = 0
    samples_after: int = 0
    guards: tuple[Guarded, ...] = ()
    method: str = ""
    reason: str = ""
    cost_before: Cost | None = None
    cost_after: Cost | None = None
    leaning: bool = False


class Decision(Value):
    """What follows from an outcome. step: "keep", "roll_back", "settle" (look once longer) or, after a canary that did
    well, "adjust_batch_size" again (for the other replicas).

    next: "done", "next_attempt" (the same incident again, this lever marked as tried), "ask_person".
    theirs: a person has set another value meanwhile; it stays, and is none of slotune's any more.
    """

    step: Literal["keep", "roll_back", "settle", "adjust_batch_size"]
    next: Literal["done", "next_attempt", "ask_person"]
    reason: str
    theirs: bool = False


class Report(Value):
    """Everything a mail says about one run of tune_service; `id` is the incident's id and attempt.

    slo_p95_ms, timeline: of the plan's objective, (epoch seconds, P95 in ms) pairs for the plot; events: (epoch
    seconds, label) to mark in it. load: pairs of the requests per second; failed: of the share of failed requests
    (0..1), where that is what hurts, and failed_limit its limit.
    """

    id: str
    incident: Incident
    plan: Plan
    refusal: Refusal | None = None
    receipts: tuple[Receipt, ...] = ()
    canary: Canary | None = None
    canary_outcome: Outcome | None = None
    outcome: Outcome | None = None
    decision: Decision | None = None
    rollback: tuple[Receipt, ...] = ()
    rollback_outcome: Outcome | None = None
    links: dict[str, str] = {}
    at_s: float
    slo_p95_ms: float
    timeline: tuple[tuple[float, float], ...] = ()
    events: tuple[tuple[float, str], ...] = ()
    load: tuple[tuple[float, float], ...] = ()
    failed: tuple[tuple[float, float], ...] = ()
    failed_limit: float = 0.01
    notes: tuple[str, ...] = ()
    emulated: bool = False


@dataclass(frozen=True)
class Observation:
    """Everything a planner may look at. Pure values: nothing in here can be asked for more.

    window: the service's signals over the look-back. replicas: the same per replica where exported. settings: the
    levers' truth by lever name (absent: could not be read; `unreadable` says why). history: a longer, coarser window.
    since_s: the incident's onset: what was measured before it is the past, however recent (None: no onset is known).
    settle_s: the least time by lever before P95 no longer mixes the old setting with the new. dry_run: the plan will
    only be told. tries: how many plans of the incident have changed something so far. objective: the promise that is
    broken (None: not looked for yet). releases: those that were seen lately, oldest first. odd_inputs:
    what is odd about what the service is fed, in sentences.
    """

    service: Service
    window: MetricWindow
    at_s: float
    settings: Mapping[str, Setting] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    replicas: Mapping[str, MetricWindow] = field(default_factory=dict)
    buckets: BucketWindow | None = None
    history: MetricWindow | None = None
    latency_model: Mapping[str, object] | None = None
    batch_stats: tuple[tuple[float, ...], ...] = ()
    """(rows, batches, seconds[, seconds squared]) per batch size over the window, where the server exports it."""
    since_s: float | None = None
    settle_s: Mapping[str, float] = field(default_factory=dict)
    dry_run: bool = False
    tries: int = 0
    objective: Objective | None = None
    releases: tuple[Release, ...] = ()
    odd_inputs: tuple[str, ...] = ()

    @property
    def promise(self) -> Objective:
        """The promise that a plan is about: the one that is broken, the service's first where none is known to be."""
        return self.objective or self.service.slo.main


class Record(Value):
    """One line of the ledger: append-only, idempotent on id. phase tells intent from result.

    kind: one of STEPS, or "order" (tuning.orders), "alert" (tuning.alerts), "release" (tuning.releases), "stress"
    (tuning.stressed).

    body: the value's `model_dump(mode="json")`. parent_id: the value that this one follows from.
    """

    id: str
    kind: str
    phase: Literal["intent", "result"] = "result"
    service: str
    parent_id: str | None = None
    incident_id: str | None = None
    at_s: float
    body: dict[str, object]


class UnreadableChange(Value):
    """An open change whose plan this program cannot read: nobody looks after it but a person.

    state: as written. reason: what is wrong with it.
    """

    plan_id: str
    service: str
    incident_id: str
    state: str
    opened_at_s: float
    reason: str


class OpenChange(Value):
    """A change whose fate is not yet settled: at most one per service, by a database constraint.

    state: "intended" (in the ledger, perhaps made), "made" (receipt written, unproven), "leased" (proven, to be
    handed back at expires_at_s), closed ones are not listed.
    """

    plan_id: str
    service: str
    incident_id: str
    state: Literal["intended", "made", "leased"]
    plan: Plan
    opened_at_s: float
    expires_at_s: float | None = None
    run: str = ""
