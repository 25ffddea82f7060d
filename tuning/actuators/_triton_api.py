"""Triton's model repository extension, as both Triton levers use it: configuration, index, load (gRPC or HTTP).

A load takes a complete model configuration that REPLACES the old one. Three things that Triton 2.51 was seen to do
shape this module. The configuration that it shows keeps a stale `version_policy` after a load that changed only that,
so what is served is read from the index, and every load names exactly those versions: a batch change must not bring an
INT8 version back. A refused load of an ordinary model leaves the old one serving, but takes an ensemble down, and so
does a smaller batch of one of its members: the first is never sent, the second is looked for. And an HTTP load stalls
HTTP inference while it lasts (Triton issue 8958), so a connection with extra grpc loads through gRPC where tritonclient
is installed.

Extra settings of a connection: grpc (a port, or "host:port" of the one server that the connection names), grpc_ssl
(true: TLS), headers (a mapping, for restricted endpoints; gRPC gets them with the prefix triton-grpc-protocol-).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Collection
from typing import Any

from tuning.actuators import _answers as answers
from tuning.actuators import _options as options
from tuning.actuators._http import Http, Unanswered, segment
from tuning.errors import ControlRefused, ControlUnreachable, NotApplied

Config = dict[str, Any]
Row = dict[str, Any]


def config_of(http: Http, model: str) -> Config:
    """The complete configuration as Triton shows it. Raises ControlUnreachable, ControlRefused."""
    path = f"/v2/models/{segment(model)}/config"
    config = http.call("GET", path)
    size = answers.whole(config.get("max_batch_size")) if isinstance(config, dict) else None
    if size is None:
        raise ControlRefused(f"GET {http.shown}{path} is not the configuration of a model")
    return {**config, "max_batch_size": size}


def reloadable(config: Config, model: str) -> Config:
    """The configuration, if a reload harms nobody. ControlRefused: an ensemble, or a model with running sequences."""
    if "ensemble_scheduling" in config or config.get("platform") == "ensemble":
        raise ControlRefused(f"{model} is an ensemble: change the models that it is made of, not the ensemble")
    if "sequence_batching" in config:
        raise ControlRefused(f"{model} keeps sequences in memory (sequence_batching): a reload would break them off")
    return config


def index(http: Http) -> list[Row]:
    """The index rows of all models: name, version, state, reason. Triton answers only to POST."""
    try:
        return answers.rows(http.call("POST", "/v2/repository/index", {}, reading=True))
    except answers.Unusable as error:
        raise ControlRefused(f"POST {http.shown}/v2/repository/index answered {error}") from error


def rows_of(http: Http, model: str) -> list[Row]:
    """The index rows of one model."""
    return [row for row in index(http) if row.get("name") == model]


def ready(rows: Collection[Row]) -> set[int]:
    """The versions that answer requests."""
    found = [answers.version(row.get("version")) for row in rows if row.get("state") == "READY"]
    return {int(version) for version in found if version is not None}


def pinned(config: Config, versions: Collection[int]) -> Config:
    """The complete configuration with exactly these versions in force."""
    return {**config, "version_policy": {"specific": {"versions": sorted(versions)}}}


def change(http: Http, model: str, old: Config, new: Config, timeout_s: float) -> None:
    """Load `new`; when Triton refuses it and nothing answers any more, load `old` again.

    Raises ControlUnreachable, Unanswered (it may have landed), ControlRefused (the old configuration keeps serving, or
    serves again), NotApplied (loaded, but not the versions that it names, or nothing serves: the message says which).
    """
    try:
        load(http, model, new, timeout_s)
    except ControlRefused as error:
        try:
            there = ready(rows_of(http, model))
        except (ControlRefused, ControlUnreachable) as silent:
            raise Unanswered(f"{error}; and what serves now cannot be read ({silent})") from error
        if there:
            raise ControlRefused(f"{error}; the old configuration keeps serving") from error
        try:
            load(http, model, old, timeout_s)
        except (ControlRefused, ControlUnreachable, Unanswered) as worse:
            raise NotApplied(
                f"{error}; NO version of {model} serves now, and loading it again failed: {worse}"
            ) from error
        raise ControlRefused(f"{error}; the model had gone, and the old configuration was loaded again") from error
    try:
        check_ready(http, model, {int(v) for v in new["version_policy"]["specific"]["versions"]})
    except (ControlRefused, ControlUnreachable) as error:
        raise Unanswered(f"the configuration was loaded, but whether it serves cannot be read: {error}") from error


def answering(http: Http, model: str) -> str:
    """The version that answers requests which name none: the highest that is ready. ControlRefused: none is."""
    rows = rows_of(http, model)
    there = ready(rows)
    if not there:
        why = "; ".join(options.bounded(str(row["reason"]), 120) for row in rows[:4] if row.get("reason"))
        said = why or "is the model's name right?"
        raise ControlRefused(f"{http.shown} has no version of {model} loaded ({said})")
    return str(max(there))


def answer_with(http: Http, model: str, version: str, timeout_s: float) -> None:
    """Have one version alone answer requests. Raises as `change`; ControlRefused also for what is no number."""
    if not version.isdigit():
        raise ControlRefused(f"{version!r} is no version of a Triton model: those are numbers")
    config = reloadable(config_of(http, model), model)
    there = ready(rows_of(http, model))
    change(http, model, pinned(config, there), pinned(config, {int(version)}), timeout_s)


def check_ready(http: Http, model: str, versions: Collection[int]) -> None:
    """What the configuration alone does not tell: the index and each version's own readiness. Raises NotApplied."""
    rows = rows_of(http, model)
    there = ready(rows)
    if not there:
        why = "; ".join(options.bounded(str(r.get("reason") or r.get("state"))) for r in rows[:4]) or "not listed"
        raise NotApplied(f"{http.shown} accepted the configuration, but no version of {model} is ready ({why})")
    if there != set(versions):
        raise NotApplied(
            f"{http.shown} accepted the configuration, but serves version {_list(there)} of {model}, "
            f"not {_list(versions)}"
        )
    for version in sorted(there):
        try:
            http.call("GET", f"/v2/models/{segment(model)}/versions/{version}/ready")
        except ControlRefused as error:
            raise NotApplied(f"{http.shown} accepted the configuration, but version {version} is not ready") from error


