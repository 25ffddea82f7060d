"""Triton's model repository extension, as both Triton levers use it: configuration, index, load (gRPC or HTTP).

A load takes a complete model configuration that REPLACES the old one. An HTTP load stalls HTTP inference while it lasts
(Triton issue 8958), so a connection with extra grpc "host:port" loads through gRPC where tritonclient is installed.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

from tuning.actuators import _options as options
from tuning.actuators._http import Http, Unanswered
from tuning.errors import ControlRefused

Config = dict[str, Any]


def config_of(http: Http, model: str) -> Config:
    """The complete configuration in force. Raises ControlUnreachable, ControlRefused."""
    config = http.call("GET", f"/v2/models/{model}/config")
    size = config.get("max_batch_size") if isinstance(config, dict) else None
    if not isinstance(size, int) or isinstance(size, bool):
        raise ControlRefused(f"GET {http.shown}/v2/models/{model}/config is not the configuration of a model")
    return dict(config)


def index(http: Http, model: str) -> list[dict[str, Any]]:
    """The index rows of a model: name, version, state, reason. Triton answers only to POST."""
    rows = http.call("POST", "/v2/repository/index", {}, reading=True)
    return [row for row in rows or [] if isinstance(row, dict) and row.get("name") == model]


def load(http: Http, model: str, config: Config, timeout_s: float) -> None:
    """Load the model with this configuration; returns when Triton says it is loaded.

    Raises ControlUnreachable, Unanswered (it may have landed), ControlRefused (the old configuration keeps serving).
    """
    text = json.dumps(config)
    try:
        if not _load_by_grpc(http, model, text, timeout_s):
            body = {"parameters": {"config": text}}
            http.call("POST", f"/v2/repository/models/{model}/load", body, timeout_s=timeout_s)
    except Unanswered as error:
        if error.status is not None:  # Triton loads while one waits: a 5xx is its verdict on the new model
            raise ControlRefused(f"{error}; the old configuration keeps serving") from error
        raise


def _load_by_grpc(http: Http, model: str, config: str, timeout_s: float) -> bool:
    """True when the load went through gRPC; False where there is no address for it or no client installed."""
    address = http.extra.get("grpc")
    if not isinstance(address, str) or not address:
        return False
    try:
        grpc = importlib.import_module("tritonclient.grpc")
    except ImportError:
        return False
    client = grpc.InferenceServerClient(url=address)
    try:
        client.load_model(model, config=config, client_timeout=timeout_s)
    except Exception as error:
        status = str(getattr(error, "status", lambda: "")())
        words = options.bounded(str(error))
        if "DEADLINE" in status or "UNAVAILABLE" in status or "CANCELLED" in status:
            raise Unanswered(f"gRPC load of {model} at {address}: {words}") from error
        raise ControlRefused(
            f"gRPC load of {model} at {address}: {words}; the old configuration keeps serving"
        ) from error
    finally:
        client.close()
    return True
