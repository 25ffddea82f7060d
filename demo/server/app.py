"""The calls of the server: inference (OIP v2), versions, configuration, faults, metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from demo.server.batching import Batcher, QueueFull
from demo.server.metrics import Metrics
from demo.server.protocol import HEADER_LENGTH, BadRequest, encode_answer, parse_request
from demo.server.repository import Busy, Repository

MAX_BATCH = 256
MAX_QUEUE = 1_000_000
MAX_TIMEOUT_MS = 10_000.0
MAX_BODY = 16 * 2**20


def answer(document: object, status: int = 200) -> web.Response:
    return web.Response(body=json.dumps(document).encode(), status=status, content_type="application/json")


class Api:
    """The handlers, over one model."""

    def __init__(self, repository: Repository, batcher: Batcher, metrics: Metrics, *, emulated: bool) -> None:
        self._repository, self._batcher, self._metrics = repository, batcher, metrics
        self._emulated = emulated
        self.stopping = False

    def application(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY)
        name = self._repository.model
        get: dict[str, Callable[[web.Request], Awaitable[web.Response]]] = {
            "/v2": self.server_metadata,
            "/v2/health/live": self.live,
            "/v2/health/ready": self.ready,
            f"/v2/models/{name}": self.model_metadata,
            f"/v2/models/{name}/ready": self.ready,
            "/v2/repository/index": self.index,
            "/config": self.get_config,
            "/fault": self.get_fault,
            "/shadow": self.get_shadow,
            "/recorded-inputs": self.recorded_inputs,
            "/metrics": self.prometheus,
        }
        post = {
            f"/v2/models/{name}/infer": self.infer,
            f"/v2/repository/models/{name}/load": self.load,
            f"/v2/repository/models/{name}/unload": self.unload,
            "/config": self.set_config,
            "/fault": self.set_fault,
            "/shadow": self.set_shadow,
        }
        for path, handler in get.items():
            app.router.add_get(path, _sentences(handler))
        for path, handler in post.items():
            app.router.add_post(path, _sentences(handler))
        app.router.add_post("/v2/repository/index", _sentences(self.index))
        app.router.add_route("*", "/{rest:.*}", self.unknown)
        return app

    # inference

    async def infer(self, request: web.Request) -> web.Response:
        version = self._repository.active
        if version is None or self.stopping:
            return self._failed(503, "the model does not serve")
        try:
            body = await request.read()
            rows, request_id, binary = parse_request(body, request.headers.get(HEADER_LENGTH), version.model.input)
        except (BadRequest, web.HTTPRequestEntityTooLarge) as bad:
            return self._failed(400, str(bad))
        if len(rows) > MAX_BATCH:
            return self._failed(400, f"at most {MAX_BATCH} rows in one request, not {len(rows)}")
        if self._batcher.faults.fails():
            return self._failed(500, "a fault was asked for")
        try:
            out, version = await self._batcher.submit(rows)
        except QueueFull:
            return self._failed(503, f"{self._batcher.max_queue} requests wait already")
        except RuntimeError as failure:
            return self._failed(500, f"computing failed: {str(failure)[:200]}")
        content, headers = encode_answer(
            self._repository.model, version.name, request_id, version.model.output, out, binary=binary
        )
        self._metrics.answered(200)
        return web.Response(body=content, headers=headers)

    def _failed(self, code: int, sentence: str) -> web.Response:
        self._metrics.answered(code)
        return answer({"error": sentence}, code)

    # health and metadata

    async def live(self, request: web.Request) -> web.Response:
        return answer({"live": True})

    async def ready(self, request: web.Request) -> web.Response:
        serving = self._repository.active is not None and not self.stopping
        return answer({"ready": serving}, 200 if serving else 503)

    async def server_metadata(self, request: web.Request) -> web.Response:
        return answer({
            "name": "slotune demo server", "version": "1", "emulated": self._emulated,
            "extensions": ["binary_tensor_data", "model_repository"]})  # fmt: skip

    async def model_metadata(self, request: web.Request) -> web.Response:
        version = self._repository.active
        if version is None:
            return answer({"error": "no version is loaded"}, 503)
        platform = "emulated accelerator (waits instead of computing)" if self._emulated else "onnxruntime_onnx"
        return answer({
            "name": self._repository.model, "versions": list(self._repository.loaded()), "platform": platform,
            "emulated": self._emulated, "served_version": version.name, "precision": version.precision,
            "inputs": [version.model.input.metadata()], "outputs": [version.model.output.metadata()]})  # fmt: skip

    async def unknown(self, request: web.Request) -> web.Response:
        return answer({"error": f"there is no {request.method} {request.path[:100]}"}, 404)

    # versions

    async def index(self, request: web.Request) -> web.Response:
        loaded, active = self._repository.loaded(), self._repository.active
        return answer([
            {
                "name": self._repository.model, "version": name,
                "state": "READY" if name in loaded else "UNAVAILABLE",
                "precision": loaded[name].precision if name in loaded else None,
                "served": active is not None and active.name == name,
            }
            for name in dict.fromkeys([*self._repository.on_disk(), *loaded])
        ])  # fmt: skip

    async def load(self, request: web.Request) -> web.Response:
        wish = await _document(request, allowed={"version", "parameters"})
        name = wish.get("version")
        self._metrics.load_attempts.inc()
        try:
            version = await self._repository.load(None if name is None else str(name)[:40])
        except BadRequest:
            self._metrics.load_failures.inc()
            raise
        self._metrics.serve(version.name, version.precision)
        loaded = list(self._repository.loaded())
        return answer({"version": version.name, "precision": version.precision, "loaded": loaded})

    async def unload(self, request: web.Request) -> web.Response:
        wish = await _document(request, allowed={"version", "parameters"})
        await self._repository.unload(str(wish.get("version"))[:40])
        return answer({"loaded": list(self._repository.loaded())})

    # configuration and faults

    async def get_config(self, request: web.Request) -> web.Response:
        limits, version = self._batcher.limits, self._repository.active
        return answer({
            "batch_size": limits.batch_size, "batch_timeout_ms": limits.batch_timeout_ms,
            "batch_size_max": MAX_BATCH, "batch_timeout_max_ms": MAX_TIMEOUT_MS,
            "model": self._repository.model, "version": version.name if version else None,
            "precision": version.precision if version else None, "emulated": self._emulated,
            "queue_depth": self._batcher.depth, "max_queue": self._batcher.max_queue})  # fmt: skip

    async def set_config(self, request: web.Request) -> web.Response:
        wish = await _document(request, allowed={"batch_size", "batch_timeout_ms", "max_queue"})
        size = wish.get("batch_size", self._batcher.limits.batch_size)
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= MAX_BATCH:
            raise BadRequest(f"batch_size must be a whole number from 1 to {MAX_BATCH}")
        timeout = _number(wish, "batch_timeout_ms", self._batcher.limits.batch_timeout_ms, 0.0, MAX_TIMEOUT_MS)
        queue = wish.get("max_queue", self._batcher.max_queue)
        if not isinstance(queue, int) or isinstance(queue, bool) or not 1 <= queue <= MAX_QUEUE:
            raise BadRequest(f"max_queue must be a whole number from 1 to {MAX_QUEUE}")
        self._batcher.limits.batch_size, self._batcher.limits.batch_timeout_ms = size, timeout
        self._batcher.max_queue = queue
        self._metrics.batch_limit.set(size)
        self._metrics.batch_timeout.set(timeout / 1000)
        self._batcher.wake()
        return await self.get_config(request)

    async def get_fault(self, request: web.Request) -> web.Response:
        faults = self._batcher.faults
        return answer({
            "error_share": faults.error_share, "slow_factor": faults.slow_factor,
            "leak_mb_per_s": faults.leak_mb_per_s})  # fmt: skip

    async def set_fault(self, request: web.Request) -> web.Response:
        wish = await _document(request, allowed={"error_share", "slow_factor", "leak_mb_per_s"})
        faults = self._batcher.faults
        share = _number(wish, "error_share", faults.error_share, 0.0, 1.0)
        slow = _number(wish, "slow_factor", faults.slow_factor, 1.0, 100.0)
        leak = _number(wish, "leak_mb_per_s", faults.leak_mb_per_s, 0.0, 1000.0)
        faults.error_share, faults.slow_factor, faults.leak_mb_per_s = share, slow, leak
        return await self.get_fault(request)

    async def get_shadow(self, request: web.Request) -> web.Response:
        faults = self._batcher.faults
        return answer({"reference": faults.shadow_reference, "share": faults.shadow_share})

    async def set_shadow(self, request: web.Request) -> web.Response:
        wish, faults = await _document(request, allowed={"reference", "share"}), self._batcher.faults
        share = _number(wish, "share", 0.1, 0.0, 1.0)
        reference = wish.get("reference")
        if share > 0 and self._emulated:
            raise BadRequest("an emulated accelerator computes nothing that could be compared")
        if share > 0 and str(reference) not in self._repository.loaded():
            raise BadRequest(f"version {str(reference)[:40]!r} is not loaded")
        faults.shadow_reference, faults.shadow_share = (str(reference), share) if share > 0 else (None, 0.0)
        return await self.get_shadow(request)

    async def recorded_inputs(self, request: web.Request) -> web.Response:
        version = self._repository.active
        if version is None:
            raise Busy("no version is loaded")
        spec = version.model.input
        return web.Response(body=self._batcher.reservoir.npz(spec.name, spec.width), content_type="application/zip")

    async def prometheus(self, request: web.Request) -> web.Response:
        self._metrics.queue_depth.set(self._batcher.depth)
        text, content_type = self._metrics.text()
        return web.Response(body=text, headers={"Content-Type": content_type})


def _sentences(handler: Callable[[web.Request], Awaitable[web.Response]]) -> Callable[..., Awaitable[web.Response]]:
    """Errors as JSON with a sentence."""

    async def call(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except BadRequest as bad:
            return answer({"error": str(bad)}, 400)
        except Busy as busy:
            return answer({"error": str(busy)}, 409)

    return call


async def _document(request: web.Request, *, allowed: set[str]) -> dict[str, Any]:
    body = await request.read()
    try:
        document = json.loads(body) if body else {}
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    if not isinstance(document, dict):
        raise BadRequest("the body must be a JSON object")
    if unknown := sorted(set(document) - allowed):
        raise BadRequest(f"unknown key {unknown[0][:40]!r}; known: {', '.join(sorted(allowed))}")
    return document


def _number(wish: dict[str, Any], key: str, default: float, low: float, high: float) -> float:
    value = wish.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise BadRequest(f"{key} must be a number")
    if not low <= value <= high:
        raise BadRequest(f"{key} must lie in {low:g} .. {high:g}, not {value:g}")
    return float(value)