def ensembles_below(http: Http, model: str, batch_size: int) -> list[str]:
    """Loaded ensembles that have `model` as a step and take larger batches than this: Triton would drop them."""
    others = {str(row.get("name")) for row in index(http) if row.get("state") == "READY"} - {model}
    found = []
    for name in sorted(others):
        config = http.call("GET", f"/v2/models/{segment(name)}/config")
        around = config.get("ensemble_scheduling") if isinstance(config, dict) else None
        steps = around.get("step") if isinstance(around, dict) else None
        if not isinstance(steps, list) or not any(isinstance(s, dict) and s.get("model_name") == model for s in steps):
            continue
        size = answers.whole(config.get("max_batch_size"))
        if size is None or size > batch_size:
            found.append(f"{options.bounded(name, 80)} (up to {'an unknown size' if size is None else size})")
    return found


def load(http: Http, model: str, config: Config, timeout_s: float) -> None:
    """Load the model with this configuration; returns when Triton says it is loaded.

    Raises ControlUnreachable, Unanswered (it may have landed), ControlRefused.
    """
    try:
        text = json.dumps(config, allow_nan=False)
    except ValueError as error:
        raise ControlRefused(f"the configuration of {model} holds a number that JSON cannot carry") from error
    try:
        if not _load_by_grpc(http, model, text, timeout_s):
            body = {"parameters": {"config": text}}
            http.call("POST", f"/v2/repository/models/{segment(model)}/load", body, timeout_s=timeout_s)
    except Unanswered as error:
        # a gateway gives up on a long load before Triton does, unless it is Triton that says so
        if error.status not in (500, 501) and not _mode(str(error)):
            raise
        # Triton loads while one waits: a 5xx is its verdict on the new model
        raise ControlRefused(f"{error}{_mode(str(error))}") from error


def _load_by_grpc(http: Http, model: str, config: str, timeout_s: float) -> bool:
    """True when the load went through gRPC; False where there is no address for it or no client installed."""
    address = grpc_address(http)
    if address is None:
        return False
    try:
        grpc = importlib.import_module("tritonclient.grpc")
    except ImportError:
        return False
    client = grpc.InferenceServerClient(url=address, ssl=str(http.extra.get("grpc_ssl")).lower() in ("true", "1"))
    metadata = {
        name.lower() if name == "Authorization" else f"triton-grpc-protocol-{name.lower()}": value
        for name, value in http.headers().items()
    }
    try:
        client.load_model(model, headers=metadata, config=config, client_timeout=timeout_s)
    except Exception as error:
        raise _grpc_failure(error, f"gRPC load of {model} at {address}") from error
    finally:
        client.close()
    return True


def grpc_address(http: Http) -> str | None:
    """host:port of the server's gRPC endpoint. A port alone belongs to the host of the HTTP address."""
    given = http.extra.get("grpc")
    text = str(given).removeprefix(":") if isinstance(given, str | int) and not isinstance(given, bool) else ""
    if not text:
        return None
    host = http.address.host
    return f"{f'[{host}]' if ':' in host else host}:{text}" if text.isdigit() else text


def _grpc_failure(error: Exception, what: str) -> Exception:
    """Triton says UNAVAILABLE for a refusal, too; and who was never connected to has sent nothing."""
    status = str(getattr(error, "status", lambda: "")())
    words = options.bounded(str(error))
    if "not allowed" in words or "restricted" in words:
        return ControlRefused(f"{what}: {words}{_mode(words)}")
    if "failed to connect" in words or "Connection refused" in words:
        return ControlUnreachable(f"{what}: nobody listens there ({words})")
    if "DEADLINE" in status or "UNAVAILABLE" in status or "CANCELLED" in status:
        return Unanswered(f"{what}: {words}")
    return ControlRefused(f"{what}: {words}")


def _mode(words: str) -> str:
    return " (Triton must run with --model-control-mode=explicit)" if "not allowed" in words else ""


def _list(versions: Collection[int]) -> str:
    return ", ".join(str(version) for version in sorted(versions)) or "none"
