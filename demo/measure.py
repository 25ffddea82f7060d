"""What the service can carry, measured before anything else runs: so the scenarios fit the machine they run on."""

from __future__ import annotations

import statistics
import time
import urllib.request

from demo import models
from demo.server.protocol import HEADER_LENGTH, encode_request


def batch_seconds(
    address: str, sizes: tuple[int, ...], *, model: str = "ranker", repeats: int = 25
) -> dict[int, float]:
    """Seconds of a request of b rows, one after another, for each b: service time with the HTTP around it.

    The lower quartile, because whatever else the machine does can only make a request slower.
    """
    rows, _ = models.sample(max(sizes), seed=1)
    result = {}
    for size in sizes:
        body, json_length = encode_request(models.INPUT, rows[:size])
        took = []
        for _ in range(repeats + 3):
            request = urllib.request.Request(
                f"http://{address}/v2/models/{model}/infer", body, {HEADER_LENGTH: str(json_length)})  # fmt: skip
            started = time.perf_counter()
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
                answer.read()
            took.append(time.perf_counter() - started)
        result[size] = statistics.quantiles(took[3:], n=4)[0]
    return result
