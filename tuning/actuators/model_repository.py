"""FP32 to INT8 and back: a new version in the model repository, loaded beside the old one by every replica.

To INT8: find or make an artefact that passed every gate (tuning.quantization.ensure), publish it, tell each server to
load it, read back. Back: load the old version, which is still in memory. When one replica refuses, those already
changed go back too.

Options of the lever: connection, endpoints (further replicas: connection names or addresses), model (served name;
default: the service's), onnx (the FP32 model), calibration (.npz file or folder, or "recorded"), repository (a path
that this process and the servers share), max_accuracy_drop (0.01), min_agreement (0.98), min_speedup (1.1),
keep_versions (4), shadow_share (0.1: of the live requests also go through the old version, so that the verifier can see
whether the answers agree; 0 for none), max_calibration_age_days (30; for files that say when they were recorded),
request_timeout_s (5), load_timeout_s (120).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import requests

from detection.model import Service, make_id
from tuning.actuators import _options as options
from tuning.actuators._http import LIMIT_BYTES, Http, Unanswered
from tuning.errors import (
    ConfigError,
    ControlRefused,
    ControlUnreachable,
    NotApplied,
    NotOwner,
    OutcomeUnknown,
    QuantizationRefused,
    SlotuneError,
)
from tuning.model import Change, Knob, Receipt, Setting
from tuning.ports import Connection, Connections
from tuning.quantization import pipeline
from tuning.quantization.calibration import CalibrationData, check_fresh, from_bytes, load_calibration
from tuning.quantization.ensure import Make, ensure_int8
from tuning.quantization.gates import GateLimits
from tuning.quantization.model import LoadedModel, load_model
from tuning.quantization.repository import Repository, Version, problems

LEVER = "precision"
READ_BACKS = 5
MIN_LIVE_ROWS = 100
SAMPLE_LIMIT_BYTES = 16 * LIMIT_BYTES


class Served(TypedDict):
    """What one replica serves, and which versions it has in memory."""

    version: str
    precision: str
    loaded: tuple[str, ...]


@dataclass(frozen=True)
class _Plan:
    """Where to go: the version, and what the mail should know about how it came to be."""

    version: str
    precision: str
    evidence: dict[str, object]


class ModelRepository:
    """The precision lever of servers with the Open Inference Protocol's repository calls. `make` is the build."""

    name = "model_repository"
    lever = LEVER

    def __init__(
        self,
        connections: Connections,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        *,
        make: Make | None = None,
    ) -> None:
        self._connections, self._clock, self._sleep, self._make = connections, clock, sleep, make

    def read(self, service: Service) -> Setting:
        """The version and precision in force; where replicas differ, what most of them serve, and a note."""
        return _setting({name: self._served(service, http) for name, http in self._endpoints(service).items()})

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        """Serve `change.new["precision"]` on every replica, or on none. A version named there is taken if it fits.

        Raises QuantizationRefused (with the gates' table as its evidence), ControlUnreachable, ControlRefused,
        NotApplied, NotOwner, OutcomeUnknown, Temporary (another build is publishing).
        """
        started_s = self._clock()
        endpoints = self._endpoints(service)
        before = {name: self._served(service, http) for name, http in endpoints.items()}
        _check_owner(service, change, before)
        wanted = self._plan(service, change, key, endpoints, before)
        swap_s = self._clock()
        made = self._swap(service, endpoints, before, wanted)
        shadow = {name: self._shadow(service, http, before[name], wanted) for name, http in endpoints.items()}
        unloaded = sorted(
            {v for name, http in endpoints.items() for v in self._unload(service, http, before[name], wanted)}
        )
        after = {name: self._served(service, http) for name, http in endpoints.items()}
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

    # where to go

    def _plan(
        self,
        service: Service,
        change: Change,
        key: str,
        endpoints: Mapping[str, Http],
        before: Mapping[str, Served],
    ) -> _Plan:
        precision = str(change.new.get("precision", ""))
        asked = str(change.new.get("version", ""))
        if precision not in ("fp32", "int8"):
            raise ConfigError(f"precision must be fp32 or int8, not {precision!r}")
        known = self._on_disk(service)
        if asked in known and known[asked].precision == precision:
            _refuse_damaged(known[asked])
            return _Plan(asked, precision, {})
        if precision == "int8":
            return self._int8(service, key, endpoints, before)
        full = [name for name, version in known.items() if version.precision == "fp32"]
        if not known:  # no shared folder: trust the name, the server knows
            full = [asked] if asked else []
        if not full:
            raise QuantizationRefused(f"{service.name} has no FP32 version left to go back to")
        return _Plan(asked if asked in full else full[-1], "fp32", {})

    def _int8(self, service: Service, key: str, endpoints: Mapping[str, Http], before: Mapping[str, Served]) -> _Plan:
        path = options.optional_text(service, LEVER, "onnx")
        calibration = options.optional_text(service, LEVER, "calibration")
        if path is None or calibration is None or options.optional_text(service, LEVER, "repository") is None:
            raise QuantizationRefused(
                f"no calibrated model is configured for {service.name}: its precision lever needs onnx, calibration "
                "and repository"
            )
        model = load_model(Path(path))
        recorded = self._recorded(model, endpoints)
        if calibration == "recorded":
            if recorded is None:
                raise QuantizationRefused(
                    f"{service.name} has recorded fewer than {MIN_LIVE_ROWS} inputs: wait for traffic, or name a file"
                )
            data, live = recorded, None
        else:
            data, live = load_calibration(Path(calibration), model), recorded
            max_age_s = options.number(service, LEVER, "max_calibration_age_days", 30.0) * 86_400
            check_fresh(data, now_s=self._clock(), max_age_s=max_age_s)
        ensured = ensure_int8(
            self._repository(service),
            model,
            data,
            self._recipe(service, next(iter(endpoints.values()))),
            key=key,
            live=live,
            serving=[int(v) for s in before.values() for v in s["loaded"] if v.isdigit()],
            keep=int(options.number(service, LEVER, "keep_versions", 4)),
            make=self._make,
        )
        judged = "recorded live inputs" if recorded is not None else "held-back calibration rows"
        return _Plan(
            str(ensured.version.number), "int8", {**ensured.evidence, "built": ensured.made, "judged_on": judged}
        )

    def _recipe(self, service: Service, http: Http) -> pipeline.Recipe:
        limits = GateLimits(
            max_accuracy_drop=options.number(service, LEVER, "max_accuracy_drop", 0.01),
            min_agreement=options.number(service, LEVER, "min_agreement", 0.98),
            min_speedup=options.number(service, LEVER, "min_speedup", 1.1),
        )
        return pipeline.Recipe(limits=limits, batches=tuple(sorted({1, _batch_size(http)})))

    def _recorded(self, model: LoadedModel, endpoints: Mapping[str, Http]) -> CalibrationData | None:
        """Inputs that the servers kept: the largest usable sample; None when none has enough."""
        found: list[CalibrationData] = []
        for http in endpoints.values():
            sample = _fetch(http, "/recorded-inputs")
            if sample is None:
                continue
            try:
                found.append(from_bytes(sample, model, source="the recorded live inputs", min_rows=MIN_LIVE_ROWS))
            except QuantizationRefused:
                continue
        return max(found, key=lambda data: data.rows, default=None)

    # getting there

    def _swap(
        self, service: Service, endpoints: Mapping[str, Http], before: Mapping[str, Served], wanted: _Plan
    ) -> list[str]:
        made: list[str] = []
        for name, http in endpoints.items():
            if before[name]["version"] == wanted.version:
                continue
            try:
                self._load(service, http, wanted.version)
            except (ControlRefused, ControlUnreachable, NotApplied) as error:
                self._put_back(service, endpoints, before, made, error)
                raise
            made.append(name)
        return made

    def _load(self, service: Service, http: Http, version: str) -> None:
        unanswered: Unanswered | None = None
        timeout_s = options.number(service, LEVER, "load_timeout_s", 120.0)
        try:
            path = f"/v2/repository/models/{self._model(service)}/load"
            http.call("POST", path, {"version": version}, timeout_s=timeout_s)
        except Unanswered as error:
            unanswered = error
        shown = self._read_back(service, http, version, patient=unanswered is not None)
        if shown == version:
            return
        if shown is None or unanswered is not None:
            found = "got no answer" if shown is None else f"shows version {shown}"
            raise OutcomeUnknown(f"{unanswered or http.shown}; the read-back {found}") from unanswered
        raise NotApplied(f"{http.shown} accepted version {version} but its read-back shows {shown}")

    def _read_back(self, service: Service, http: Http, version: str, *, patient: bool) -> str | None:
        shown: str | None = None
        for attempt in range(READ_BACKS):
            try:
                shown = self._served(service, http)["version"]
            except ControlUnreachable:
                shown = None
            if shown is not None and (shown == version or not patient):
                return shown
            if attempt + 1 < READ_BACKS:
                self._sleep(0.5 * 2**attempt)
        return shown

    def _put_back(
        self,
        service: Service,
        endpoints: Mapping[str, Http],
        before: Mapping[str, Served],
        made: Iterable[str],
        why: Exception,
    ) -> None:
        for name in made:
            try:
                self._load(service, endpoints[name], before[name]["version"])
            except SlotuneError as error:
                raise OutcomeUnknown(f"{why}; and {name}, changed before, could not be put back ({error})") from error

    def _unload(self, service: Service, http: Http, before: Served, wanted: _Plan) -> list[str]:
        """Free the memory of versions that are neither served nor the way back. Never fails a change."""
        done: list[str] = []
        if before["version"] == wanted.version:
            return done
        for version in before["loaded"]:
            if version in (before["version"], wanted.version):
                continue
            try:
                http.call("POST", f"/v2/repository/models/{self._model(service)}/unload", {"version": version})
            except (ControlRefused, ControlUnreachable, Unanswered):
                continue
            done.append(version)
        return done

    def _shadow(self, service: Service, http: Http, before: Served, wanted: _Plan) -> str:
        """Compare live answers with the old version from now on, or stop it on the way back. Never fails a change."""
        share = options.number(service, LEVER, "shadow_share", 0.1) if wanted.precision == "int8" else 0.0
        if share > 0 and before["version"] == wanted.version:
            return "left as it is"
        body = {"reference": before["version"], "share": share} if share > 0 else {"share": 0.0}
        try:
            http.call("POST", "/shadow", body)
        except (ControlRefused, ControlUnreachable, Unanswered) as error:
            return f"not available: {options.bounded(str(error), 120)}"
        return f"{share:.0%} of the requests also go through version {before['version']}" if share > 0 else "off"

    # what is there

    def _served(self, service: Service, http: Http) -> Served:
        index = http.call("GET", "/v2/repository/index")
        rows = index.get("models") if isinstance(index, dict) else index
        model = self._model(service)
        ours = [row for row in rows or () if isinstance(row, dict) and row.get("name") == model]
        ready = [row for row in ours if row.get("state") == "READY" and str(row.get("version", "")).isdigit()]
        if not ready:
            raise ControlRefused(f"{http.shown} has no version of {model} loaded (model: is the served name right?)")
        # Without a mark the highest loaded version serves: the protocol's rule for requests that name none.
        marked = [row for row in ready if row.get("served") is True]
        row = marked[0] if marked else max(ready, key=lambda r: int(r["version"]))
        version = str(row["version"])
        known = self._on_disk(service).get(version)
        precision = row.get("precision") or (known.precision if known is not None else "fp32")
        return Served(version=version, precision=str(precision), loaded=tuple(str(r["version"]) for r in ready))

    def _on_disk(self, service: Service) -> dict[str, Version]:
        if options.optional_text(service, LEVER, "repository") is None:
            return {}
        return {str(version.number): version for version in self._repository(service).versions()}

    def _repository(self, service: Service) -> Repository:
        return Repository(Path(options.text(service, LEVER, "repository")), self._model(service))

    def _model(self, service: Service) -> str:
        return options.optional_text(service, LEVER, "model") or service.name

    def _endpoints(self, service: Service) -> dict[str, Http]:
        first = options.text(service, LEVER, "connection")
        timeout_s = options.number(service, LEVER, "request_timeout_s", 5.0)
        named = dict.fromkeys((first, *options.texts(service, LEVER, "endpoints")))
        return {name: Http(self._connection(first, name), timeout_s=timeout_s) for name in named}

    def _connection(self, first: str, name: str) -> Connection:
        """A plain address shares the first connection's credentials."""
        if not name.startswith(("http://", "https://")):
            return self._connections.get(name)
        return replace(self._connections.get(first), name=name, url=name)


