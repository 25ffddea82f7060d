"""What can go wrong while a lever is pulled, on the same axis as detection.errors.

    Temporary
    ├── ControlUnreachable   the control endpoint gave no answer, BEFORE anything can have been sent
    ├── OutcomeUnknown       a change was sent and no answer came: it may have landed; read back before deciding
    ├── Conflict             somebody else changed the same object meanwhile (HTTP 409): re-read, retry bounded
    ├── StillStarting        an earlier change of the same lever is still taking effect
    ├── ClaimRefused         a cap is reached (changes at once, per hour, cool-down): nothing was claimed
    │   └── ChangeAlreadyOpen  this service has an unproven change: wait for its verdict
    └── LedgerUnavailable    the ledger cannot be written: no change may be made
    Permanent
    ├── ControlRefused       the endpoint said no (400, 401, 403, 404, 422), with its words
    ├── NotApplied           the endpoint said yes, and the read-back shows another value: `before`, `after`
    ├── NoCapacity           the cluster has no room for the replicas; the change was undone
    ├── NotOwner             somebody else owns this knob (GitOps, KEDA, a human): stand down
    └── QuantizationRefused  calibration data, the model or a gate says no
"""

from __future__ import annotations

from collections.abc import Mapping

from detection.errors import ConfigError, Permanent, SlotuneError, Temporary

__all__ = [
    "ChangeAlreadyOpen",
    "ClaimRefused",
    "ConfigError",
    "Conflict",
    "ControlRefused",
    "ControlUnreachable",
    "LedgerUnavailable",
    "NoCapacity",
    "NotApplied",
    "NotOwner",
    "OutcomeUnknown",
    "Permanent",
    "QuantizationRefused",
    "SlotuneError",
    "StillStarting",
    "Temporary",
]


class ControlUnreachable(Temporary):
    """The control endpoint gave no answer and nothing was changed."""


class OutcomeUnknown(Temporary):
    """A change was sent and its fate is unknown (timeout, connection lost, 5xx): read back before deciding."""


class Conflict(Temporary):
    """The object was changed by somebody else between our read and our write."""


class ClaimRefused(Temporary):
    """A cap, counted in the transaction of the claim, is reached: nothing was claimed, nothing may be changed.

    guard: the name of the guard that says no. until_s: when asking again makes sense (epoch seconds), None: unknown.
    """

    def __init__(self, message: str, *, guard: str, until_s: float | None = None) -> None:
        super().__init__(message)
        self.guard = guard
        self.until_s = until_s


class ChangeAlreadyOpen(ClaimRefused):
    """The service already has an open change that is not proven yet."""

    def __init__(self, message: str, *, guard: str = "one_open_change", until_s: float | None = None) -> None:
        super().__init__(message, guard=guard, until_s=until_s)


class StillStarting(Temporary):
    """An earlier change of the same lever is still taking effect (pods that start); nothing was changed."""


class LedgerUnavailable(Temporary):
    """The ledger cannot be read or written; without it no change is made."""


class ControlRefused(Permanent):
    """The control endpoint refused the change."""


class NotApplied(Permanent):
    """The endpoint accepted the change but the read-back shows another value than the one asked for.

    before, after: the knobs that stood before and that stand now, as they were read; empty where they are not known.
    They differ where the endpoint took a value of its own (asked for 16, it took 8): then a change was made, and
    `before` is the way back.
    """

    def __init__(
        self,
        message: str,
        *,
        before: Mapping[str, int | float | str] | None = None,
        after: Mapping[str, int | float | str] | None = None,
    ) -> None:
        super().__init__(message)
        self.before: dict[str, int | float | str] = dict(before or {})
        self.after: dict[str, int | float | str] = dict(after or {})


class NoCapacity(Permanent):
    """The cluster cannot place the replicas; the change was undone."""


class NotOwner(Permanent):
    """Somebody else owns the knob; slotune stands down."""


class QuantizationRefused(Permanent):
    """No INT8 artefact may be made or published, with the reason.

    evidence: the gates' table as JSON values where there is one, for the receipt and the mail.
    """

    def __init__(self, message: str, *, evidence: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.evidence: dict[str, object] = evidence or {}
