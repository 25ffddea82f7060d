"""`slotune stress` as a person starts it, against real server processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from demo import web
from demo.processes import Child, free_port, wait_until
from detection.model import Anomaly, Incident
from tests.fakes.prometheus_http import FakePrometheus
from tests.slotune.stress.queue_of_one import SERVICE_S, true_knee
from tuning.ledger import SqlLedger
from tuning.loop.records import incident_record
from tuning.orders import ORDER, Order, orders_of, pauses
from tuning.query import Query
from tuning.stressed import STRESS

pytestmark = pytest.mark.server

SERVICES = """
prometheus: {connection: metrics, rate_window: 20s, step: 1s}
services:
  - name: ranker
    serving: slotune_demo
    selectors: {service: ranker}
    slo: {p95: 300ms}
"""
SERVED_S = 0.04
RATE_WINDOW_S = 20.0


def server(tmp_path: Path, *options: str) -> Iterator[str]:
    port = free_port()
    child = Child("server", [sys.executable, "-m", "demo.server", "--port", str(port), *options], tmp_path / "server.log")
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        child.check()
        return web.answers(f"{url}/v2/health/ready")

    try:
        wait_until(ready, 30.0, "the server becoming ready")
        yield url
    finally:
        child.stop()


@pytest.fixture(scope="module")
def emulated(tmp_path_factory) -> Iterator[str]:
    yield from server(tmp_path_factory.mktemp("server"), "--emulated", "--alpha-ms", "39", "--beta-ms", "1")


@pytest.fixture
def prometheus() -> Iterator[FakePrometheus]:
    fake = FakePrometheus()
    yield fake
    fake.close()


def start(folder: Path, *arguments: str, metrics: str = "http://127.0.0.1:9") -> subprocess.Popen[str]:
    (folder / "services.yaml").write_text(SERVICES)
    env = {**os.environ, "SLOTUNE_CONFIG": str(folder / "services.yaml"), "SLOTUNE_HOME": str(folder), "SLOTUNE_CONN_METRICS": metrics}
    env.pop("SLOTUNE_LEDGER_URL", None)
    command = [sys.executable, "-c", "from slotune.cli import main; main()", "stress", *arguments]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stress(folder: Path, *arguments: str, metrics: str = "http://127.0.0.1:9") -> tuple[int, str, str]:
    running = start(folder, *arguments, metrics=metrics)
    out, err = running.communicate(timeout=240)
    assert "Traceback" not in out + err, err
    return running.returncode, out, err


def test_the_knee_is_the_one_that_the_servers_own_speed_has(tmp_path, emulated):
    """40 ms a request, one at a time, P95 under 300 ms: the queue's own knee is computed from that, and the measured
    one lies within a quarter of it, although a step has 5 s and others share the machine."""
    truth = true_knee(300.0 * SERVICE_S / SERVED_S) * SERVICE_S / SERVED_S
    arguments = ["--to", "40/s", "--from", "12/s", "--model", "ranker", "--slo", "300ms", "--step", "5s", "--unwatched", "--json"]
    for attempt in range(3):
        page = tmp_path / "page.html"
        code, out, err = stress(tmp_path, emulated, *arguments, "--seed", str(attempt), "--html", str(page))
        found = json.loads(out)
        if "generator" not in found["ended"]:  # the machine was busy, and the test said so
            break
    assert code == 0, err
    assert found["knee"]["value"] == pytest.approx(truth, rel=0.25), err
    assert found["knee"]["low"] <= found["knee"]["value"] <= found["knee"]["high"]
    assert any(step["verdict"] == "met" for step in found["steps"]) and found["recoveries"]
    text = page.read_text()
    assert "<svg" in text and found["summary"][:40].split("(")[0] in text
    assert "requests per second" in text and "was not asked" in found["blind"]


def test_a_server_that_fails_ends_the_test_with_its_reason(tmp_path):
    for url in server(tmp_path, "--emulated", "--alpha-ms", "1", "--beta-ms", "1"):
        running = start(tmp_path, url, "--to", "60/s", "--from", "20/s", "--model", "ranker", "--slo", "300ms", "--step", "3s", "--unwatched", "--json")
        time.sleep(3.0)
        web.call(f"{url}/fault", {"error_share": 0.5})
        out, err = running.communicate(timeout=120)
        found = json.loads(out)
        assert "more requests failed than --stop-errors allows" in found["ended"], err
        assert found["steps"][-1]["verdict"] == "errors" and found["failures"]["500"] >= 2  # of 20 at least
        assert found["knee"]["high"] is not None


def test_ctrl_c_ends_it_with_what_was_measured(tmp_path, emulated):
    running = start(tmp_path, emulated, "--to", "20/s", "--from", "10/s", "--model", "ranker", "--slo", "300ms", "--step", "3s", "--unwatched", "--json")
    assert running.stderr is not None
    said = [line for line, _ in zip(running.stderr, range(2), strict=False)]
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert running.returncode == 130, err
    found = json.loads(out)
    assert found["ended"] == "it was interrupted" and len(found["steps"]) >= 1, said


class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b"<html>a page</html>"
        code = int(self.path.rpartition("/")[2] or 200)
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def page() -> Iterator[str]:
    site = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{site.server_address[1]}"
    site.shutdown()
    site.server_close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "20/s"], "nothing is sent without one"),
        (["{page}"], "give --to, the rate that is never passed"),
        (["ranker:8000", "--to", "20/s", "--unwatched"], "the address: is not an address"),
        (["http://127.0.0.1:9", "--to", "20/s", "--unwatched", "--slo", "1s", "--model", "m"], "cannot be reached"),
        (["{page}", "--to", "20/s"], "say with --service which one this is (ranker)"),
        (["{page}", "--to", "20/s", "--service", "rankr"], "did you mean 'ranker'"),
        (["{page}", "--to", "20/s", "--unwatched"], "give --slo"),
        (["{page}", "--to", "20/s", "--unwatched", "--slo", "1s", "--protocol", "json", "--path", "/404", "--body", "{body}"], "answered 404 to POST /404"),
        (["{page}", "--to", "20/s", "--unwatched", "--slo", "1s", "--protocol", "json", "--path", "/500", "--body", "{body}"], "answered 500 to one single request"),
        (["{page}", "--to", "20/s", "--unwatched", "--slo", "1s", "--protocol", "json", "--path", "/401", "--body", "{body}"], "name a --connection that holds a token"),
        (["{page}", "--to", "20/s", "--unwatched", "--slo", "1s", "--protocol", "json", "--path", "/200", "--body", "{body}"], "its answer is not JSON"),
        (["{page}", "--to", "20/s", "--unwatched", "--slo", "1s", "--protocol", "openai", "--path", "/200", "--model", "m"], "no stream of completions"),
        (["{page}", "--to", "20/s", "--unwatched", "--slo", "1s", "--step", "1s"], "a step needs at least"),
        (["{page}", "--to", "20/s", "--service", "ranker", "--unwatched"], "exclude each other"),
    ],
)  # fmt: skip
def test_bad_input_ends_in_a_sentence_and_nothing_is_sent(tmp_path, page, arguments, words):
    (tmp_path / "body.json").write_text('{"x": 1}')
    filled = [a.replace("{page}", page).replace("{body}", str(tmp_path / "body.json")) for a in arguments]
    code, out, err = stress(tmp_path, *filled)
    assert code == 2 and words in err.replace("\n", " ") and out == ""


def ledger(folder: Path) -> SqlLedger:
    return SqlLedger.open(f"sqlite:///{folder / 'ledger.sqlite'}")


def test_a_service_in_an_open_incident_is_left_alone(tmp_path, emulated, prometheus):
    anomaly = Anomaly(id="a", service="ranker", signal="p95_ms", tier="act", since_s=time.time() - 60, at_s=time.time(), observed=900.0,
                      expected_low=None, expected_high=None, score=3.0, detectors=("rules",), reason="P95 is 900 ms.")  # fmt: skip
    incident = Incident(id="i1", service="ranker", symptom="latency", tier="act", severity="critical", opened_at_s=time.time() - 60,
                        detected_at_s=time.time(), signals=("p95_ms",), anomalies=(anomaly,), reason="P95 is 900 ms.")  # fmt: skip
    ledger(tmp_path).put(incident_record(incident))
    code, _, err = stress(tmp_path, emulated, "--to", "20/s", "--service", "ranker", "--model", "ranker", metrics=prometheus.url)
    assert code == 2 and "ranker is in an open incident (i1: P95 is 900 ms)" in err
    assert ledger(tmp_path).find(Query(kinds=(STRESS, ORDER))) == []


def test_a_watched_service_is_written_down_paused_learned_from_and_resumed(tmp_path, emulated, prometheus):
    labels = {"service": "ranker"}
    for piece, value in (("inference_requests_total", "4"), ("inference_batch_duration", "40"), ("inference_batch_rows", "1.5"), ("inference_busy", "0.97")):
        prometheus.series[piece] = [(labels, lambda _at, value=value: value)]
    book = ledger(tmp_path)

    def paused() -> tuple[Order, ...]:
        return pauses(orders_of(book.find(Query(kinds=(ORDER,), order="written"))), time.time())

    for attempt in range(3):
        arguments = ["--to", "12/s", "--service", "ranker", "--model", "ranker", "--step", "2s", "--json", "--seed", str(attempt)]
        running = start(tmp_path, emulated, *arguments, metrics=prometheus.url)
        wait_until(paused, 60.0, "the pause in the ledger")
        assert [one.service for one in paused()] in (["ranker"], []) and all(one.until_s is not None for one in paused())
        out, err = running.communicate(timeout=200)
        assert running.returncode == 0 and "Traceback" not in err, err
        assert paused() == ()
        found = json.loads(out)
        code, _, err = stress(tmp_path, emulated, *arguments, metrics=prometheus.url)
        assert code == 2 and "Prometheus' rates still show it" in err
        if "generator" not in found["ended"]:  # the machine was busy, and the test said so
            break
        time.sleep(2 * RATE_WINDOW_S)
    assert found["other_per_s"] == pytest.approx(4.0) and found["steps"][0]["sent_per_s"] < found["steps"][0]["rate_per_s"]
    assert found["saturated"][0]["signal"] == "busy" and "learned from it" in found["learned"]
    assert book.get_blob("latency-model/ranker") is not None
    told = {row.phase: row for row in reversed(book.find(Query(kinds=(STRESS,))))}
    assert set(told) == {"intent", "result"} and told["result"].body["knee"] == found["knee"]


def test_a_stream_is_measured_by_its_first_token_and_between_tokens(tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "demo.language.server", "--port", str(port), "--step-ms", "10", "--max-num-seqs", "8"]
    child = Child("language", command, tmp_path / "language.log")
    try:
        wait_until(lambda: web.answers(f"http://127.0.0.1:{port}/health"), 30.0, "the language server")
        code, out, err = stress(
            tmp_path, f"http://127.0.0.1:{port}", "--protocol", "openai", "--model", "chat", "--words", "10", "--max-tokens", "8", "--unwatched",
            "--slo", "ttft_p95=2s", "--slo", "itl_p95=1s", "--from", "4/s", "--to", "6/s", "--step", "3s", "--json",
        )  # fmt: skip
    finally:
        child.stop()
    assert code == 0, err
    step = json.loads(out)["steps"][0]
    assert set(step["p95"]) == {"ttft_p95_ms", "itl_p95_ms"}
    assert 5 < step["p95"]["itl_p95_ms"]["value"] < step["p95"]["ttft_p95_ms"]["value"] < 2000


def test_nothing_is_left_running_when_the_loop_is_closed():
    """The generator hangs up on what is under way; no task outlives the run."""
    from slotune.load.wire import Pool
    from slotune.stress.generator import Generator

    async def run() -> int:
        async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(5.0)
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        pool = Pool("127.0.0.1", server.sockets[0].getsockname()[1])
        generator = Generator(pool, [b"POST / HTTP/1.1\r\n\r\n"], None, timeout_s=30.0, seed=0, most_under_way=5)
        generator.rate_per_s = 200.0
        generator.start()
        await asyncio.sleep(0.3)
        await generator.stop(0.1)
        server.close()
        return len([task for task in asyncio.all_tasks() if "_one" in repr(task)]), generator.log.answers["not sent"]

    left, unsent = asyncio.run(run())
    assert left == 0 and unsent > 0