def _setting(shown: Mapping[str, Served]) -> Setting:
    pairs = {name: (served["version"], served["precision"]) for name, served in shown.items()}
    common = Counter(pairs.values()).most_common(1)[0][0]
    others = [f"{name} serves version {v} ({p})" for name, (v, p) in pairs.items() if (v, p) != common]
    values: dict[str, Knob] = {"version": common[0], "precision": common[1]}
    return Setting(
        lever=LEVER,
        values=values,
        version=make_id(*sorted(pairs.items())),
        note=f"replicas differ: {'; '.join(others)}" if others else "",
    )


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


def _batch_size(http: Http) -> int:
    """The batch size in force where the server tells it (it is one that gets timed), else 8."""
    try:
        body: Any = http.call("GET", "/config")
    except (ControlRefused, ControlUnreachable):
        return 8
    size = body.get("batch_size") if isinstance(body, dict) else None
    return size if isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= 256 else 8


def _fetch(http: Http, path: str) -> bytes | None:
    """The bytes at a path, None when the server has no such thing, does not answer, or answers too much."""
    try:
        with requests.get(
            http.base + path,
            headers=http._headers(),
            auth=http._auth(),
            timeout=(5.0, 30.0),
            stream=True,
            allow_redirects=False,
        ) as response:
            if response.status_code != 200:
                return None
            data = response.raw.read(SAMPLE_LIMIT_BYTES + 1, decode_content=True)
            return bytes(data) if len(data) <= SAMPLE_LIMIT_BYTES else None
    except (requests.RequestException, OSError):
        return None
