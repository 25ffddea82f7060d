"""FP32 to INT8 and back: a new version in the model repository, loaded beside the old one by every replica.

To INT8: find or make an artefact that passed every gate (tuning.actuators._int8_source), publish it, tell each server
to load it, read back. Back: serve the old version, which is still in memory. When one replica refuses, those already
changed go back too. Shared by the implementations, which say how one server is read and told.

Options: settings.precision.PrecisionOptions; `repository` is a path that this process and the servers share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypedDict

from detection.model import Service, make_id
from tuning.actuators import _answers as answers
from tuning.actuators import _options as options
from tuning.actuators._http import Budget, Http, Unanswered, budget_of, connections_of
from tuning.actuators._int8_source import LEVER, Around, Int8Source
from tuning.actuators._swap import Knobs, swap
from tuning.actuators.settings.precision import PrecisionOptions
from tuning.errors import ConfigError, ControlRefused, ControlUnreachable, NotOwner, QuantizationRefused
from tuning.model import Change, Knob, Receipt, Setting
from tuning.ports import Connections
from tuning.quantization.ensure import Make
from tuning.quantization.repository import Repository, Version, problems

if TYPE_CHECKING:
    from tuning.actuators._kubernetes_errors import Ref

READ_BACKS = 5
Row = dict[str, Any]
"""One version in a server's index: name, version, state, and served / precision where the server marks them."""


class Served(TypedDict):
    """What one replica serves, and which versions it has in memory."""

    version: str
    precision: str
    loaded: tuple[str, ...]


@dataclass(frozen=True)
class Wanted:
    """Where to go: the version, and what the mail should know about how it came to be."""

    version: str
    precision: str
    evidence: dict[str, object]


