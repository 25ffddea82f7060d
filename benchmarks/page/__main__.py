"""The page and /metrics over a ledger of 100,000 records and 1,000 services: how long the server works for a request.

    python -m benchmarks.page [--records 100000] [--repeats 7]

Wall time of the application (no network): the median of `repeats` requests after the first, which is given apart. The
baseline of the same run is a request for /style.css, which reads nothing. Prints its table; writes
benchmarks/results/page.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from fastapi.testclient import TestClient

from benchmarks.ledger.years import SERVICES, build, service_name
from detection.model import MetricWindow, Span
from detection.pipeline import signals_needed
from slotune.views.reading import Reading
from slotune.web.app import create_app
from tuning.ledger import SqlLedger
from tuning.loop.window_store import DIGEST, digest
from tuning.services_yaml import loads
from tuning.settings import Settings

RESULTS = Path(__file__).parents[1] / "results" / "page.json"
PATHS = ("/style.css", "/", "/metrics", "/incidents", "/changes", "/effects", "/health", f"/services/{service_name(7)}")
LIMITS_MS = {"/": 500.0, "/metrics": 1000.0}


def settings() -> Settings:
    one = "  - {{name: {name}, serving: triton, selectors: {{model: {name}}}, slo: {{p95: 150ms}}}}\n"
    return loads("services:\n" + "".join(one.format(name=service_name(i)) for i in range(SERVICES)))


def swept(made: Settings, at_s: float) -> bytes:
    """What a sweep over all services leaves for the page."""
    rng, span = np.random.default_rng(0), Span(at_s - 7200.0, at_s, 15.0)
    services = made.service_values()
    names = signals_needed(services)
    windows = {
        service.name: MetricWindow(
            service.name, span, {signal: rng.gamma(4.0, 25.0, span.points) for signal in names}, "histogram"
        )
        for service in services
    }
    return digest(windows, {}, (), at_s)


def measure(client: TestClient, path: str, repeats: int) -> dict[str, float]:
    taken = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        answer = client.get(path)
        taken.append(1e3 * (time.perf_counter() - began))
        assert answer.status_code == 200, (path, answer.status_code)
    median_ms, kb = statistics.median(taken[1:]), len(answer.content) / 1e3
    return {"first_ms": round(taken[0], 1), "median_ms": round(median_ms, 1), "kb": round(kb, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    made, now_s = settings(), 1_800_000_000.0
    with tempfile.TemporaryDirectory(prefix="slotune-page-") as folder:
        path = Path(folder) / "ledger.sqlite"
        build(path, args.records, now_s)
        ledger = SqlLedger.open(f"sqlite:///{path}")
        ledger.put_blob(DIGEST, swept(made, now_s), at_s=now_s)
        client = TestClient(create_app(lambda: Reading(ledger, ledger.get_blob, made, now_s)))
        found = {url: measure(client, url, args.repeats) for url in PATHS}
        ledger.close()
    base = found["/style.css"]["median_ms"]
    print(f"{'request':<28}{'median ms':>11}{'first ms':>10}{'kB':>9}{'x style.css':>13}{'limit ms':>10}")
    for url, row in found.items():
        row["ratio"] = round(row["median_ms"] / base, 1)
        limit = LIMITS_MS.get(url)
        print(f"{url:<28}{row['median_ms']:>11}{row['first_ms']:>10}{row['kb']:>9}{row['ratio']:>13}{limit or '':>10}")
    body = {"command": f"python -m benchmarks.page --records {args.records}", "services": SERVICES, "requests": found}
    RESULTS.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    return int(any(found[url]["median_ms"] > limit for url, limit in LIMITS_MS.items()))


if __name__ == "__main__":
    raise SystemExit(main())
