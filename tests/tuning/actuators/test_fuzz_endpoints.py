"""Whatever a control endpoint answers, a lever ends in a setting, a receipt, or an error of the tree.

Short by default; SLOTUNE_FUZZ=10000 for the long run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from detection.model import Service
from tests.fakes.actuators import FakeConnections, FakeTime, service, serving
from tuning import actuators
from tuning.errors import SlotuneError
from tuning.model import Change, Receipt, Setting

pytestmark = [pytest.mark.server, pytest.mark.timeout(3600)]
EXAMPLES = int(os.environ.get("SLOTUNE_FUZZ", "60"))

ODD = st.sampled_from(
    [0, -1, 8, 8.0, 8.5, True, None, "8", "\u00b2", "\ud800", "", [], {}, [1], 10**400, 1e308, 2**63, "9" * 5000, "READY", "1", "fp32"]
)  # fmt: skip
LEAF = st.one_of(ODD, st.integers(), st.floats(), st.text(max_size=8), st.booleans())
JSON = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=8)
CONFIG = st.fixed_dictionaries({}, optional={"batch_size": LEAF, "batch_timeout_ms": LEAF})
TRITON = st.fixed_dictionaries(
    {"max_batch_size": st.one_of(st.just(4), LEAF)},
    optional={
        "dynamic_batching": st.one_of(JSON, st.fixed_dictionaries({}, optional={"max_queue_delay_microseconds": LEAF, "preferred_batch_size": JSON})),
        "instance_group": JSON, "platform": LEAF, "backend": LEAF, "ensemble_scheduling": JSON, "sequence_batching": JSON,
    },
)  # fmt: skip
ROW = st.fixed_dictionaries(
    {"name": st.one_of(st.just("ranker"), LEAF), "state": st.one_of(st.just("READY"), LEAF)},
    optional={"version": st.one_of(st.just("1"), LEAF), "precision": LEAF, "served": LEAF, "reason": LEAF},
)
INDEX = st.one_of(st.lists(st.one_of(ROW, LEAF), max_size=3), st.fixed_dictionaries({"models": st.one_of(st.lists(ROW, max_size=3), LEAF)}), JSON)  # fmt: skip
BODY = st.one_of(CONFIG, TRITON, INDEX, JSON).map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60)
STATUS = st.one_of(st.just(200), st.sampled_from([204, 301, 307, 400, 403, 404, 429, 500, 503, 599, 999]))
ANSWERS = st.lists(st.tuples(STATUS, BODY), min_size=1, max_size=6)

LEVERS = {
    "http": ("batch_size", Change(lever="batch_size", old={"batch_size": 8}, new={"batch_size": 16})),
    "http_config": ("batch_size", Change(lever="batch_size", old={"batch_size": 8}, new={"batch_size": 16})),
    "model_repository": ("precision", Change(lever="precision", old={"precision": "int8"}, new={"precision": "fp32"})),
    "triton": ("batch_size", Change(lever="batch_size", old={"batch_size": 4}, new={"batch_size": 8})),
    "triton_repository": ("precision", Change(lever="precision", old={"precision": "int8"}, new={"precision": "fp32"})),
}


class Server:
    """Answers what it is told, in turn and from the start again."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.asked = 0
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        status, body = self.answers[self.asked % len(self.answers)]
        self.asked += 1
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in (("Retry-After", "\u00b2"), ("Location", "http://[bad")):
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    with ExitStack() as stack:
        made.url = stack.enter_context(serving(made.answer))
        yield made


def subject(server: Server, name: str) -> tuple[Any, Service, Change]:
    lever, change = LEVERS[name]
    time = FakeTime()
    actuator = actuators.get(name)(FakeConnections({"c": server.url}), time.clock, time.sleep)
    more: dict[str, object] = {} if name.startswith("http") else {"load_timeout_s": 2.0}
    if name == "http":
        more["read"] = {"path": "/c", "batch_size_at": "/batch_size", "batch_timeout_at": "/batch_timeout_ms"}
        more["write"] = {"path": "/c", "body": "{current}"}
    return actuator, service(lever, name, connection="c", request_timeout_s=5.0, **more), change


@pytest.mark.parametrize("name", LEVERS)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(answers=ANSWERS)
@example(answers=[(200, b"[" * 100_000)])
@example(answers=[(200, b'{"batch_size": 8, "batch_timeout_ms": 1e309}')])
def test_every_answer_ends_in_a_value_or_an_error_of_the_tree(server: Server, name: str, answers: list[tuple[int, bytes]]) -> None:
    actuator, chosen, change = subject(server, name)
    server.answers, server.asked = answers, 0
    for call in (lambda: actuator.read(chosen), lambda: actuator.apply(chosen, change, key="k:lever")):
        try:
            found: Setting | Receipt = call()
        except SlotuneError as error:
            assert len(str(error)) < 4000
            str(error).encode()
            assert str(error).isprintable()
        else:
            again = type(found).model_validate_json(found.model_dump_json())
            assert again == found