class PrecisionEndpoints:
    """The precision lever over the replicas of a service. `make` is the build (default: where the lever says)."""

    name = ""
    lever = LEVER
    options: type[PrecisionOptions] = PrecisionOptions

    def __init__(
        self,
        connections: Connections,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        *,
        make: Make | None = None,
    ) -> None:
        self._connections, self._clock, self._sleep = connections, clock, sleep
        self._int8 = Int8Source(connections, clock, sleep, make)

    def options_of(self, service: Service) -> PrecisionOptions:
        """The lever's options. Raises ConfigError."""
        return options.of(service, LEVER, self.options)

    # what an implementation says about its servers

    def versions(self, service: Service, http: Http) -> list[Row]:
        """The index rows of the model. Raises ControlUnreachable, ControlRefused."""
        raise NotImplementedError

    def prepare(self, service: Service, http: Http, served: Served) -> None:
        """Make sure that a newly published version is not taken up before it is told to. Raises ControlUnreachable,
        ControlRefused, NotApplied."""

    def send(self, service: Service, http: Http, served: Served, version: str) -> None:
        """Tell one server to load and serve a version beside those it has. Raises also Unanswered, NotApplied."""
        raise NotImplementedError

    def unload(self, service: Service, http: Http, served: Served, version: str) -> None:
        """Free one version that is neither served nor the way back. Errors as for `send`."""

    def shadow(self, service: Service, http: Http, reference: str, *, on: bool) -> str:
        """Compare a share of the live answers with `reference`, or stop it; what came of it, in words."""
        return "not available: this server cannot compare two versions" if on else "off"

    def batch_size(self, service: Service, http: Http) -> int | None:
        """The batch size in force, None where the server does not tell."""
        return None

    def recorded(self, service: Service, http: Http) -> bytes | None:
        """A .npz of inputs that the server kept, None where it keeps none (or does not answer, or answers too much)."""
        return None

    # the lever

    def rights(self, service: Service) -> list[tuple[str, Ref]]:
        """What slotune's Role has to grant for the build, as (verb, object): none unless it runs in a pod."""
        build = self.options_of(service).build
        return [] if build.kind != "pod" else _pods().build_rights(build)

    def may(self, service: Service, verb: str, ref: Ref) -> bool:
        """Whether the credentials of the build's cluster have one right (changes nothing)."""
        return bool(_pods().may(self._connections, self.options_of(service).build, verb, ref))

    def read(self, service: Service) -> Setting:
        """The version and precision in force; where replicas differ, what most of them serve, and a note."""
        return _setting({name: self._served(service, http) for name, http in self.endpoints(service).items()})

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        """Serve `change.new["precision"]` on every replica, or on none. A version named there is taken if it fits.

        Raises QuantizationRefused (with the gates' table as its evidence), ControlUnreachable, ControlRefused,
        NotApplied, NotOwner, OutcomeUnknown, Temporary (another build is publishing).
        """
        started_s = self._clock()
        endpoints = self.endpoints(service)
        before = {name: self._served(service, http) for name, http in endpoints.items()}
        _check_owner(service, change, before)
        wanted = self._wanted(service, change, key, endpoints, before)
        swap_s = self._clock()
        budget = budget_of(service, self.lever)
        endpoints = self.endpoints(service, budget)
        places = {name: _Place(self, service, http) for name, http in endpoints.items()}
        stood = {name: _knobs(served["version"], served["precision"]) for name, served in before.items()}
        made = swap(
            places, stood, {"version": wanted.version}, sleep=self._sleep, looks=READ_BACKS, back=budget.renew,
            undoes=change.undoes,
        )  # fmt: skip
        budget.renew()
        shadow = {name: self._shadow(service, http, before[name], wanted) for name, http in endpoints.items()}
        unloaded = sorted(
            {v for name, http in endpoints.items() for v in self._unload(service, http, before[name], wanted)}
        )
        after = {name: self._after(service, http, before[name], made.get(name)) for name, http in endpoints.items()}
        at_s = self._clock()
        return options.receipt(
            service,
            change,
            key,
            before=_setting(before).values,
            after=_setting(after).values,
            changed=bool(made),
            at_s=at_s,
            took_s=at_s - started_s,
            reason=f"version {wanted.version} ({wanted.precision}) "
            + (f"loaded on {len(made)} of {len(endpoints)} replicas" if made else "serves already"),
            evidence={
                **wanted.evidence,
                "swap_s": round(at_s - swap_s, 3),
                "replicas": {name: dict(served) for name, served in after.items()},
                "shadow": shadow,
                "unloaded": unloaded,
            },
        )

    def endpoints(self, service: Service, budget: Budget | None = None) -> dict[str, Http]:
        """The replicas' addresses by name. budget: of the change whose calls they serve."""
        given = self.options_of(service)
        found = connections_of(self._connections, given.connection, given.endpoints)
        timeout_s = given.request_timeout_s
        return {name: Http(connection, timeout_s=timeout_s, budget=budget) for name, connection in found.items()}

    def model(self, service: Service) -> str:
        """The model's name at the server."""
        return self.options_of(service).model or service.name

    # where to go

    def _wanted(
        self,
        service: Service,
        change: Change,
        key: str,
        endpoints: Mapping[str, Http],
        before: Mapping[str, Served],
    ) -> Wanted:
        precision = str(change.new.get("precision", ""))
        asked = str(change.new.get("version", ""))
        if precision not in ("fp32", "int8"):
            raise ConfigError(f"precision must be fp32 or int8, not {precision!r}")
        known = self._on_disk(service)
        if asked in known and known[asked].precision == precision:
            _refuse_damaged(known[asked])
            return Wanted(asked, precision, {})
        if precision == "int8":
            for name, http in endpoints.items():
                self.prepare(service, http, before[name])
            around = Around(
                serving=tuple(int(v) for s in before.values() for v in s["loaded"] if v.isdigit()),
                samples=tuple(self.recorded(service, http) for http in endpoints.values()),
                batch_size=self.batch_size(service, next(iter(endpoints.values()))),
            )
            version, evidence = self._int8.version(service, self.options_of(service), key, around)
            return Wanted(version, "int8", evidence)
        full = [name for name, version in known.items() if version.precision == "fp32"]
        if not known:  # no shared folder: trust the name, the server knows
            full = [asked] if asked else []
        if not full:
            raise QuantizationRefused(f"{service.name} has no FP32 version left to go back to")
        return Wanted(asked if asked in full else full[-1], "fp32", {})

    # getting there

    def _after(self, service: Service, http: Http, before: Served, made: Knobs | None) -> Served:
        """What serves after the swap. It was read back once: a server that is silent now takes nothing of that back."""
        try:
            return self._served(service, http)
        except (ControlUnreachable, ControlRefused):
            if made is None:
                return before
            loaded = (*before["loaded"], str(made["version"]))
            return Served(version=str(made["version"]), precision=str(made["precision"]), loaded=loaded)

    def _unload(self, service: Service, http: Http, before: Served, wanted: Wanted) -> list[str]:
        """Free the memory of versions that are neither served nor the way back. Never fails a change."""
        done: list[str] = []
        if before["version"] == wanted.version:
            return done
        for version in before["loaded"]:
            if version in (before["version"], wanted.version):
                continue
            try:
                self.unload(service, http, before, version)
            except (ControlRefused, ControlUnreachable, Unanswered):
                continue
            done.append(version)
        return done

    def _shadow(self, service: Service, http: Http, before: Served, wanted: Wanted) -> str:
        """Compare live answers with the old version from now on, or stop it on the way back. Never fails a change."""
        on = wanted.precision == "int8"
        if on and before["version"] == wanted.version:
            return "left as it is"
        return self.shadow(service, http, before["version"], on=on)

    # what is there

    def _served(self, service: Service, http: Http) -> Served:
        known = {name: version.precision for name, version in self._on_disk(service).items()}
        return served_of(self.versions(service, http), known, http.shown, self.model(service))

    def _on_disk(self, service: Service) -> dict[str, Version]:
        root = self.options_of(service).repository
        if not root:
            return {}
        versions = Repository(Path(root), self.model(service)).versions()
        return {str(version.number): version for version in versions}


class _Place:
    """One replica of a service, as `swap` needs it."""

    def __init__(self, lever: PrecisionEndpoints, service: Service, http: Http) -> None:
        self.shown = http.shown
        self._lever, self._service, self._http = lever, service, http

    def read(self) -> Knobs:
        served = self._lever._served(self._service, self._http)
        return _knobs(served["version"], served["precision"])

    def send(self, wanted: Knobs) -> None:
        served = self._lever._served(self._service, self._http)
        self._lever.send(self._service, self._http, served, str(wanted["version"]))


def served_of(rows: list[Row], precisions: Mapping[str, str], shown: str, model: str) -> Served:
    """What an index says. precisions: of the versions on disk; a server's own mark goes first.

    Without a mark the highest loaded version serves: the protocol's rule for requests that name none.
    """
    loaded = [row for row in rows if row.get("state") == "READY"]
    ready = [(number, row) for row in loaded if (number := answers.version(row.get("version"))) is not None]
    if not ready:
        why = "; ".join(options.bounded(str(row["reason"]), 120) for row in rows[:4] if row.get("reason"))
        odd = "".join(f"a version called {options.bounded(repr(r.get('version')), 40)}, no number" for r in loaded[:1])
        raise ControlRefused(
            f"{shown} has no version of {model} loaded ({odd or why or 'model: is the served name right?'})"
        )
    marked = [(number, row) for number, row in ready if row.get("served") is True]
    version, row = marked[0] if marked else max(ready, key=lambda pair: int(pair[0]))
    precision = options.bounded(str(row.get("precision") or precisions.get(version, "fp32")), 40)
    return Served(version=version, precision=precision, loaded=tuple(number for number, _ in ready))


def _setting(shown: Mapping[str, Served]) -> Setting:
    pairs = {name: (served["version"], served["precision"]) for name, served in shown.items()}
    common = Counter(pairs.values()).most_common(1)[0][0]
    others = {name: pair for name, pair in pairs.items() if pair != common}
    words = [f"{name} serves version {v} ({p})" for name, (v, p) in others.items()]
    return Setting(
        lever=LEVER,
        values=_knobs(*common),
        others={name: _knobs(*pair) for name, pair in others.items()},
        version=make_id(*sorted(pairs.items())),
        note=f"replicas differ: {'; '.join(words)}" if others else "",
    )


def _knobs(version: str, precision: str) -> dict[str, Knob]:
    return {"version": version, "precision": precision}


def _check_owner(service: Service, change: Change, shown: Mapping[str, Served]) -> None:
    """Judged by precision: the version that INT8 will get is not known before it is made."""
    known = {change.old.get("precision"), change.new.get("precision")}
    strange = sorted({served["precision"] for served in shown.values()} - {str(p) for p in known if p is not None})
    if strange and None not in known:
        raise NotOwner(
            f"{service.name} serves {', '.join(strange)}, neither {change.old.get('precision')} nor "
            f"{change.new.get('precision')}: somebody else changed it; slotune stands down"
        )


def _refuse_damaged(version: Version) -> None:
    wrong = problems(Path(version.path)) if version.manifest is not None else ()
    if wrong:
        raise QuantizationRefused(f"version {version.number} must not be served: {'; '.join(wrong)}")


def _pods() -> ModuleType:
    """Builds in pods: imported where they are used (the Kubernetes client is a second of imports)."""
    from tuning.actuators import _pod_build

    return _pod_build
